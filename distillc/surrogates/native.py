"""The compiled CPU kernels of the scans, for training.

They are compiled by zig (a dependency) on first use and kept in the user's cache.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from distillc.errors import DistillcError, LoweringError, StorageError
from distillc.sealed import cached_file
from distillc.zig import HINT, run_zig

FOLDER = Path(__file__).parent
SOURCES = ("scan_kernel.c", "axial_scan.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


@cache
def library() -> ctypes.CDLL:
    """Return the compiled kernels.

    Raises:
        LoweringError: They cannot be compiled.
        StorageError: They cannot be kept.
        OSError: They cannot be loaded.
    """
    paths = [FOLDER / name for name in SOURCES]

    def build(temporary: Path) -> None:
        if reason := run_zig("cc", *FLAGS, "-o", temporary, *paths):
            raise LoweringError(
                "the training kernels of the scans cannot be compiled",
                where=reason,
                hint=HINT,
            )

    texts = [path.read_bytes() for path in (*paths, *sorted(FOLDER.glob("*.h")))]
    key = b"".join(texts) + " ".join((*FLAGS, *_cpu())).encode()
    return ctypes.CDLL(str(cached_file("scan_kernels.so", key, build)))


@cache
def has_kernels() -> bool:
    """Whether the kernels can be used; warns, once, where they cannot."""
    try:
        library()
    except StorageError:
        raise  # with space, the same command would compute other last bits
    except (DistillcError, OSError) as error:
        warnings.warn(
            f"the scans run in plain torch, which is many times slower: {error}", stacklevel=2
        )
        return False
    return True


def _cpu() -> tuple[str, ...]:
    """Name this CPU, since the kernel is compiled for it and a home folder may be shared."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return ()
    lines = info.read_text().splitlines()
    return tuple(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Return where a tensor begins in memory."""
    return ctypes.c_void_p(tensor.data_ptr())


def each_sequence(count: int, run: Callable[[int], int]) -> None:
    """Call `run` for every sequence, in torch's number of threads (the calls drop the GIL).

    Raises:
        MemoryError: A call returned something else than 0.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if any(pool.map(run, range(count))):
            raise MemoryError("no memory for the states of a scan")
