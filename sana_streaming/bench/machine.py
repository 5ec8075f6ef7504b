"""Which machine a number was measured on, and how fast that machine was just then."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

import sana_streaming


def describe(device: torch.device) -> dict[str, str | int | None]:
    """Names and versions that a result depends on."""
    return {
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": sana_streaming.__version__,
        "commit": commit(),
    }


def cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit that this package was checked out at, with -dirty if files were changed since. None outside git."""
    folder = Path(sana_streaming.__file__).parent
    try:
        _git(
            folder, "ls-files", "--error-unmatch", "__init__.py"
        )  # an installed copy may lie inside another repository
        return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """The most memory that this process ever held, in units of 2**20 bytes."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peak


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told, so that the clock sees it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product(device: torch.device, dtype: torch.dtype) -> Callable[[], float]:
    """A probe that multiplies two square matrices and returns the rate in GFLOP/s."""
    side = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator().manual_seed(0)
    a, b = (_random(side, generator).to(device, dtype) for _ in range(2))

    def probe() -> float:
        synchronise(device)
        start = perf_counter()
        torch.mm(a, b)
        synchronise(device)
        return 2 * side**3 / (perf_counter() - start) / 1e9

    return probe


def _random(side: int, generator: torch.Generator) -> Tensor:
    return torch.randn(side, side, generator=generator)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
