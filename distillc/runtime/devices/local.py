"""Devices on this machine: `host` is it, `emulator` is qemu-aarch64."""

from __future__ import annotations

import os
import platform
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distillc.errors import DeviceError, DistillcError
from distillc.runtime.devices.base import KERNELS_S, TIMEOUT_S, Device, Finding, Timing
from distillc.runtime.runner import build_runner, run_models, start_runner

AARCH64_TRIPLE = "aarch64-linux-gnu.2.28"
AARCH64_SYSTEM = Path("/usr/aarch64-linux-gnu")
SET_UP = "run `python -m distillc.runtime.setup_emulator` once"


class LocalDevice(Device):
    """What loads libraries by the runner, here."""

    timeout_s: ClassVar[float] = TIMEOUT_S

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
        overlap: int = -1,
    ) -> tuple[np.ndarray[Any, Any], Timing]:
        """See `Device.run`."""
        command, environment = self.launcher(threads)
        return run_models(
            command,
            environment,
            models,
            x,
            output_shape,
            warmup=warmup,
            runs=runs,
            timeout_s=self.timeout_s,
            overlap=overlap,
        )

    def run_kernels(self, path: Path, words: Sequence[str], threads: int) -> dict[str, Any]:
        """See `Device.run_kernels`."""
        command, environment = self.launcher(threads)
        command = [*command, "--kernels", str(path.resolve()), *words]
        return start_runner(command, environment, path, KERNELS_S)

    def ready(self) -> None:
        """See `Device.ready`."""
        self.launcher(1)

    def doctor(self) -> Iterator[Finding]:
        """See `Device.doctor`."""
        try:
            command, _ = self.launcher(1)
        except DistillcError as error:
            yield Finding("runner", False, str(error))
        else:
            yield Finding("runner", True, " ".join(Path(word).name for word in command))


def _environment(threads: int) -> dict[str, str]:
    return {"DISTILLC_THREADS": str(threads), "PATH": os.environ.get("PATH", "")}


class Host(LocalDevice):
    """This machine."""

    name = "host"

    def launcher(self, threads: int) -> tuple[list[str], dict[str, str]]:
        """See `LocalDevice.launcher`."""
        return [str(build_runner(None))], _environment(threads)


class Emulator(LocalDevice):
    """A 64-bit Arm machine under qemu.

    Its times mean nothing. On an aarch64 machine qemu is left out and the code runs natively.
    """

    name = "emulator"
    clock: ClassVar[bool] = False
    timeout_s: ClassVar[float] = 8 * TIMEOUT_S  # a network of hundreds of GMACs takes an hour

    def launcher(self, threads: int) -> tuple[list[str], dict[str, str]]:
        """See `LocalDevice.launcher`."""
        if missing := missing_parts():
            raise DeviceError(
                f"the emulator is not complete: {', '.join(missing)} missing", hint=SET_UP
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
