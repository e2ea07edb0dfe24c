"""Where a model folder came from, what it computes in, and a digest of its weights."""

import hashlib
from pathlib import Path
from typing import Literal

from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.params import Dtype
from mothertongue.rows import Row, parse, write_json

FILE = "origin.json"
SERVER = "server.json"  # instead of weights: how to reach a server


class Origin(Row):
    """`id` is a package, a repository, a folder or an entry of params.yaml; `revision` is there where one is pinned.

    That of a `version` is DVC's digest of the folder: another commit with the same model makes nothing stale.
    """

    source: Literal["package", "hub", "folder", "version", "adapter", "quantized"]
    id: str
    revision: str | None
    dtype: Dtype  # what the model computes in, whatever its weights are stored in


def write_origin(folder: Path, origin: Origin) -> None:
    """Write folder/origin.json."""
    write_json(folder / FILE, origin.model_dump())


def read_origin(folder: Path) -> Origin:
    """Read folder/origin.json. Raises BadInput where there is none: no stage of the chain made that folder."""
    return parse(Origin, read_json_object(folder / FILE, "run the stage that makes this model"), str(folder / FILE))


def digest_weights(folder: Path) -> str:
    """SHA-256 over the names and bytes of weights and model configuration, 16 hex digits."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(f"{folder}: no *.safetensors file; convert the weights to safetensors first")
    whole = hashlib.sha256()
    for path in (*weights, folder / "config.json", folder / "generation_config.json"):
        if path.exists():
            with path.open("rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]
