"""Everything that produces text or log-probabilities: what is asked, what comes back, and who answers."""

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
from mothertongue.files import read_settings
from mothertongue.params import Dtype
from mothertongue.store import Store


@dataclass(frozen=True, slots=True)
class Generate:
    """Continue `prompt` (token ids) by at most `max_tokens`; `temperature` 0 takes the likeliest token each time.

    `index` counts the samples of one prompt: it tells requests apart that are equal otherwise.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    index: int


@dataclass(frozen=True, slots=True)
class Choose:
    """Natural log-probabilities of each of `options` (token ids) as the token after `prompt`."""

    prompt: tuple[int, ...]
    options: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weigh:
    """Natural log-probabilities of each token of `continuation` after `prompt`."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Generated text without control tokens; `tokens` counts what was generated, its end token too."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Engine(Protocol):
    """A model in memory. `batch` is how many requests it likes at a time; a batch is asked whole or not at all."""

    batch: int

    def generate(self, requests: Sequence[Generate]) -> list[Text]:
        """One text per request, in order."""

    def choose(self, requests: Sequence[Choose]) -> list[list[float]]:
        """For each request one log-probability per option."""

    def weigh(self, requests: Sequence[Weigh]) -> list[list[float]]:
        """For each request one log-probability per token of its continuation."""


EngineName = Literal["vllm", "transformers"]


REVISION = 3  # of the rooms below: raise it when one answers otherwise than before, so that nothing old is found


def preferred() -> EngineName:
    """vLLM where it is installed, else transformers."""
    return "vllm" if util.find_spec("vllm") else "transformers"


def seed_of(*parts: object) -> int:
    """A seed below 2**31 that depends on the parts alone, so that adding a row changes no other row's sample."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:4]) >> 1


class Model:
    """A model folder whose every call goes through the sample store; the weights are loaded at the first miss.

    `dtype` is what the model computes in, whatever its weights are stored in.
    """

    def __init__(self, folder: Path, engine: EngineName, dtype: Dtype, store: Store) -> None:
        self.folder, self.engine, self.dtype, self.store = folder, engine, dtype, store
        self.config = _config(folder)
        self.chat = Chat(folder)
        self.identity = {
            "weights": _weights_digest(folder),
            "chat": self.chat.digest,
            "engine": _engine(engine),
            "device": hardware.device(),
            "dtype": dtype,
        }
        quantization = self.config.get("quantization_config") or {}
        if method := quantization.get("quant_method"):  # the package that computes it has its name
            self.identity["quantization"] = f"{method} {_version(str(method))}"
        # LLM.int8() looks for outliers in a whole batch, and experts share their tokens' matrices: a row is computed
        # otherwise beside other rows, whatever the shape.
        self._mixes = engine == "transformers" and bool(quantization.get("load_in_8bit") or _has_experts(self.config))

    @cached_property
    def _opened(self) -> Engine:
        if self.engine == "vllm":
            from mothertongue.sampling.vllm import VLLM

            return VLLM(self.folder, self.dtype, self.chat)
        from mothertongue.sampling.transformers import Transformers

        return Transformers(self.folder, self.dtype, self.chat)

    def generate(self, requests: Sequence[Generate], label: str) -> list[Text]:
        """One text per request, in order. Raises BadInput when one does not fit the model's context."""
        self._check_lengths([len(r.prompt) + r.max_tokens for r in requests])
        found = self._answered(requests, lambda part: self._opened.generate(part), label)
        return [Text(**value) for value in found]

    def choose(self, requests: Sequence[Choose], label: str) -> list[list[float]]:
        """For each request the log-probabilities of its options, in order."""
        self._check_lengths([len(r.prompt) + 1 for r in requests])
        return self._answered(requests, lambda part: self._opened.choose(part), label)

    def weigh(self, requests: Sequence[Weigh], label: str) -> list[list[float]]:
        """For each request the log-probabilities of its continuation's tokens, in order."""
        self._check_lengths([len(r.prompt) + len(r.continuation) for r in requests])
        return self._answered(requests, lambda part: self._opened.weigh(part), label)

    def _answered(
        self, requests: Sequence[Any], ask: Callable[[Sequence[Any]], Sequence[Any]], label: str
    ) -> list[Any]:
        identity = self.identity
        if self._mixes:  # found again only where all that was asked together is asked again
            together = json.dumps([asdict(request) for request in requests])
            identity = identity | {"together": hashlib.sha256(together.encode()).hexdigest()[:16]}
        return self.store.answered(identity, requests, ask, self._batch, label)

    def _batch(self) -> int:
        return self._opened.batch

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        room = int(self.config.get("max_position_embeddings") or 2**31)
        if long := [length for length in lengths if length > room]:
            raise BadInput(
                f"{self.folder}: {len(long)} of {len(lengths)} requests need more than the {room} tokens that the model"
                f" holds (the longest {max(long)}); take out the longest conversations, or lower max_tokens in"
                " params.yaml"
            )


def _has_experts(config: object) -> bool:
    """Whether a configuration names a number of experts, under any of the names that models have for it."""
    if not isinstance(config, dict):
        return False
    return any("experts" in name and value for name, value in config.items()) or any(map(_has_experts, config.values()))


def _engine(name: EngineName) -> str:
    """An engine with the versions of what computes in it."""
    version = next((v for package in (name, f"{name}-cpu") if (v := _version(package))), "none")
    # torch's version says CPU or CUDA, which do not give the same numbers
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
    return read_settings(folder / "config.json")


def _weights_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of weights and model configuration, 16 hex digits."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise BadInput(f"{folder}: no *.safetensors file; convert the weights to safetensors first")
    whole = hashlib.sha256()
    for path in (*weights, folder / "config.json", folder / "generation_config.json"):
        if path.exists():
            with path.open("rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]
