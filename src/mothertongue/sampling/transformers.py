"""The transformers room: sampling and scoring in plain torch, also on models that bitsandbytes quantised."""

import logging
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from mothertongue import hardware, memory
from mothertongue.chat import Chat
from mothertongue.params import Dtype
from mothertongue.sampling import Choose, Generate, Text, Weigh

STEPS = 4  # tokens between two looks at which answers have ended: those leave the batch
TOKENS = 4096  # padded tokens of one forward pass when scoring: bounds the logits held in memory
PROMPT_TOKENS = 32768  # the same when generating, where a prompt has one row of logits


class Transformers:
    """`AutoModelForCausalLM` on one model folder, on the GPU if there is one."""

    def __init__(self, folder: Path, dtype: Dtype, chat: Chat) -> None:
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig
        from transformers.cache_utils import DynamicLayer

        # int8 layers say at every call that they cast their inputs.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        logging.getLogger("transformers.generation").setLevel(logging.ERROR)
        self._gpu = hardware.gpu()
        if not self._gpu:
            memory.keep_freed()
        self.chat = chat
        self.batch = 128  # a step of a quantised model costs much the same for one row and for many
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map="cuda" if self._gpu else None,
        ).eval()
        tokenizer = chat.tokenizer
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        # Instead of the folder's own, which may punish repetition or draw where the likeliest token is asked for.
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=list(chat.ends), pad_token_id=self._pad, return_dict_in_generate=True
        )

        # Sliding windows count padding, and recurrent layers cannot go on from a shared beginning.
        layers = DynamicCache(config=self._model.config).layers
        self._shares = all(type(layer) is DynamicLayer for layer in layers)

    def generate(self, requests: Sequence[Generate]) -> list[Text]:
        """See sampling.Engine."""
        said: dict[int, Text] = {}
        for places in _alike([len(request.prompt) for request in requests]):
            said |= zip(places, self._generate([requests[place] for place in places]), strict=True)
        return [said[place] for place in range(len(requests))]

    def _generate(self, requests: Sequence[Generate]) -> list[Text]:
        import torch
        from transformers import LogitsProcessorList

        ends = self.chat.ends
        prompts = [r.prompt for r in requests]
        shared = _shared(prompts) if self._shares else 0
        cache = self._begun(prompts[0][:shared], len(prompts))
        ids, mask = self._padded(prompts, shared, left=True)
        drawn = _Drawn(requests)
        rows: list[list[int]] = [[] for _ in requests]
        going = list(range(len(requests)))
        attention = self._model.config._attn_implementation
        while going:
            most = max(requests[place].max_tokens - len(rows[place]) for place in going)
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    past_key_values=cache,
                    max_new_tokens=min(STEPS, most) if rows[going[0]] else 1,  # at first the prompt, alone
                    logits_processor=LogitsProcessorList([drawn]) if drawn.needed else None,
                )
            for place, said in zip(going, output.sequences[:, ids.shape[1] :].tolist(), strict=True):
                room = requests[place].max_tokens - len(rows[place])
                end = next((at for at, token in enumerate(said, start=1) if token in ends), len(said))
                rows[place] += said[: min(end, room)]
            cache, ids = output.past_key_values, output.sequences
            mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
            goes_on = [rows[place][-1] not in ends and len(rows[place]) < requests[place].max_tokens for place in going]
            if not all(goes_on):
                left = torch.tensor(goes_on, device=ids.device).nonzero()[:, 0]
                cache.reorder_cache(left)
                ids, mask = ids[left], mask[left]
                drawn.keep(goes_on)
                going = list(compress(going, goes_on))
            if not self._gpu:
                self._model.set_attn_implementation("eager")  # fused attention would be half of a step on a CPU
        self._model.set_attn_implementation(attention)
        return [Text(self.chat.decode(row), len(row), "stop" if row[-1] in ends else "length") for row in rows]

    def choose(self, requests: Sequence[Choose]) -> list[list[float]]:
        """See sampling.Engine."""
        weighed = self._log_probabilities([r.prompt for r in requests], [[r.options] for r in requests])
        return [row[0] for row in weighed]

    def weigh(self, requests: Sequence[Weigh]) -> list[list[float]]:
        """See sampling.Engine."""
        # The last token predicts nothing that is asked.
        rows = [(*r.prompt, *r.continuation)[:-1] for r in requests]
        weighed = self._log_probabilities(rows, [[(token,) for token in r.continuation] for r in requests])
        return [[value for (value,) in row] for row in weighed]

    def _log_probabilities(
        self, rows: Sequence[tuple[int, ...]], wanted: Sequence[Sequence[tuple[int, ...]]]
    ) -> list[list[list[float]]]:
        """For each row of ids, after its last `len(wanted[place])` positions, the log-probabilities of those wanted."""
        import torch

        starts = [len(row) - len(asked) for row, asked in zip(rows, wanted, strict=True)]
        prompts = [row[: start + 1] for row, start in zip(rows, starts, strict=True)]
        shared = _shared(prompts) if self._shares else 0
        order = sorted(range(len(rows)), key=lambda place: (len(rows[place]), place))
        found: dict[int, list[list[float]]] = {}
        while order:
            longest = max(1, TOKENS // len(rows[order[-1]]))
            part, order = order[-longest:], order[:-longest]
            ids, mask = self._padded([rows[place] for place in part], 0, left=False)
            first = min(starts[place] for place in part)  # no head for what comes before all that is wanted
            with torch.inference_mode():
                logits = self._model(
                    input_ids=ids[:, shared:],
                    attention_mask=mask,
                    past_key_values=self._begun(rows[0][:shared], len(part)),
                    use_cache=bool(shared),
                    logits_to_keep=ids.shape[1] - first,
                ).logits
                for place, line in zip(part, logits, strict=True):
                    line = line[starts[place] - first : len(rows[place]) - first].float()
                    asked = torch.tensor(wanted[place], device=line.device)
                    found[place] = (line.gather(1, asked) - line.logsumexp(dim=1, keepdim=True)).tolist()
        return [found[place] for place in range(len(rows))]

    def _begun(self, ids: tuple[int, ...], n: int) -> Any:
        """What n rows attend to that begin with the same ids, computed once; None for no ids."""
        import torch

        if not ids:
            return None
        with torch.inference_mode():
            asked = torch.tensor([ids]).to(self._model.device)
            cache = self._model(input_ids=asked, use_cache=True, logits_to_keep=1).past_key_values
        cache.reorder_cache(torch.zeros(n, dtype=torch.long, device=self._model.device))
        return cache

    def _padded(self, rows: Sequence[tuple[int, ...]], shared: int, *, left: bool) -> tuple[Any, Any]:
        """Ids and mask, padded after the `shared` first tokens (left) or at the end, so that the first stay alike."""
        import torch

        width = max(map(len, rows))
        pads = [[self._pad] * (width - len(row)) for row in rows]
        ones = [[1] * len(row) for row in rows]
        zeros = [[0] * len(pad) for pad in pads]
        if left:
            ids = [[*row[:shared], *pad, *row[shared:]] for row, pad in zip(rows, pads, strict=True)]
            mask = [[*one[:shared], *zero, *one[shared:]] for one, zero in zip(ones, zeros, strict=True)]
        else:
            ids = [[*row, *pad] for row, pad in zip(rows, pads, strict=True)]
            mask = [[*one, *zero] for one, zero in zip(ones, zeros, strict=True)]
        return torch.tensor(ids).to(self._model.device), torch.tensor(mask).to(self._model.device)


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens all prompts share, leaving each at least one of its own; 0 for a prompt alone."""
    first, last = min(prompts), max(prompts)  # what these two share, those between them share too
    room = min(map(len, prompts)) - 1 if len(prompts) > 1 else 0
    return next((at for at in range(room) if first[at] != last[at]), room)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Places of lengths, in groups of at most PROMPT_TOKENS padded tokens, the longest at most twice the shortest.

    Padding is computed, too.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        length = lengths[place]
        if not groups or length > 2 * lengths[groups[-1][0]] or length * (len(groups[-1]) + 1) > PROMPT_TOKENS:
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

        self.requests = list(requests)
        self.generators = [torch.Generator().manual_seed(r.seed) for r in requests]
        self.needed = any(r.temperature for r in requests)

    def keep(self, goes_on: Sequence[bool]) -> None:
        """Leave out the rows that do not go on."""
        self.requests = list(compress(self.requests, goes_on))
        self.generators = list(compress(self.generators, goes_on))

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
