"""What a device is: something that runs compiled networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distillc.registry import Registry

TIMEOUT_S = 1800.0
"""Seconds after which what runs is stopped."""
KERNELS_S = 600.0
"""The same for single kernels."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of each run of each model, and peak memory in bytes."""

    ms: tuple[tuple[float, ...], ...]
    peak_bytes: int


@dataclass(frozen=True)
class Finding:
    """What `distillc doctor` found: what was looked at, whether it is well, and what was seen."""

    what: str
    well: bool
    seen: str


class Device(ABC):
    """Something that runs compiled networks. The first line of its docstring describes it to users.

    Attributes:
        name: The name that `--device` takes: of the class that of its kind, of an instance followed
            by a colon and its address if it was given one.
        address: How users write the address, say `":user@host[:port]"`, which is the one argument
            of the class; None where there is one device of this kind, made without arguments.
        clock: Whether its times mean anything.
        programs: Whether it runs the programs of bundles, by themselves, not their libraries.
    """

    name: str
    address: ClassVar[str | None] = None
    clock: ClassVar[bool] = True
    programs: ClassVar[bool] = False

    def takes(self, devices: Sequence[str]) -> bool:
        """Whether it runs bundles for these devices: programs anyhow, libraries if it is one of
        them or inherits from one.
        """
        kinds = [vars(each).get("name") for each in type(self).__mro__]
        return self.programs or any(name in devices for name in (self.name, *kinds))

    @abstractmethod
    def run(
        self,
        models: Sequence[Path],
        x: np.ndarray[Any, Any],
        output_shape: Sequence[int],
        *,
        threads: int,
        warmup: int = 0,
        runs: int = 0,
        overlap: int = -1,
    ) -> tuple[np.ndarray[Any, Any], Timing]:
        """Run the first model on every image and time all in turn; return both.

        Args:
            models: Libraries, or programs where `programs` says so, of equal input shapes.
            x: One or several images (N, C, H, W), float32, of any size; a model takes one at a
                time.
            output_shape: (1, C', H', W') of the first model's output for one of them.
            threads: Threads that compute one image, the caller's among them.
            warmup: Runs that are not timed.
            runs: Timed runs.
            overlap: Pixels that the tiles of a large image share, -1 for the library's own choice.

        Returns:
            The outputs, along the first axis, float32, and the times.

        Raises:
            DeviceError: The device is not ready, or what runs takes too long, crashes, or prints an
                error.
            StorageError: There is no space here for the input.
        """

    @abstractmethod
    def run_kernels(self, path: Path, words: Sequence[str], threads: int) -> dict[str, Any]:
        """Run single kernels; see `native/kernels.h` for the words, and for what comes back.

        Args:
            path: A library of kernels, or a program where `programs` says so.
            words: Shapes, outputs, rounds and names.
            threads: Threads that share each kernel, the caller's among them.

        Raises:
            DeviceError: As of `run`.
        """

    @abstractmethod
    def ready(self) -> None:
        """Check what is needed before anything runs.

        Raises:
            DeviceError: The device is incomplete, or cannot be reached.
        """

    @abstractmethod
    def doctor(self) -> Iterator[Finding]:
        """Look at what the device needs, one after the other, up to what is not well."""


def _accept(found: Any) -> type[Device]:
    if not (isinstance(found, type) and issubclass(found, Device)):
        raise TypeError("it is not a subclass of Device")
    return found


DEVICES = Registry[type[Any]]("distillc.devices", "device", _accept, lambda device: device.name)
"""The kinds of devices by name. An entry point names a subclass of `Device`."""
