"""Qualcomm Snapdragon 8 Gen 3 (SM8650): one Cortex-X4, five Cortex-A720, two Cortex-A520.

Compiled for the Cortex-X4 without SVE, which Qualcomm leaves disabled on this chip.
"""

from __future__ import annotations

from distillc.targets.base import Target

SNAPDRAGON8GEN3 = Target(
    name="snapdragon8gen3",
    triple="aarch64-linux-gnu",
    cpu="cortex-x4",
    features=("-sve", "-sve2"),
    vector_bits=128,
    registers=32,
    threads=2,
    l2_kib=2048,
    link="aarch64-linux-gnu.2.28",
    android=True,
    devices=("emulator",),
    half=True,
)
