"""The device that computes: printed once, and never a CPU beside an idle GPU."""

import os
import subprocess
from functools import cache

from mothertongue import console
from mothertongue.errors import BadInput

VISIBLE = "CUDA_VISIBLE_DEVICES"


@cache
def has_gpu() -> bool:
    """Whether a GPU computes; prints the device once per process.

    Raises BadInput where nvidia-smi finds a GPU and a torch that was built for one sees none: the driver is too old for
    it, or the GPU is hidden. With the CPU build of torch the CPU computes, as requested.
    """
    import torch

    if torch.cuda.is_available():
        console.say(f"computing on {torch.cuda.get_device_name()}")
        return True
    if torch.version.cuda and (there := _list_gpus()):
        hidden = f"{VISIBLE} is {os.environ[VISIBLE]!r}" if VISIBLE in os.environ else "the driver may be too old"
        raise BadInput(
            f"nvidia-smi finds {there[0]}, but torch {torch.__version__} with CUDA {torch.version.cuda} sees no GPU"
            f" ({hidden}); fix that, or compute on the CPU with make repro DEVICE=cpu"
        )
    console.say(f"computing on cpu ({torch.get_num_threads()} threads)")
    return False


@cache
def device_name() -> str:
    """The device for the keys of the sample store and for signatures: results differ between devices by rounding.

    A GPU by its model; a CPU by its instructions for matrix products and the number of threads. Raises BadInput as
    `has_gpu`.
    """
    import torch

    if has_gpu():
        return str(torch.cuda.get_device_name())
    able = torch.cpu.get_capabilities()
    instructions = [name for name in ("avx512_bf16", "avx512_fp16", "amx_bf16") if able.get(name)]
    return " ".join(["cpu", torch.backends.cpu.get_cpu_capability(), *instructions, str(torch.get_num_threads())])


def use_first_gpu() -> None:
    """Hide all GPUs but the first in CUDA_VISIBLE_DEVICES; call it before CUDA starts.

    With several, transformers would spread each batch over them, and there would be fewer updates.
    """
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").split(",")[0]


def _list_gpus() -> list[str]:
    """The GPUs that nvidia-smi names, such as `GPU 0: NVIDIA H100 (UUID: ...)`; none without nvidia-smi."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU ")]
