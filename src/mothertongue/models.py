"""Model folders from packages, the Hugging Face hub, local folders and earlier versions, or the place of a server."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from mothertongue import packages
from mothertongue.errors import BadInput
from mothertongue.files import new_folder
from mothertongue.origin import SERVER, Origin, write_origin
from mothertongue.params import FolderModel, HubModel, Model, PackageModel, ServerModel, VersionModel
from mothertongue.rows import write_json

KEPT = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
# Mistral's own format, beside the hub's: the same weights once more, and a tokenizer without a chat template.
LEFT_OUT = ("consolidated*", "tekken.json")


def fetch(params: Model, out: Path) -> None:
    """Write a model as a folder of safetensors with its tokenizer. Raises BadInput where it has no weights.

    Of a server there is one file, which says how to reach it; nothing is asked here.
    """
    if isinstance(params, ServerModel):
        with new_folder(out) as folder:
            write_json(folder / SERVER, params.model_dump())
        return
    place = resolve(params) if isinstance(params, HubModel | FolderModel) else None
    with new_folder(out) as folder:
        revision = None if isinstance(params, FolderModel) else params.revision
        if isinstance(params, PackageModel):
            _convert_gguf(params, folder)
        elif isinstance(params, VersionModel):
            revision = _copy_version(params, folder)
        elif place:
            for pattern in KEPT:
                for path in place.glob(pattern):
                    if not any(map(path.match, LEFT_OUT)):
                        shutil.copyfile(path, folder / path.name)
        write_origin(folder, Origin(source=params.source, id=params.id, revision=revision, dtype=params.dtype))


def resolve(params: HubModel | FolderModel) -> Path:
    """The local folder of a hub or folder model, downloaded if need be. Raises BadInput where it has no weights."""
    if isinstance(params, HubModel):
        from huggingface_hub import snapshot_download

        try:
            place = Path(
                snapshot_download(
                    params.id, revision=params.revision, allow_patterns=list(KEPT), ignore_patterns=list(LEFT_OUT)
                )
            )
        except (OSError, ValueError) as error:
            raise BadInput(
                f"params.yaml: {params.id} at {params.revision}: {' '.join(str(error).split())}; correct id or revision"
            ) from error
    else:
        place = Path(params.id)
    weights = [path for path in sorted(place.glob("*.safetensors")) if not any(map(path.match, LEFT_OUT))]
    if not weights:
        raise BadInput(f"{place}: no *.safetensors file; convert the weights to safetensors first")
    _check_complete(weights)
    return place


def _check_complete(weights: list[Path]) -> None:
    """Raises BadInput where a file's header is broken, or gives another length than the file has."""
    from safetensors import SafetensorError, safe_open

    for path in weights:
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{path}: incomplete ({error}); fetch the model again") from error


def _copy_version(params: VersionModel, folder: Path) -> str:
    """Copy a model out of DVC's cache, and give DVC's digest of its folder, which is the same in every commit.

    Raises BadInput where the commit, its model or a file of it is not there, and where a file has not the digest that
    dvc.lock had at that commit: DVC itself does not look at the content of its cache again.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    name = f"models/{params.id} of commit {params.revision}"
    # `dvc exp run --temp` works in a copy of the project below its .dvc, which has no other experiments.
    around = next((path.parent for path in Path.cwd().parents if path.name == ".dvc"), Path.cwd())
    try:
        version = DVCFileSystem(str(around), rev=params.revision)
        top = version.info(f"models/{params.id}")
        files = version.find(f"models/{params.id}", detail=True)
        for path in files:
            if any(Path(path).match(pattern) for pattern in KEPT):
                # Not get_file: that gives a link to the file in the cache, and who writes to it destroys that one.
                with version.open(path, "rb") as source, (folder / Path(path).name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (DvcException, OSError) as error:
        raise BadInput(
            f"params.yaml: models: {name} is not there ({' '.join(str(error).split())}); correct id or revision, or"
            " `dvc pull` it"
        ) from error
    if not list(folder.glob("*.safetensors")):
        raise BadInput(f"params.yaml: models: {name} has no *.safetensors file; name another model")
    listed = [
        {"md5": found["dvc_info"]["md5"], "relpath": Path(path).relative_to(f"models/{params.id}").as_posix()}
        for path, found in sorted(files.items())
    ]
    digest = hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    if f"{digest}.dir" != top["dvc_info"]["md5"]:
        raise BadInput(f"{name}: the list of its files is damaged in DVC's cache; `dvc pull` it again")
    for path, found in files.items():
        copied = folder / Path(path).name
        if copied.exists():
            with copied.open("rb") as file:
                digest = hashlib.file_digest(file, "md5").hexdigest()
            if digest != found["dvc_info"]["md5"]:
                raise BadInput(f"{path} of commit {params.revision}: is damaged in DVC's cache; `dvc pull` it again")
    return str(top["dvc_info"]["md5"])


def _convert_gguf(model: PackageModel, folder: Path) -> None:
    """Write the GGUF file in a package, dequantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = packages.find_package(model.id, model.revision)
    paths = [path for path in found.files or [] if path.suffix == ".gguf"]
    if len(paths) != 1:
        raise BadInput(f"params.yaml: models: package {model.id} has {len(paths)} GGUF files, not one; name another")
    path = packages.locate_file(found, str(paths[0]))
    # Without local_files_only a saved file depends on whether the hub can be reached.
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    whole: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # transformers refuses to save a model that it read from GGUF: build it again from a configuration without
    # that.
    config = type(whole.config).from_dict(
        {k: v for k, v in whole.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    )
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(whole.state_dict())
    plain.tie_weights()
    plain.to(getattr(torch, model.dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
