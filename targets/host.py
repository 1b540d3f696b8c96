"""The machine this runs on, as LLVM and the kernel describe it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tvm
from tvm.target import codegen

from distillc.targets.base import Target

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def host() -> Target:
    """Describe this machine."""
    triple = codegen.llvm_get_system_triple()
    cpu = codegen.llvm_get_system_cpu()
    native = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    features = set(codegen.llvm_get_cpu_features(native))
    half = bool(features & {"fullfp16", "avx512fp16"})
    bits = 512 if "avx512f" in features else 256 if "avx2" in features else 128
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Target(
        name="host",
        triple=triple,
        cpu=cpu,
        features=(),
        vector_bits=bits,
        registers=32 if bits == 512 or triple.startswith("aarch64") else 16,
        threads=min(2, cores or 1),
        l2_kib=_l2_kib(),
        link=None,
        devices=("host",),
        half=half,
    )


def _l2_kib() -> int:
    """Return the size of the second-level cache, KiB; 512 where the system does not say."""
    for folder in sorted(CACHES.glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            size = re.fullmatch(r"(\d+)K", (folder / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if level == 2 and kind != "Instruction" and size:
            return int(size[1])
    return 512
