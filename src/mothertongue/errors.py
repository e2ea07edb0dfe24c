"""The one exception for what a user can fix: Click prints it as a single line and exits with 1."""

import click


class BadInput(click.ClickException):
    """A wrong parameter, row, file or model. The message names the place, the mistake and the remedy."""
