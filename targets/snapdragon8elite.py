"""Qualcomm Snapdragon 8 Elite (SM8750): two Oryon "Phoenix L" cores and six "Phoenix M"."""

from __future__ import annotations

from distillc.targets.base import Target

SNAPDRAGON8ELITE = Target(
    name="snapdragon8elite",
    triple="aarch64-linux-gnu",
    cpu="oryon-1",
    features=(),
    vector_bits=128,
    registers=32,
    threads=2,
    l2_kib=12288,
    link="aarch64-linux-gnu.2.28",
    android=True,
    devices=("emulator",),
    half=True,
)
