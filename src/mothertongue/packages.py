"""Python packages that contain data or models."""

from importlib import metadata
from pathlib import Path

from mothertongue.errors import BadInput


def find_package(name: str, version: str) -> metadata.Distribution:
    """An installed package of just this version. Raises BadInput otherwise."""
    command = f"pip install --no-deps {name}=={version}"
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise BadInput(f"params.yaml: revision: package {name} is not installed; {command}") from error
    if found.version != version:
        raise BadInput(
            f"params.yaml: revision: {name} is installed at {found.version}, not {version}; {command} or pin the other"
        )
    return found


def locate_file(found: metadata.Distribution, inside: str) -> Path:
    """The path of a file or folder of a package. The package is not imported."""
    return Path(str(found.locate_file(inside)))
