"""A model and a LoRA adapter merged into one model. The module of PEFT's merge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import weights
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import new_folder, read_json_object
from mothertongue.origin import Origin, read_origin, write_origin
from mothertongue.params import Merged
from mothertongue.records import Pair

PROBES = 32  # held-out pairs on which the stored model is compared with its parts


def merge(start: Path, adapter: Path, out: Path, params: Merged, pairs: Sequence[Pair], name: str) -> dict[str, float]:
    """Merge an adapter into a full-precision model, store it, and measure how far it is from its parts.

    The difference is that of a token's log-probability, in nats, between the model with its adapter in float32 and the
    folder as stored, computed in float32, on the chosen sides of held-out pairs. Raises BadInput when the largest is
    over `params.max_difference`, or the adapter was trained with another chat template; nothing is written then.
    """
    probes = _select_probes(pairs, start, adapter)
    import torch
    from peft import PeftModel

    adapted: Any = PeftModel.from_pretrained(weights.load_float32(start), str(adapter)).eval()
    with new_folder(out) as folder:
        before = [weights.token_log_probabilities(adapted, *probe) for probe in probes]
        merged: Any = adapted.merge_and_unload(safe_merge=True)
        weights.save_model(merged.to(getattr(torch, params.dtype)), start, folder)
        write_origin(folder, Origin(source="adapter", id=name, revision=None, dtype=read_origin(start).dtype))
        del adapted, merged
        stored = weights.load_float32(folder)
        after = [weights.token_log_probabilities(stored, *probe) for probe in probes]
        gaps = torch.cat([(now - was).abs() for now, was in zip(after, before, strict=True)])
        largest = float(gaps.max())
        if not largest <= params.max_difference:  # so that NaN is refused, too
            raise BadInput(
                f"{out}: merged and adapter differ by {largest:.3g} nats in a token's log-probability, over"
                f" merged.max_difference {params.max_difference:g}; store it as float32 or raise the limit"
            )
    return {"largest_difference": largest, "mean_difference": float(gaps.mean()), "tokens": len(gaps)}


def _select_probes(pairs: Sequence[Pair], start: Path, adapter: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Token ids of prompt and chosen side. Raises BadInput when the adapter was trained with another rendering."""
    chat = Chat(start)
    trained = read_json_object(adapter / "chat.json", "run the stage that makes it").get("digest")
    if trained != chat.digest:
        raise BadInput(
            f"{adapter}: trained with chat template {trained}, but {start} has {chat.digest}; train the adapter again"
        )
    held_out = [pair for pair in pairs if pair.split != "train"] or list(pairs)
    return [chat.encode_answer(pair.prompt, pair.sides[0][0]) for pair in held_out[:PROBES]]
