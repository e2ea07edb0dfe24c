"""Text and log-probabilities from a model: requests, results, and the engines that compute them.

A local engine gets token ids, a server messages: `encode` of Model and of server.Server makes what each is asked with.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mothertongue import hardware
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.origin import digest_weights, read_origin
from mothertongue.params import Engine as EngineName
from mothertongue.params import LocalEngine, Price
from mothertongue.records import Message
from mothertongue.store import Store

if TYPE_CHECKING:
    from mothertongue.sampling.server import Server

Prompt = tuple[Any, ...]  # token ids; for a server (role, content) of each message


@dataclass(frozen=True, slots=True)
class Generation:
    """Continue `prompt` by at most `max_tokens`; `temperature` 0 takes the likeliest token each time.

    `index` counts the samples of one prompt, so that requests that are equal otherwise are different.
    """

    prompt: Prompt
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    index: int


@dataclass(frozen=True, slots=True)
class NextTokenLogprobs:
    """Natural log-probabilities of each of `options` (token ids; for a server texts) as the token after `prompt`."""

    prompt: Prompt
    options: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """Natural log-probabilities of each token of `continuation` after `prompt`."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated text without control tokens; `tokens` counts what was generated, its end token too."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests, and the tokens of their prompts and answers, whenever they were computed or paid for.

    Of `uncounted` requests a server did not say how many tokens they had.
    """

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.tokens + other.tokens,
            self.uncounted + other.uncounted,
        )


class Engine(Protocol):
    """A model in memory. `batch` is the number of requests to hand over at once."""

    batch: int

    def generate(self, requests: Sequence[Generation]) -> list[Completion]:
        """One completion per request, in order."""

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs]) -> list[list[float]]:
        """For each request one log-probability per option."""

    def log_likelihood(self, requests: Sequence[LogLikelihood]) -> list[list[float]]:
        """For each request one log-probability per token of its continuation."""


REVISION = 5  # of the engine modules: raise it when results change, so that no old result is taken from the store


def is_installed(engine: EngineName) -> bool:
    """Whether an engine can be imported."""
    return util.find_spec("openai" if engine == "server" else engine) is not None


def open_model(folder: Path, engine: EngineName, store: Store) -> "Model | Server":
    """The model in a folder that stage `models` or a later one made, on an engine."""
    if engine == "server":
        from mothertongue.sampling.server import Server

        return Server(folder, store)
    return Model(folder, engine, store)


class Used(Protocol):
    """What was asked of a model so far, and the price of a server's."""

    usage: Usage
    price: Price | None


def summarize_usage(model: "Used") -> dict[str, Any]:
    """Requests and tokens of a stage as JSON, and what they cost where a price is known and all tokens were counted.

    It is the same whether they were computed now or found in the sample store. Of a server the names by which it
    answered are there, too.
    """
    used, price = model.usage, model.price
    found: dict[str, Any] = asdict(used)
    if names := getattr(model, "answered_by", None):
        found["answered_by"] = sorted(names)
    if price and not used.uncounted:
        found["cost"] = (used.prompt_tokens * price.prompt + used.tokens * price.completion) / 1e6
    return found


