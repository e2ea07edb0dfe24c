"""transformers: models that give one number for a text: PairRM, and reward models with one label.

As in sampling/transformers.py, a result depends on its own request only: each row is padded to a width that follows
from its length, in a batch of a fixed number of rows. A row that cannot be padded, because the model names no token for
that, and each row of a mixture of experts is computed alone.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mothertongue import hardware
from mothertongue.chat import Chat, escape_tokens, match_tokens
from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.origin import digest_weights, read_origin
from mothertongue.params import Dtype, Price
from mothertongue.records import Message
from mothertongue.sampling import Usage, describe_engine, has_experts
from mothertongue.sampling.transformers import ROWS, TOKENS, pad_width, split_batches
from mothertongue.store import Store

SOURCE, CANDIDATES = "<|source|>", ("<|candidate1|>", "<|candidate2|>")
PREFIXES = {SOURCE: "source_prefix_id", CANDIDATES[0]: "cand1_prefix_id", CANDIDATES[1]: "cand2_prefix_id"}
SOURCE_TOKENS, ALL_TOKENS = 1224, 2048  # that PairRM reads, at most

Forward = Callable[[Any, Any], Any]  # token ids and mask of shape (rows, width) to logits of shape (rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """PairRM's logit that the first of two candidates is better, of a source and both in one row of token ids."""

    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rating:
    """A reward model's logit on a conversation as token ids."""

    tokens: tuple[int, ...]


