"""Which device computes: said aloud, and never a CPU beside an idle GPU."""

import os
import subprocess
from functools import cache

import click

from mothertongue.errors import BadInput

VISIBLE = "CUDA_VISIBLE_DEVICES"


@cache
def gpu() -> bool:
    """Whether a GPU computes; a process says once what does.

    Raises BadInput where nvidia-smi finds a GPU and a torch that was built for one sees none: the driver is too old for
    it, or the GPU is hidden. With the CPU build of torch the CPU computes, as was asked for.
    """
    import torch

    if torch.cuda.is_available():
        click.echo(f"computing on {torch.cuda.get_device_name()}")
        return True
    if torch.version.cuda and (there := _listed()):
        hidden = f"{VISIBLE} is {os.environ[VISIBLE]!r}" if VISIBLE in os.environ else "the driver may be too old"
        raise BadInput(
            f"nvidia-smi finds {there[0]}, but torch {torch.__version__} with CUDA {torch.version.cuda} sees no GPU"
            f" ({hidden}); mend that, or compute on the CPU with make repro DEVICE=cpu"
        )
    click.echo(f"computing on cpu ({torch.get_num_threads()} threads)")
    return False


@cache
def device() -> str:
    """What computes, as keys of the sample store and signatures name it: other hardware rounds otherwise.

    A GPU by its model; a CPU by the instructions that matrix products are made of, and the number of threads that share
    one. Raises BadInput as `gpu`.
    """
    import torch

    if gpu():
        return str(torch.cuda.get_device_name())
    able = torch.cpu.get_capabilities()
    instructions = [name for name in ("avx512_bf16", "avx512_fp16", "amx_bf16") if able.get(name)]
    return " ".join(["cpu", torch.backends.cpu.get_cpu_capability(), *instructions, str(torch.get_num_threads())])


def keep_one() -> None:
    """Leave one GPU in sight, the first of those that CUDA_VISIBLE_DEVICES names; call it before CUDA starts.

    With several transformers would spread each batch over them, and the updates would be fewer.
    """
    os.environ[VISIBLE] = os.environ.get(VISIBLE, "0").split(",")[0]


def _listed() -> list[str]:
    """The GPUs that nvidia-smi names, such as `GPU 0: NVIDIA H100 (UUID: ...)`; none without nvidia-smi."""
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" (UUID")[0] for line in said.stdout.splitlines() if line.startswith("GPU ")]
