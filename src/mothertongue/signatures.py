"""Signatures of figures: what must be equal before two values are compared."""

import json

from mothertongue.errors import BadInput

REMEDY = "measure all again on one machine: dvc repro -s -f metrics, then dvc repro"


def check_alike(ours: str, theirs: str, where: str, other: str) -> None:
    """Raise BadInput, with what is unlike, where the signature of the figure `where` is not that of `other`."""
    if ours == theirs:
        return
    mine, its = json.loads(ours), json.loads(theirs)
    unlike = [
        f"{key} {mine.get(key)!r}, not {its.get(key)!r} as {other}"
        for key in sorted({*mine, *its})
        if mine.get(key) != its.get(key)
    ]
    raise BadInput(f"{where}: measured with {'; '.join(unlike)}; {REMEDY}")
