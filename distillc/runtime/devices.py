"""Devices: what runs a compiled library. `host` is this machine, `emulator` is qemu-aarch64."""

from __future__ import annotations

import os
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillc.errors import DeviceError, UsageError
from distillc.runtime.runner import Timing, build_runner, run_models

TIMEOUT_S = 1800.0
AARCH64_TRIPLE = "aarch64-linux-gnu.2.28"
AARCH64_SYSTEM = Path("/usr/aarch64-linux-gnu")


class Device(ABC):
    """Something that runs compiled libraries.

    Attributes:
        name: The name that `--device` takes.
        clock: Whether its times mean anything.
    """

    name: str
    clock = True

    @abstractmethod
    def launcher(self, threads: int) -> tuple[list[str], dict[str, str]]:
        """Return the command that starts the runner, and its environment.

        Raises:
            DeviceError: A part of the device is missing.
        """

    def run(
        self,
        models: Sequence[Path],
        x: np.ndarray[Any, Any],
        output_shape: Sequence[int],
        *,
        threads: int,
        warmup: int = 0,
        runs: int = 0,
    ) -> tuple[np.ndarray[Any, Any], Timing]:
        """Run models in turn on one input; see `distillc.runtime.runner.run_models`."""
        command, environment = self.launcher(threads)
        return run_models(
            command,
            environment,
            models,
            x,
            output_shape,
            warmup=warmup,
            runs=runs,
            timeout_s=TIMEOUT_S,
        )


def _environment(threads: int) -> dict[str, str]:
    return {"DISTILLC_THREADS": str(threads), "PATH": os.environ.get("PATH", "")}


class Host(Device):
    """This machine."""

    name = "host"

    def launcher(self, threads: int) -> tuple[list[str], dict[str, str]]:
        """See `Device.launcher`."""
        return [str(build_runner(None))], _environment(threads)


class Emulator(Device):
    """A 64-bit Arm machine under qemu. Its times mean nothing.

    On an aarch64 machine qemu is left out and the code runs natively.
    """

    name = "emulator"
    clock = False

    def launcher(self, threads: int) -> tuple[list[str], dict[str, str]]:
        """See `Device.launcher`."""
        if missing := missing_parts():
            raise DeviceError(
                f"the emulator is not complete: {', '.join(missing)} missing",
                hint="run `python -m distillc.runtime.setup_emulator` once",
            )
        runner = str(build_runner(AARCH64_TRIPLE))
        if platform.machine() == "aarch64":
            return [runner], _environment(threads)
        qemu = shutil.which("qemu-aarch64") or "qemu-aarch64"
        command = [qemu, "-cpu", "max", "-L", str(AARCH64_SYSTEM), runner]
        return command, _environment(threads)


def missing_parts() -> list[str]:
    """Return what the emulator lacks, in words."""
    missing = []
    if platform.machine() != "aarch64":
        if not shutil.which("qemu-aarch64"):
            missing.append("qemu-aarch64 (Debian: qemu-user)")
        if not (AARCH64_SYSTEM / "lib" / "libc.so.6").exists():
            missing.append("the aarch64 C library (Debian: libc6-arm64-cross)")
    return missing


DEVICES: dict[str, Device] = {device.name: device for device in (Host(), Emulator())}


def get_device(name: str) -> Device:
    """Return a device by name.

    Raises:
        UsageError: No device has this name; the message lists the known.
    """
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}", hint=f"known devices: {', '.join(DEVICES)}")
    return DEVICES[name]
