"""Which device computes: what is said, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mothertongue import hardware
from mothertongue.errors import BadInput


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    hardware.gpu.cache_clear()
    yield
    hardware.gpu.cache_clear()


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, code: int = 0) -> None:
    """A command of that name that says so, and nothing else on the PATH."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


H100 = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-2222)"
BUILDS = {"cuda": "13.0", "cpu": None}


def test_a_gpu_is_named_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    assert hardware.gpu()
    assert hardware.gpu()
    assert capsys.readouterr().out == "computing on NVIDIA H100 80GB HBM3\n"


@pytest.mark.parametrize(
    ("build", "said", "code"),
    [
        ("cpu", H100, 0),  # DEVICE=cpu, on purpose
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
    said: str | None,
    code: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.version, "cuda", BUILDS[build])
    monkeypatch.setenv("PATH", str(tmp_path))
    if said is not None:
        nvidia_smi(tmp_path, monkeypatch, said, code)
    assert not hardware.gpu()
    assert capsys.readouterr().out == "computing on cpu (3 threads)\n"


@pytest.mark.parametrize(("visible", "why"), [(None, "the driver may be too old"), ("", "CUDA_VISIBLE_DEVICES is ''")])
def test_a_gpu_that_torch_does_not_see_is_told(
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
        hardware.gpu()
    assert caught.value.message == (
        "nvidia-smi finds GPU 0: NVIDIA H100 80GB HBM3, but torch 2.14.0 with CUDA 13.0 sees no GPU"
        f" ({why}); mend that, or compute on the CPU with make repro DEVICE=cpu"
    )


@pytest.mark.parametrize(
    ("visible", "left"), [(None, "0"), ("0,1,2,3", "0"), ("2,3", "2"), ("1", "1"), ("GPU-a,GPU-b", "GPU-a"), ("", "")]
)
def test_one_gpu_stays_in_sight(monkeypatch: pytest.MonkeyPatch, visible: str | None, left: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    hardware.keep_one()
    assert hardware.os.environ["CUDA_VISIBLE_DEVICES"] == left
