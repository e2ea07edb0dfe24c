"""Where a model folder came from, and what it computes in; each stage that makes a model writes it there."""

from pathlib import Path
from typing import Literal

from mothertongue.files import read_json_object
from mothertongue.params import Dtype
from mothertongue.rows import Row, parse, write_json

FILE = "origin.json"


class Origin(Row):
    """`id` is a package, a repository, a folder or an entry of params.yaml; `revision` is there where one is pinned."""

    source: Literal["package", "hub", "folder", "adapter", "quantized"]
    id: str
    revision: str | None
    dtype: Dtype  # what the model computes in, whatever its weights are stored in


def write_origin(folder: Path, origin: Origin) -> None:
    """Write folder/origin.json."""
    write_json(folder / FILE, origin.model_dump())


def read_origin(folder: Path) -> Origin:
    """Read folder/origin.json. Raises BadInput where there is none: no stage of the chain made that folder."""
    return parse(Origin, read_json_object(folder / FILE, "run the stage that makes this model"), str(folder / FILE))
