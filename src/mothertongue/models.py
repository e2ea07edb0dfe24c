"""Model folders from packages, the Hugging Face hub and local folders."""

import shutil
from pathlib import Path
from typing import Any

from mothertongue import packages
from mothertongue.errors import BadInput
from mothertongue.files import new_folder
from mothertongue.params import Base, Dtype, Folder, Hub, Model, Package

KEPT = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
# Mistral's own format, beside the hub's: the same weights once more, and a tokenizer that knows no chat template.
LEFT = ("consolidated*", "tekken.json")


def fetch(params: Base, out: Path) -> None:
    """Write the model to adapt as a folder of safetensors with its tokenizer. Raises BadInput where there are none."""
    if isinstance(params.model, Package):
        with new_folder(out) as folder:
            _from_gguf(params.model, params.dtype, folder)
        return
    place = located(params.model)
    with new_folder(out) as folder:
        for pattern in KEPT:
            for path in place.glob(pattern):
                if not any(map(path.match, LEFT)):
                    shutil.copyfile(path, folder / path.name)


def located(model: Model) -> Path:
    """The local folder of a hub or folder model, downloaded if need be. Raises BadInput where it has no weights."""
    if isinstance(model, Package):
        raise BadInput(
            f"params.yaml: a packaged model ({model.id}) can only be base.model; name a hub model or a folder"
        )
    if isinstance(model, Hub):
        from huggingface_hub import snapshot_download

        try:
            place = Path(
                snapshot_download(
                    model.id, revision=model.revision, allow_patterns=list(KEPT), ignore_patterns=list(LEFT)
                )
            )
        except (OSError, ValueError) as error:
            raise BadInput(
                f"params.yaml: {model.id} at {model.revision}: {' '.join(str(error).split())}; mend id or revision"
            ) from error
    elif isinstance(model, Folder):
        place = Path(model.id)
    weights = [path for path in sorted(place.glob("*.safetensors")) if not any(map(path.match, LEFT))]
    if not weights:
        raise BadInput(f"{place}: no *.safetensors file; convert the weights to safetensors first")
    _check_whole(weights)
    return place


def _check_whole(weights: list[Path]) -> None:
    """Raises BadInput where a file's header is broken, or says of another length than the file has."""
    from safetensors import SafetensorError, safe_open

    for path in weights:
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise BadInput(f"{path}: not whole ({error}); fetch the model again") from error


def _from_gguf(model: Package, dtype: Dtype, folder: Path) -> None:
    """The GGUF file that a package carries, dequantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = packages.installed(model.id, model.revision)
    paths = [path for path in found.files or [] if path.suffix == ".gguf"]
    if len(paths) != 1:
        raise BadInput(
            f"params.yaml: base.model.id: package {model.id} carries {len(paths)} GGUF files, not one; name another"
        )
    path = packages.place(found, str(paths[0]))
    # Else its file says whether the hub was to be asked, which depends on the environment.
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    whole: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # transformers refuses to save a model that it read from GGUF: build it again from a configuration that does not
    # say so.
    config = type(whole.config).from_dict(
        {k: v for k, v in whole.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    )
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(whole.state_dict())
    plain.tie_weights()
    plain.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
