"""transformers: sampling and log-probabilities in plain torch, also for models quantised with bitsandbytes.

The result of a request depends on the request alone, not on the other requests of its batch. Rounding in a matrix
product depends on the shape of its operands, so that results change in their last digits with the batch size, and in
bfloat16 one answer in five to ten becomes another one. So each request is computed in a shape that depends only on its
own length: its row is padded, by one token at least (attention without padding uses another kernel), and its batch is
filled up with copies to a fixed number of rows. Prompts to continue are padded to a power of two, so that few batches
have copies; rows to score to an eighth of one. benchmarks/batches.py prints what is equal, and the cost.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mothertongue import hardware
from mothertongue.chat import Chat
from mothertongue.params import Dtype
from mothertongue.sampling import Completion, Generation, LogLikelihood, NextTokenLogprobs

NARROWEST = 32  # tokens: shorter rows are padded to it
# Results depend on these shapes: a change of one needs a higher sampling.REVISION.
ROWS = {"cpu": 16, "cuda": 64}  # of a batch when generating
TOKENS = {"cpu": 512, "cuda": 8192}  # of a batch when scoring: bounds the logits held in memory


class Transformers:
    """`AutoModelForCausalLM` on one model folder, on the GPU if there is one."""

    def __init__(self, folder: Path, dtype: Dtype, chat: Chat) -> None:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        self._device = "cuda" if hardware.has_gpu() else "cpu"
        self.chat = chat
        self.batch = 8 * ROWS[self._device]
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map="cuda" if self._device == "cuda" else None,
        ).eval()
        tokenizer = chat.tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._context = int(getattr(self._model.config, "max_position_embeddings", None) or 2**31)
        # Instead of the folder's own, which may penalise repetition or sample where greedy decoding is wanted.
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=list(chat.eos_token_ids), pad_token_id=self._pad
        )

    def generate(self, requests: Sequence[Generation]) -> list[Completion]:
        """See sampling.Engine."""
        found: dict[int, Completion] = {}
        lengths = [len(request.prompt) for request in requests]
        widths = [pad_width(length, self._context, parts=1) for length in lengths]
        for width, places in split_batches(widths, lambda _: ROWS[self._device]):
            found |= zip(places, self._generate([requests[place] for place in places], width), strict=True)
        return [found[place] for place in range(len(requests))]

    def _generate(self, requests: Sequence[Generation], width: int) -> list[Completion]:
        import torch
        from transformers import LogitsProcessorList

        prompts = [request.prompt for request in requests]
        ids, mask = self._padded(prompts, width, left=True)
        drawn = _Drawn(requests)
        processors = LogitsProcessorList([drawn]) if drawn.needed else None
        attention, ends = self._model.config._attn_implementation, self.chat.eos_token_ids
        if self._device == "cpu":
            self._model.set_attn_implementation("eager")  # on a CPU, fused attention takes half of a decoding step
        with torch.inference_mode():
            ids = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(request.max_tokens for request in requests),
                logits_processor=processors,
            )
        self._model.set_attn_implementation(attention)
        completions = []
        for request, row in zip(requests, ids[:, width:].tolist(), strict=True):
            row = row[: request.max_tokens]
            end = next((place for place, token in enumerate(row) if token in ends), None)
            row = row if end is None else row[: end + 1]
            completions.append(Completion(self.chat.decode(row), len(row), "length" if end is None else "stop"))
        return completions

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs]) -> list[list[float]]:
        """See sampling.Engine."""
        logs = self._log_probabilities([r.prompt for r in requests], [[r.options] for r in requests])
        return [row[0] for row in logs]

    def log_likelihood(self, requests: Sequence[LogLikelihood]) -> list[list[float]]:
        """See sampling.Engine."""
        # The last token predicts nothing that is wanted.
        rows = [(*r.prompt, *r.continuation)[:-1] for r in requests]
        logs = self._log_probabilities(rows, [[(token,) for token in r.continuation] for r in requests])
        return [[value for (value,) in row] for row in logs]

    def _log_probabilities(
        self, rows: Sequence[tuple[int, ...]], wanted: Sequence[Sequence[tuple[int, ...]]]
    ) -> list[list[list[float]]]:
        """For each row of ids, after its last `len(wanted[place])` positions, the log-probabilities of those wanted."""
        import torch

        found: dict[int, list[list[float]]] = {}
        widths = [pad_width(len(row), self._context, parts=8) for row in rows]
        for width, places in split_batches(widths, lambda width: TOKENS[self._device] // width):
            ids, mask = self._padded([rows[place] for place in places], width, left=False)
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                for place, line in zip(places, logits, strict=True):
                    line = line[len(rows[place]) - len(wanted[place]) : len(rows[place])].float()
                    asked = torch.tensor(wanted[place], device=line.device)
                    found[place] = (line.gather(1, asked) - line.logsumexp(dim=1, keepdim=True)).tolist()
        return [found[place] for place in range(len(rows))]

    def _padded(self, rows: Sequence[tuple[int, ...]], width: int, *, left: bool) -> tuple[Any, Any]:
        """Ids and mask of shape (rows, width), padded before each row (left) or after it."""
        import torch

        pads = [[self._pad] * (width - len(row)) for row in rows]
        ones, zeros = [[1] * len(row) for row in rows], [[0] * len(pad) for pad in pads]
        both = [(rows, pads), (ones, zeros)]
        ids, mask = (
            torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(*pair, strict=True)])
            for pair in both
        )
        return ids.to(self._model.device), mask.to(self._model.device)


def pad_width(length: int, context: int, parts: int) -> int:
    """The next larger multiple of the `parts`-th part of a power of two, or `context` where that is shorter."""
    step = max(NARROWEST, (1 << length.bit_length()) // parts)
    return max(length, min((length // step + 1) * step, context))


def split_batches(widths: Sequence[int], rows: Callable[[int], int]) -> Iterator[tuple[int, list[int]]]:
    """(width, places of it): each batch has `rows(width)` rows, at least one, and repeats its last to have them."""
    alike: dict[int, list[int]] = {}
    for place, width in enumerate(widths):
        alike.setdefault(width, []).append(place)
    for width, places in sorted(alike.items()):
        count = max(1, rows(width))
        for start in range(0, len(places), count):
            part = places[start : start + count]
            yield width, part + part[-1:] * (count - len(part))


class _Drawn:
    """Samples each row with its own seed, independent of its batch, as a logits processor before an argmax.

    The largest of log p + Gumbel noise is a sample of p (the Gumbel-max trick, Maddison et al. 2014). Tokens outside
    the nucleus of probability `top_p` (Holtzman et al. 2020) are excluded first.
    """

    def __init__(self, requests: Sequence[Generation]) -> None:
        import torch

        self.requests = list(requests)
        self.generators = [torch.Generator().manual_seed(r.seed) for r in requests]
        self.needed = any(r.temperature for r in requests)

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
