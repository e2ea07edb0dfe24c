"""Which device computes: the line that names it, and a GPU that torch does not see."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mothertongue import hardware
from mothertongue.errors import BadInput


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    """Each test detects the device again."""
    hardware.has_gpu.cache_clear()
    yield
    hardware.has_gpu.cache_clear()


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int = 0) -> None:
    """A command of that name that prints a text, and nothing else on the PATH."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


H100 = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-2222)"
BUILDS = {"cuda": "13.0", "cpu": None}


def test_a_gpu_is_named_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert hardware.has_gpu()
    assert hardware.has_gpu()
    assert capsys.readouterr().out == "computing on NVIDIA H100 80GB HBM3\n"


@pytest.mark.parametrize(
    ("build", "text", "code"),
    [
        ("cpu", H100, 0),  # DEVICE=cpu although there is a GPU
        ("cuda", "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", 9),
        ("cuda", "No devices found.", 6),
        ("cpu", None, 0),
        ("cuda", None, 0),
    ],
)
def test_a_cpu_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    build: str,
    text: str | None,
    code: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.version, "cuda", BUILDS[build])
    monkeypatch.setenv("PATH", str(tmp_path))
    if text is not None:
        nvidia_smi(tmp_path, monkeypatch, text, code)
    assert not hardware.has_gpu()
    assert capsys.readouterr().out == "computing on cpu (3 threads)\n"


@pytest.mark.parametrize(("visible", "why"), [(None, "the driver may be too old"), ("", "CUDA_VISIBLE_DEVICES is ''")])
def test_a_gpu_that_torch_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, why: str
) -> None:
    nvidia_smi(tmp_path, monkeypatch, H100)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__version__", "2.14.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(BadInput) as caught:
        hardware.has_gpu()
    assert caught.value.message == (
        "nvidia-smi finds GPU 0: NVIDIA H100 80GB HBM3, but torch 2.14.0 with CUDA 13.0 sees no GPU"
        f" ({why}); fix that, or compute on the CPU with make repro DEVICE=cpu"
    )


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, "0"), ("0,1,2,3", "0"), ("2,3", "2"), ("1", "1"), ("GPU-a,GPU-b", "GPU-a"), ("", "")],
)
def test_all_gpus_but_the_first_are_hidden(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    hardware.use_first_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
