"""Text and log-probabilities from a model: requests, results, and the engines that compute them."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal, Protocol

from mothertongue import hardware
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.origin import digest_weights, read_origin
from mothertongue.params import Engine as EngineName
from mothertongue.store import Store


@dataclass(frozen=True, slots=True)
class Generation:
    """Continue `prompt` (token ids) by at most `max_tokens`; `temperature` 0 takes the likeliest token each time.

    `index` counts the samples of one prompt, so that requests that are equal otherwise are different.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    index: int


@dataclass(frozen=True, slots=True)
class NextTokenLogprobs:
    """Natural log-probabilities of each of `options` (token ids) as the token after `prompt`."""

    prompt: tuple[int, ...]
    options: tuple[int, ...]


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
    return util.find_spec(engine) is not None


def derive_seed(*parts: object) -> int:
    """A seed below 2**31 that depends on the parts alone, so that adding a row changes no other row's sample."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4]) >> 1


class Model:
    """A model folder whose every call goes through the sample store; the weights are loaded at the first miss.

    Raises BadInput where the engine is not installed, or the folder is not one that a stage made.
    """

    def __init__(self, folder: Path, engine: EngineName, store: Store) -> None:
        if not is_installed(engine):
            raise BadInput(f"params.yaml: engine {engine} is not installed; install it, or take another engine")
        self.folder, self.engine, self.store = folder, engine, store
        self.config = _config(folder)
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

    def generate(self, requests: Sequence[Generation], label: str) -> list[Completion]:
        """One completion per request, in order. Raises BadInput when one does not fit the model's context."""
        self._check_lengths([len(r.prompt) + r.max_tokens for r in requests])
        found = self._ask(requests, lambda part: self._engine.generate(part), label)
        return [Completion(**value) for value in found]

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> list[list[float]]:
        """For each request the log-probabilities of its options, in order."""
        self._check_lengths([len(r.prompt) + 1 for r in requests])
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
