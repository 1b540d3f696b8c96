"""What a target is: plain data about a CPU and how to build for it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points

from distillc.errors import UsageError


@dataclass(frozen=True)
class Target:
    """A CPU to compile for.

    Attributes:
        name: The name that `--target` takes.
        triple: LLVM target triple, say `"aarch64-linux-gnu"`.
        cpu: LLVM CPU name, say `"oryon-1"`.
        features: LLVM features, say `("+neon",)`.
        vector_bits: Width of one SIMD register.
        registers: Number of SIMD registers.
        cores: Cores per cluster, biggest first, say `(2, 6)`.
        threads: Threads to run with unless the user says otherwise.
        l1_kib: First-level data cache of one big core, KiB.
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
    cores: tuple[int, ...]
    threads: int
    l1_kib: int
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


def targets() -> dict[str, Target]:
    """Return every known target by name: ours, and those of entry point group `distillc.targets`.

    An entry point names a `Target`, or a function that returns one.
    """
    found: dict[str, Target] = {}
    for entry in entry_points(group="distillc.targets"):
        value = entry.load()
        target = value if isinstance(value, Target) else value()
        found[target.name] = target
    return found


def get_target(target: str | Target) -> Target:
    """Return a target by name; a `Target` is returned as it is.

    Raises:
        UsageError: No target has this name; the message lists the known.
    """
    if isinstance(target, Target):
        return target
    known = targets()
    if target not in known:
        raise UsageError(
            f"unknown target {target!r}", hint=f"known targets: {', '.join(sorted(known))}"
        )
    return known[target]