def derive_seed(*parts: object) -> int:
    """A seed below 2**31 that depends on the parts alone, so that adding a row changes no other row's sample."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4]) >> 1


class Model:
    """A model folder whose every call goes through the sample store; the weights are loaded at the first miss.

    Raises BadInput where the engine is not installed, or the folder is not one that a stage made.
    """

    def __init__(self, folder: Path, engine: LocalEngine, store: Store) -> None:
        if not is_installed(engine):
            raise BadInput(f"params.yaml: engine {engine} is not installed; install it, or take another engine")
        self.folder, self.engine, self.store = folder, engine, store
        self.config = _config(folder)
        self.usage = Usage()
        self.price: Price | None = None
        self.dtype = read_origin(folder).dtype
        self.chat = Chat(folder)
        self.identity = {
            "weights": digest_weights(folder),
            "chat": self.chat.digest,
            "engine": describe_engine(engine),
            "device": hardware.device_name(),
            "dtype": self.dtype,
        }
        quantization = self.config.get("quantization_config") or {}
        if method := quantization.get("quant_method"):  # also the name of the package that computes it
            self.identity["quantization"] = f"{method} {_version(str(method))}"
        # LLM.int8() treats outliers of a whole batch, and mixtures of experts batch tokens by expert: there a row's
        # result depends on the other rows, whatever the shape.
        self._batch_dependent = engine == "transformers" and bool(
            quantization.get("load_in_8bit") or has_experts(self.config)
        )

    @cached_property
    def _engine(self) -> Engine:
        if self.engine == "vllm":
            from mothertongue.sampling.vllm import VLLM

            return VLLM(self.folder, self.dtype, self.chat)
        from mothertongue.sampling.transformers import Transformers

        return Transformers(self.folder, self.dtype, self.chat)

    def encode(self, messages: Sequence[Message], opening: str = "") -> tuple[int, ...]:
        """Token ids of a conversation up to the start of the answer, and of the words that the answer begins with."""
        prompt = self.chat.encode_prompt(messages)
        return (*prompt, *self.chat.tokenizer.encode(opening, add_special_tokens=False)) if opening else prompt

    def find_options(self, values: Sequence[int]) -> tuple[int, ...]:
        """The token of each number. Raises BadInput when the tokenizer splits one, or writes two as one token."""
        found = {value: self.chat.tokenizer.encode(str(value), add_special_tokens=False) for value in values}
        name = self.folder.name
        for value, ids in found.items():
            if len(ids) != 1:
                raise BadInput(
                    f"{name}: the tokenizer splits the score {value} into {len(ids)} tokens, so it has no probability"
                    " of its own; take another model as judge"
                )
        options = tuple(ids[0] for ids in found.values())
        if len(set(options)) < len(options):
            raise BadInput(f"{name}: the tokenizer writes different scores as one token; take another model as judge")
        return options

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        """One completion per request, in order. Raises BadInput when one does not fit the model's context."""
        self._check_lengths([len(r.prompt) + r.max_tokens for r in requests])
        found = [Completion(**v) for v in self._ask(requests, lambda part: self._engine.generate(part), label)]
        self.usage += Usage(len(found), sum(len(r.prompt) for r in requests), sum(each.tokens for each in found))
        return found

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> list[list[float]]:
        """For each request the log-probabilities of its options, in order."""
        self._check_lengths([len(r.prompt) + 1 for r in requests])
        self.usage += Usage(len(requests), sum(len(r.prompt) for r in requests), len(requests))
        return self._ask(requests, lambda part: self._engine.next_token_logprobs(part), label)

    def log_likelihood(self, requests: Sequence[LogLikelihood], label: str) -> list[list[float]]:
        """For each request the log-probabilities of its continuation's tokens, in order."""
        more = 1 if self.engine == "vllm" else 0  # it always generates a token
        self._check_lengths([len(r.prompt) + len(r.continuation) + more for r in requests])
        return self._ask(requests, lambda part: self._engine.log_likelihood(part), label)

    def sum_log_likelihoods(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]], label: str) -> list[float]:
        """The log-probability of each answer after its prompt, in nats. The weights are not kept in memory."""
        requests = [LogLikelihood(tuple(prompt), tuple(answer)) for prompt, answer in asked]
        found = self.log_likelihood(requests, label)
        self.__dict__.pop("_engine", None)  # training needs the memory
        return [sum(values) for values in found]

    def _ask(self, requests: Sequence[Any], ask: Callable[[Sequence[Any]], Sequence[Any]], label: str) -> list[Any]:
        identity = self.identity
        if self._batch_dependent:  # found again only for the same list of requests
            together = json.dumps([asdict(request) for request in requests])
            identity = identity | {"together": hashlib.sha256(together.encode()).hexdigest()[:16]}
        return self.store.get_or_compute(identity, requests, ask, self._batch, label)

    def _batch(self) -> int:
        return self._engine.batch

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        context = int(self.config.get("max_position_embeddings") or 2**31)
        if long := [length for length in lengths if length > context]:
            raise BadInput(
                f"{self.folder}: {len(long)} of {len(lengths)} requests need more than the model's context of {context}"
                f" tokens (the longest {max(long)}); take out the longest conversations, or lower max_tokens in"
                " params.yaml"
            )


def has_experts(config: object) -> bool:
    """Whether a configuration has a number of experts, under any of the names that models use for it."""
    if not isinstance(config, dict):
        return False
    return any("experts" in name and value for name, value in config.items()) or any(map(has_experts, config.values()))


def describe_engine(name: EngineName) -> str:
    """An engine with its version and those of the packages that compute in it."""
    version = next((v for package in (name, f"{name}-cpu") if (v := _version(package))), "none")
    # torch's version names CPU or CUDA, whose results differ
    found = f"{name} {version} torch {_version('torch')} tokenizers {_version('tokenizers')} r{REVISION}"
    invariant = name == "vllm" and os.environ.get("VLLM_BATCH_INVARIANT", "0") not in ("", "0")
    return f"{found} batch-invariant" if invariant else found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        raise BadInput(f"{folder}: no model here (config.json cannot be read); run the stage that makes it")
    return read_json_object(folder / "config.json")
