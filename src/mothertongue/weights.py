"""Model folders in full precision or quantised: loading, saving, and log-probabilities of given tokens."""

import shutil
from pathlib import Path
from typing import Any

from mothertongue.params import Dtype


def load_model(folder: Path, dtype: Dtype) -> Any:
    """A causal language model with its weights in a dtype."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    ).eval()


def save_model(model: Any, source: Path, folder: Path) -> None:
    """Write weights and configuration; all other files, such as the tokenizer's, are copies of the source's."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()  # transformers reads some settings that it refuses to write
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    copy_other_files(source, folder)


def copy_other_files(source: Path, folder: Path) -> None:
    """Copy what a model folder has beside weights and configuration, such as the tokenizer."""
    for path in list_other_files(source):
        shutil.copyfile(path, folder / path.name)


def list_other_files(folder: Path) -> list[Path]:
    """The files that `copy_other_files` copies."""
    return sorted(path for path in folder.iterdir() if path.name != "config.json" and ".safetensors" not in path.name)


def weights_size(folder: Path) -> int:
    """Bytes of a model folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def token_log_probabilities(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Any:
    """Natural log-probabilities of an answer's tokens after a prompt, a tensor of shape (len(answer),)."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
