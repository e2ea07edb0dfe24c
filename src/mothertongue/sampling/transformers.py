"""The transformers room: sampling and scoring in plain torch, also on models that bitsandbytes quantised."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mothertongue import memory
from mothertongue.chat import Chat
from mothertongue.params import Dtype
from mothertongue.sampling import Choose, Generate, Text, Weigh

TOKENS = 4096  # padded tokens of one forward pass when scoring: bounds the logits held in memory


class Transformers:
    """`AutoModelForCausalLM` on one model folder, on the GPU if there is one."""

    def __init__(self, folder: Path, dtype: Dtype, chat: Chat) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        # int8 layers say at every call that they cast their inputs.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        logging.getLogger("transformers.generation").setLevel(logging.ERROR)
        if not (gpu := torch.cuda.is_available()):
            memory.keep_freed()
        self.chat = chat
        self.batch = 128  # a step of a quantised model costs much the same for one row and for many
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map="cuda" if gpu else None,
        ).eval()
        tokenizer = chat.tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def generate(self, requests: Sequence[Generate]) -> list[Text]:
        """See sampling.Engine."""
        said: dict[int, Text] = {}
        for places in _alike([len(request.prompt) for request in requests]):
            said |= zip(places, self._generate([requests[place] for place in places]), strict=True)
        return [said[place] for place in range(len(requests))]

    def _generate(self, requests: Sequence[Generate]) -> list[Text]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        eos = self.chat.tokenizer.eos_token_id
        ids, mask = self._padded([r.prompt for r in requests], left=True)
        config = GenerationConfig(
            max_new_tokens=max(r.max_tokens for r in requests),
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=self._pad,
        )
        drawn = LogitsProcessorList([_Drawn(requests)]) if any(r.temperature for r in requests) else None
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=drawn
            )
        texts = []
        for request, row in zip(requests, output[:, ids.shape[1] :].tolist(), strict=True):
            row = row[: request.max_tokens]
            stopped = eos in row
            tokens = row.index(eos) + 1 if stopped else len(row)
            texts.append(Text(self.chat.decode(row[:tokens]), tokens, "stop" if stopped else "length"))
        return texts

    def choose(self, requests: Sequence[Choose]) -> list[list[float]]:
        """See sampling.Engine."""
        weighed = self._log_probabilities([(r.prompt, 1) for r in requests])
        return [row[0, list(r.options)].tolist() for r, row in zip(requests, weighed, strict=True)]

    def weigh(self, requests: Sequence[Weigh]) -> list[list[float]]:
        """See sampling.Engine."""
        # The last token predicts nothing that is asked.
        weighed = self._log_probabilities([((*r.prompt, *r.continuation)[:-1], len(r.continuation)) for r in requests])
        return [
            [float(row[place, token]) for place, token in enumerate(r.continuation)]
            for r, row in zip(requests, weighed, strict=True)
        ]

    def _log_probabilities(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> Iterator[Any]:
        """For each (ids, n) the log-probabilities after its last n positions, float32 of shape (n, vocabulary)."""
        import torch

        order = sorted(range(len(rows)), key=lambda place: (len(rows[place][0]), place))
        found: dict[int, Any] = {}
        while order:
            longest = max(1, TOKENS // len(rows[order[-1]][0]))
            part, order = order[-longest:], order[:-longest]
            ids, mask = self._padded([rows[place][0] for place in part], left=False)
            ends = [len(rows[place][0]) for place in part]
            starts = [end - rows[place][1] for end, place in zip(ends, part, strict=True)]
            first = min(starts)  # no head for what comes before all answers
            with torch.inference_mode():
                logits = self._model(
                    input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first
                ).logits
                for place, row, start, end in zip(part, logits, starts, ends, strict=True):
                    found[place] = torch.log_softmax(row[start - first : end - first].float(), dim=-1).cpu()
        return (found[place] for place in range(len(rows)))

    def _padded(self, rows: Sequence[tuple[int, ...]], *, left: bool) -> tuple[Any, Any]:
        import torch

        width = max(map(len, rows))
        pads = [[self._pad] * (width - len(row)) for row in rows]
        ones = [[1] * len(row) for row in rows]
        zeros = [[0] * len(pad) for pad in pads]
        ids = [[*p, *r] if left else [*r, *p] for r, p in zip(rows, pads, strict=True)]
        mask = [[*z, *o] if left else [*o, *z] for o, z in zip(ones, zeros, strict=True)]
        return torch.tensor(ids).to(self._model.device), torch.tensor(mask).to(self._model.device)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of lengths, grouped so that a group's longest is at most twice its shortest: padding is computed, too."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        if not groups or lengths[place] > 2 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(place)
    return groups


class _Drawn:
    """Draws each row from its own seed, whatever shares its batch, as a logits processor before an argmax.

    The largest of log p + Gumbel noise is a sample of p (the Gumbel-max trick, Maddison et al. 2014). Tokens outside
    the nucleus of probability `top_p` (Holtzman et al. 2020) are struck out first.
    """

    def __init__(self, requests: Sequence[Generate]) -> None:
        import torch

        self.requests = requests
        self.generators = [torch.Generator().manual_seed(r.seed) for r in requests]

    def __call__(self, _: Any, scores: Any) -> Any:
        import torch

        drawn = scores.float().clone()
        for row, (request, generator) in enumerate(zip(self.requests, self.generators, strict=True)):
            if not request.temperature:
                continue
            line = torch.log_softmax(drawn[row] / request.temperature, dim=-1)
            if request.top_p < 1:
                ordered, places = line.sort(descending=True)
                before = ordered.exp().cumsum(dim=-1) - ordered.exp()
                line[places[before >= request.top_p]] = -torch.inf
            noise = torch.empty(line.shape).exponential_(generator=generator).log().neg()
            drawn[row] = line + noise.to(line.device)
        return drawn
