"""What a target is: plain data about a CPU and how to build for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distillc.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Target:
    """A CPU to compile for.

    Attributes:
        name: The name that `--target` takes.
        triple: LLVM target triple, say `"aarch64-linux-gnu"`.
        cpu: LLVM CPU name, say `"oryon-1"`.
        features: LLVM features, say `("+neon",)`.
        vector_bits: Width of one SIMD register.
        registers: Number of SIMD registers.
        threads: Threads to run with unless the user says otherwise: at most its fast cores.
        l2_kib: Second-level cache that one big core can use, KiB.
        link: Zig's triple for the linker, None for the host's own.
        android: Whether it is a phone's, so that bundles hold a library for Android.
        devices: Names of the devices that can run it, the preferred first.
        half: Whether it computes with float16, as many lanes as a register holds.
        element_bits: Width of the numbers in a vector's lanes.
    """

    name: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    vector_bits: int
    registers: int
    threads: int
    l2_kib: int
    link: str | None
    devices: tuple[str, ...]
    android: bool = False
    half: bool = False
    element_bits: int = 32

    @property
    def static(self) -> str:
        """Zig's triple of programs that bring their C library along."""
        return f"{self.triple.partition('-')[0]}-linux-musl"

    @property
    def lanes(self) -> int:
        """Lanes of one SIMD register: of float32, unless `element_bits` says otherwise."""
        return self.vector_bits // self.element_bits


def _accept(found: Any) -> Target:
    target = found if isinstance(found, Target) else found()
    if not isinstance(target, Target):
        raise TypeError("it is neither a Target nor a function that returns one")
    return target


TARGETS = Registry("distillc.targets", "target", _accept, lambda target: target.name)
"""The targets by name. An entry point names a `Target`, or a function that returns one."""


def get_target(target: str | Target) -> Target:
    """Return a target by name; a `Target` is returned as it is.

    Raises:
        UsageError: See `Registry.find`.
    """
    return target if isinstance(target, Target) else TARGETS.find(target)
