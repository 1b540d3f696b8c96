"""Any 64-bit Arm CPU: plain Armv8-A with NEON."""

from __future__ import annotations

from distillc.targets.base import Target

GENERIC_AARCH64 = Target(
    name="generic-aarch64",
    triple="aarch64-linux-gnu",
    cpu="generic",
    features=("+neon",),
    vector_bits=128,
    registers=32,
    threads=2,
    l2_kib=256,
    link="aarch64-linux-gnu.2.28",
    android=True,
    devices=("emulator",),
)