class PairRM:
    """PairRM in the form of llm-blender/PairRM-hf: a folder with its weights, configuration and tokenizer.

    The tokenizer is read as it was published: AutoTokenizer of transformers 5 makes a new one of its vocabulary, which
    normalises text in another way. Raises BadInput for a folder of another form, such as that of llm-blender/PairRM.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        from tokenizers import Tokenizer

        self.folder, self.store, self.usage = folder, store, Usage()
        self.price: Price | None = None
        config = _read_config(folder)
        if missing := [key for key in (*PREFIXES.values(), "n_tasks") if type(config.get(key)) is not int]:
            raise BadInput(
                f"{folder}: config.json has no {missing[0]}; take PairRM in the form of llm-blender/PairRM-hf"
                " (llm-blender/PairRM has no configuration of its encoder)"
            )
        path = folder / "tokenizer.json"
        read_json_object(path)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the only class that tokenizers raises
            raise BadInput(f"{path}: no tokenizer ({' '.join(str(error).split())}); fetch the model again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        for token, key in PREFIXES.items():
            if (found := self._tokenizer.token_to_id(token)) != config[key]:
                raise BadInput(f"{folder}: {token} is {found} in tokenizer.json, and config.json has {config[key]};"
                               " fetch the model again")  # fmt: skip
        added = self._tokenizer.get_added_tokens_decoder()
        self._control = match_tokens(token.content for token in added.values())
        self._never = set(added) - {self._tokenizer.token_to_id("[UNK]")}  # which stands for a character, too
        self._prefixes = tuple(config[key] for key in PREFIXES.values())
        self._pad = int(config.get("pad_token_id") or 0)
        self.dtype = read_origin(folder).dtype
        self.identity = _identify(folder, hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()[:16])

    def encode(self, source: str, first: str, second: str) -> tuple[Comparison, bool]:
        """Source and candidates as one row, [CLS] <|source|> ... [SEP] [CLS] <|candidate1|> ... [SEP] and so on, and
        whether one of them was cut.

        As in LLM-Blender's `tokenize_pair`: the source has 1224 tokens at most, each candidate half of what is left of
        2048, which is 412 or more. Control tokens are escaped. Ids of control tokens that normalisation makes of other
        letters are left out.
        """
        parts = [self._encode(prefix, text) for prefix, text in zip(PREFIXES, (source, first, second), strict=True)]
        room = (ALL_TOKENS - min(len(parts[0]), SOURCE_TOKENS)) // 2
        limits = (SOURCE_TOKENS, room, room)
        tokens = [
            token
            for part, limit in zip(parts, limits, strict=True)
            for token in (part if len(part) <= limit else [*part[: limit - 1], part[-1]])
        ]
        return Comparison(tuple(tokens)), any(len(part) > limit for part, limit in zip(parts, limits, strict=True))

    def compare(self, requests: Sequence[Comparison], label: str) -> list[float]:
        """For each request the logit that its first candidate is better."""
        self.usage += Usage(len(requests), sum(len(each.tokens) for each in requests))
        return _ask(self.store, self.identity, requests, lambda part: self._engine.compute(part), label)

    def _encode(self, prefix: str, text: str) -> list[int]:
        ids = self._tokenizer.encode(prefix + escape_tokens(self._control, text)).ids
        return [*ids[:2], *(token for token in ids[2:-1] if token not in self._never), ids[-1]]

    @cached_property
    def _engine(self) -> "_Engine":
        return _Engine(self.folder, self.dtype, _load_pairrm(self.folder, self.dtype, self._prefixes), self._pad)


class RewardModel:
    """A sequence-classification model with one label, and a chat template of its own.

    Raises BadInput for another number of labels, and for a model that generates: it has no number of labels, for which
    transformers takes two.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        from transformers import AutoConfig

        self.folder, self.store, self.usage = folder, store, Usage()
        self.price: Price | None = None
        plain = _read_config(folder)
        self.chat = Chat(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.num_labels != 1:
            raise BadInput(
                f"{folder}: {config.num_labels} labels, and a reward is one number; take a sequence-classification"
                " model with one label (num_labels 1)"
            )
        text = config.get_text_config()
        self._context = int(getattr(text, "max_position_embeddings", None) or 2**31)
        self._pad = None if has_experts(plain) else getattr(text, "pad_token_id", None)
        self.dtype = read_origin(folder).dtype
        self.identity = _identify(folder, self.chat.digest)

    def encode(self, messages: Sequence[Message], answer: str) -> Rating:
        """The conversation with the answer, as the chat template writes it."""
        prompt, rest = self.chat.encode_example(messages, answer)
        return Rating((*prompt, *rest))

    def rate(self, requests: Sequence[Rating], label: str) -> list[float]:
        """For each request the logit. Raises BadInput where one does not fit the model's context."""
        if long := [len(each.tokens) for each in requests if len(each.tokens) > self._context]:
            raise BadInput(
                f"{self.folder}: {len(long)} of {len(requests)} conversations need more than the model's context of"
                f" {self._context} tokens (the longest {max(long)}); take out the longest, or lower max_tokens in"
                " params.yaml"
            )
        self.usage += Usage(len(requests), sum(len(each.tokens) for each in requests))
        return _ask(self.store, self.identity, requests, lambda part: self._engine.compute(part), label)

    @cached_property
    def _engine(self) -> "_Engine":
        return _Engine(self.folder, self.dtype, _load_reward(self.folder, self.dtype), self._pad, self._context)


class _Engine:
    """A model in memory. Without a `pad` each row is computed alone, as long as it is."""

    def __init__(
        self, folder: Path, dtype: Dtype, forward: Forward, pad: int | None, context: int = ALL_TOKENS
    ) -> None:
        self._folder, self._dtype, self._forward, self._pad, self._context = folder, dtype, forward, pad, context
        self._device = _device()

    def compute(self, requests: Sequence[Comparison | Rating]) -> list[list[float]]:
        """For each request a list of one number."""
        import torch

        found: dict[int, float] = {}
        rows = [request.tokens for request in requests]
        if self._pad is None:
            batches = [(len(row), [place]) for place, row in enumerate(rows)]
        else:
            widths = [pad_width(len(row), self._context, parts=8) for row in rows]
            batches = list(split_batches(widths, lambda width: TOKENS[self._device] // width))
        for width, places in batches:
            pads = [width - len(rows[place]) for place in places]
            ids = [[*rows[place], *[self._pad or 0] * pad] for place, pad in zip(places, pads, strict=True)]
            mask = [[1] * (width - pad) + [0] * pad for pad in pads]
            with torch.inference_mode():
                logits = self._forward(torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device))
            found |= zip(places, logits.float().tolist(), strict=True)
        if not all(map(math.isfinite, found.values())):
            raise BadInput(
                f"{self._folder}: a logit is no number; set the model's dtype to float32 (now {self._dtype})"
            )
        return [[found[place]] for place in range(len(rows))]


def _load_pairrm(folder: Path, dtype: Dtype, prefixes: tuple[int, ...]) -> Forward:
    """The encoder and its head, by the names that they have in the checkpoint; dropout does nothing here.

    A candidate's score is head(the encoding of <|source|>, then that of its own prefix), with two linear layers and
    tanh between them; the logit is the mean over the head's outputs of the first's minus the second's.
    """
    import torch
    from torch import nn
    from transformers import DebertaV2Model, DebertaV2PreTrainedModel

    class Network(DebertaV2PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.pretrained_model = DebertaV2Model(config)
            self.head_layer = nn.Sequential(
                nn.Identity(),
                nn.Linear(2 * config.hidden_size, config.hidden_size),
                nn.Tanh(),
                nn.Identity(),
                nn.Linear(config.hidden_size, config.n_tasks),
            )
            self.post_init()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            source, *candidates = (states[input_ids == prefix] for prefix in prefixes)  # each is there once in a row
            first, second = (self.head_layer(torch.cat([source, each], dim=1)) for each in candidates)
            return (first - second).mean(dim=1)

    forward: Forward = _load(Network, folder, dtype)
    return forward


def _load_reward(folder: Path, dtype: Dtype) -> Forward:
    from transformers import AutoModelForSequenceClassification

    model: Any = _load(AutoModelForSequenceClassification, folder, dtype)
    model.config.use_cache = False
    return lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits[:, 0]


def _load(kind: Any, folder: Path, dtype: Dtype) -> Any:
    """A model with all its weights. Raises BadInput where one is missing, which transformers would draw at random."""
    import torch

    model, info = kind.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=False,
        device_map="cuda" if _device() == "cuda" else None,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        raise BadInput(
            f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; name a model that was trained as a"
            " judge"
        )
    return model.eval()


def _ask(
    store: Store,
    identity: dict[str, str],
    requests: Sequence[Any],
    compute: Callable[[Sequence[Any]], list[list[float]]],
    label: str,
) -> list[float]:
    return [value for (value,) in store.get_or_compute(identity, requests, compute, lambda: 8 * ROWS[_device()], label)]


def _identify(folder: Path, text: str) -> dict[str, str]:
    """What a result depends on but the request; `text` is the digest of all that makes token ids."""
    return {
        "weights": digest_weights(folder),
        "chat": text,
        "engine": describe_engine("transformers"),
        "device": hardware.device_name(),
        "dtype": read_origin(folder).dtype,
    }


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json", "run the stage that makes this model")
    if config.get("quantization_config"):
        raise BadInput(f"{folder}: quantised weights, which a judge of this kind cannot have; take the whole ones")
    return config


def _device() -> str:
    return "cuda" if hardware.has_gpu() else "cpu"
