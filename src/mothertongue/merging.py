"""What a step learned, merged into the model that it started from. The module of PEFT's merge."""

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import origin, weights
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import new_folder, read_json_object
from mothertongue.origin import Origin, digest_weights, read_origin, write_origin
from mothertongue.params import Dtype, Merged
from mothertongue.records import Thread

PROBES = 16  # held-out answers on which the stored model is compared with its parts
Ids = tuple[int, ...]


def merge(
    start: Path, adapter: Path, out: Path, params: Merged, threads: Sequence[Thread], name: str
) -> dict[str, Any]:
    """Merge an adapter into a full-precision model, store it, and measure how far it is from its parts.

    Where a step trained all weights, `adapter` holds a whole model, which is stored. The difference is that of a
    token's log-probability, in nats, on experts' answers to held-out threads: once computed in float32, and once in the
    dtype that the model computes in. In float32 the largest has a limit. In bfloat16 the mean has one: there sums in
    another order differ, and the largest of a thousand tokens is chance. Raises BadInput when one is over its limit, or
    the adapter was trained on another model, tokenizer or chat template; nothing is written then.
    """
    probes = _select_probes(threads, start, adapter)
    import torch

    served = read_origin(start).dtype
    with new_folder(out) as folder:
        dtypes = dict.fromkeys(("float32", served))  # one, where it computes in float32
        before = {dtype: _measure(_load_parts(start, adapter, dtype), probes) for dtype in dtypes}
        parts: Any = _load_parts(start, adapter, "float32")
        merged: Any = parts.merge_and_unload(safe_merge=True) if hasattr(parts, "merge_and_unload") else parts
        weights.save_model(merged.to(getattr(torch, params.dtype)), start, folder)
        write_origin(folder, Origin(source="adapter", id=name, revision=None, dtype=served))
        del parts, merged
        report: dict[str, Any] = {}
        for dtype, was in before.items():
            gaps = (_measure(weights.load_model(folder, dtype), probes) - was).abs()
            largest, mean = float(gaps.max()), float(gaps.mean())
            report |= {dtype: {"largest_difference": largest, "mean_difference": mean}}
            found, what, limit = (
                (largest, "", "max_difference")
                if dtype == "float32"
                else (mean, " on average", "max_served_difference")
            )
            if not found <= getattr(params, limit):  # so that NaN is refused, too
                remedy = "raise the limit" if params.dtype == "float32" else "store it as float32 or raise the limit"
                raise BadInput(
                    f"{out}: merged and adapter differ by {found:.3g} nats in a token's log-probability{what}, computed"
                    f" in {dtype}, over merged.{limit} {getattr(params, limit):g}; {remedy}"
                )
    return {**report, "tokens": len(gaps)}


def _load_parts(start: Path, adapter: Path, dtype: Dtype) -> Any:
    """The start with its adapter, or the whole model of a step that trained all weights."""
    if not (adapter / "adapter_config.json").exists():
        return weights.load_model(adapter, dtype)
    from peft import PeftModel

    return PeftModel.from_pretrained(weights.load_model(start, dtype), str(adapter)).eval()


def _measure(model: Any, probes: Sequence[tuple[Ids, Ids]]) -> Any:
    """Log-probabilities of all tokens of the probes' answers, in one tensor."""
    import torch

    return torch.cat([weights.token_log_probabilities(model, *probe) for probe in probes])


def _select_probes(threads: Sequence[Thread], start: Path, adapter: Path) -> list[tuple[Ids, Ids]]:
    """Token ids of held-out prompts and experts' answers. Raises BadInput when the adapter is not one of `start`."""
    chat = Chat(start)
    trained = read_json_object(adapter / "start.json", "run the stage that makes it")
    if trained.get("chat") != chat.digest:
        raise BadInput(
            f"{adapter}: trained with chat template {trained.get('chat')}, but {start} has {chat.digest}; train the"
            " adapter again"
        )
    if trained.get("weights") != (there := digest_weights(start)):
        raise BadInput(
            f"{adapter}: trained on weights {trained.get('weights')}, but {start} has {there}; train the adapter again"
        )
    for path in weights.list_other_files(start):
        if path.name != origin.FILE and not _is_same(path, adapter / path.name):
            raise BadInput(f"{adapter}: {path.name} is not that of {start}; train the adapter again")
    if read_json_object(start / "config.json").get("quantization_config"):
        raise BadInput(f"{start}: is quantised, and no adapter can be merged into it; merge it into the original")
    held_out = [thread for thread in threads if thread.split != "train"] or [t for t in threads if t.reference]
    return [chat.encode_answer(thread.prompt, thread.expert) for thread in held_out[:PROBES]]


def _is_same(path: Path, copy: Path) -> bool:
    return copy.is_file() and filecmp.cmp(path, copy, shallow=False)
