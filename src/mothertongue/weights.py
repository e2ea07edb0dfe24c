"""Merging and quantising. The room of PEFT's merge and of bitsandbytes."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue.errors import BadInput
from mothertongue.files import new_folder, read_settings, weights_size
from mothertongue.params import Dtype, Merged


def merge(
    base: Path, adapter: Path, out: Path, params: Merged, probes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> dict[str, float]:
    """Add the adapter to the full-precision base, store the sum, and measure how far the stored sum is from its parts.

    `probes` are (prompt ids, answer ids). The difference is that of a token's log-probability, in nats, between base
    with adapter in float32 and the folder as stored, computed in float32. Raises BadInput when the largest is over
    `params.max_difference`; nothing is written then.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()

    adapted: Any = PeftModel.from_pretrained(load(base), str(adapter)).eval()
    with new_folder(out) as folder:
        before = [_token_log_probabilities(adapted, *probe) for probe in probes]
        merged: Any = adapted.merge_and_unload(safe_merge=True)
        _save(merged.to(getattr(torch, params.dtype)), base, folder)
        del adapted, merged
        stored = load(folder)
        gaps = torch.cat(
            [(_token_log_probabilities(stored, *probe) - was).abs() for probe, was in zip(probes, before, strict=True)]
        )
        largest = float(gaps.max())
        if not largest <= params.max_difference:  # so that NaN is refused, too
            raise BadInput(
                f"{out}: merged and adapter differ by {largest:.3g} nats in a token's log-probability, over"
                f" merged.max_difference {params.max_difference:g}; store it as float32 or raise the limit"
            )
    return {"largest_difference": largest, "mean_difference": float(gaps.mean()), "tokens": len(gaps)}


def _token_log_probabilities(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Any:
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


def _save(model: Any, source: Path, folder: Path) -> None:
    """Write weights and configuration; all else, such as the tokenizer, is the source's to the byte."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()  # the source's may be one that transformers reads, but does not write
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    for path in source.iterdir():
        if path.name != "config.json" and ".safetensors" not in path.name:
            shutil.copyfile(path, folder / path.name)


def quantize(merged: Path, out: Path, level: str, dtype: Dtype) -> dict[str, float]:
    """Store a model at a bitsandbytes level and return the size of its weights.

    nf4 is the 4-bit normal float of Dettmers et al. 2023 with its scales quantised again; int8 is LLM.int8() of
    Dettmers et al. 2022. What is not quantised is stored in bfloat16; `dtype` is what nf4 computes in.
    """
    read_settings(merged / "config.json")
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = {
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        ),
        "int8": BitsAndBytesConfig(load_in_8bit=True),
    }[level]
    model: Any = AutoModelForCausalLM.from_pretrained(
        merged, quantization_config=config, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
    )
    with new_folder(out) as folder:
        _save(model, merged, folder)
        size, full = weights_size(folder), weights_size(merged)
    return {"bytes": size, "share_of_merged": size / full}
