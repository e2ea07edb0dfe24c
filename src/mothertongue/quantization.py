"""Quantised models. The module of bitsandbytes."""

from pathlib import Path
from typing import Any

from mothertongue import weights
from mothertongue.files import new_folder, read_json_object
from mothertongue.origin import Origin, read_origin, write_origin
from mothertongue.params import Level


def quantize(full: Path, out: Path, params: Level, name: str) -> dict[str, float]:
    """Store a model at a bitsandbytes level and return the size of its weights.

    nf4 is the 4-bit normal float of Dettmers et al. 2023 with its scales quantised again; int8 is LLM.int8() of
    Dettmers et al. 2022. Layers that are not quantised are stored in bfloat16; nf4 computes in the model's dtype.
    """
    dtype = read_origin(full).dtype
    read_json_object(full / "config.json")
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
    }[params.format]
    model: Any = AutoModelForCausalLM.from_pretrained(
        full, quantization_config=config, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
    )
    with new_folder(out) as folder:
        weights.save_model(model, full, folder)
        write_origin(folder, Origin(source="quantized", id=name, revision=None, dtype=dtype))
        size, before = weights.weights_size(folder), weights.weights_size(full)
    return {"bytes": size, "share_of_full": size / before}
