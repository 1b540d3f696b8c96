"""Devices behind a cable or a network: a folder there, files to it and from it, commands in it."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distillc.errors import DeviceError
from distillc.runtime.devices.base import KERNELS_S, TIMEOUT_S, Device, Finding, Timing
from distillc.workdir import file_digest, storage_errors

SHORT_S = 60.0
"""Seconds for what moves no large file and computes nothing."""
KEPT_DAYS = 7
"""Programs that were not used for longer make room for others."""
ROUNDS = 3
"""How often several programs take turns: a phone gets warm, and all of them must get it alike."""

MACHINES = {62: "x86_64", 183: "aarch64"}
"""`e_machine` of an ELF header -> what `uname -m` says."""


@dataclass(frozen=True)
class Answer:
    """What a command said: exit code, standard output, the last line of standard error."""

    code: int
    output: bytes
    complaint: str


def ask(command: Sequence[str], timeout_s: float, what: str, given: bytes | None = None) -> Answer:
    """Run a command here that talks to a device.

    Args:
        command: The words.
        timeout_s: Seconds.
        what: What it does, for messages.
        given: Its standard input.

    Raises:
        DeviceError: It takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, input=given)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{what}: no answer within {timeout_s:.0f} s",
            hint="see that the device is awake and connected: `distillc doctor` looks at it",
        ) from error
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return Answer(done.returncode, done.stdout, lines[-1] if lines else "")


class RemoteDevice(Device):
    """A machine that runs the programs of bundles, which need nothing there.

    Files go to one folder, named by their content, so that none is sent twice, and stay for some
    days after they were used.
    """

    programs: ClassVar[bool] = True
    folder: ClassVar[str]

    @abstractmethod
    def shell(self, command: str, timeout_s: float = SHORT_S) -> Answer:
        """Run a command there.

        Raises:
            DeviceError: The device cannot be reached.
        """

    @abstractmethod
    def push(self, local: Path, remote: str) -> Answer:
        """Send a file; the answer's code is 0 where it is there."""

    @abstractmethod
    def pull(self, remote: str, local: Path) -> Answer:
        """Fetch a file; the answer's code is 0 where it is here."""

    @abstractmethod
    def reach(self) -> Iterator[Finding]:
        """Look whether commands can be run there, step by step, up to what is not well."""

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
        """See `Device.run`. Every program checks itself first."""
        self.ready()
        programs = self._install(models)
        with self._scratch() as scratch:
            outputs = [
                self._restore(programs[0], image[None], scratch, threads, overlap) for image in x
            ]
        wanted = tuple(output_shape[1:])
        if any(each.shape[1:] != wanted for each in outputs):
            raise DeviceError(
                f"the network returned {outputs[0].shape}, the manifest says {(1, *wanted)}",
                where=str(models[0]),
            )
        ms: list[list[float]] = [[] for _ in models]
        peak = 0
        turns = min(ROUNDS, runs)
        for turn in range(turns):
            share = runs * (turn + 1) // turns - runs * turn // turns
            for own, program in zip(ms, programs, strict=True):
                words = ["--threads", threads, "--warmup", warmup, "--runs", share]
                found = self._start(program, words)
                own += found["ms"]
                peak = max(peak, found["peak_bytes"])
        return np.concatenate(outputs), Timing(tuple(map(tuple, ms)), peak)

    def run_kernels(self, path: Path, words: Sequence[str], threads: int) -> dict[str, Any]:
        """See `Device.run_kernels`; the program is for once and does not stay there."""
        self.ready()
        (program,) = self._install([path])
        try:
            return self._start(program, [threads, *words], KERNELS_S)
        finally:
            self.shell(f"rm -f {shlex.quote(program)}")

    def ready(self) -> None:
        """See `Device.ready`."""
        for finding in self.reach():
            if not finding.well:
                hint = f"`distillc doctor --device {self.name}` looks at it step by step"
                raise DeviceError(f"{self.name}: {finding.seen}", hint=hint)

    def doctor(self) -> Iterator[Finding]:
        """See `Device.doctor`."""
        for finding in chain(self.reach(), self._look()):
            yield finding
            if not finding.well:
                return

    def _look(self) -> Iterator[Finding]:
        machine = self._words("uname -m")
        yield Finding("architecture", machine in MACHINES.values(), machine)
        yield Finding("kernel", True, self._words("uname -r"))
        cores = self._words("nproc")
        yield Finding("cores", cores.isdigit(), cores)
        made = self.shell(f"mkdir -p {self.folder} && df -Pk {self.folder} | tail -n 1")
        free = made.output.decode(errors="replace").split()
        room = int(free[3]) // 1024 if made.code == 0 and len(free) > 3 else 0
        seen = made.complaint if made.code else f"{self.folder}, {room} MiB free"
        yield Finding("folder", room >= 64, seen)
        script = f"{self.folder}/doctor"
        test = f"printf '#!/bin/sh\\nexit 0\\n' > {script} && chmod 755 {script} && {script}"
        done = self.shell(f"{test}; code=$?; rm -f {script}; exit $code")
        seen = "programs start there" if not done.code else done.complaint or "they do not start"
        yield Finding("programs", done.code == 0, seen)

    def _words(self, command: str) -> str:
        answer = self.shell(command)
        return answer.output.decode(errors="replace").strip() or answer.complaint

    def _install(self, programs: Sequence[Path]) -> list[str]:
        """Send programs unless they are there; return their names there."""
        there = self._words("uname -m")
        for program in programs:
            with program.open("rb") as file:
                head = file.read(20)
            machine = MACHINES.get(int.from_bytes(head[18:20], "little"), "something else")
            if machine != there:
                raise DeviceError(
                    f"the program is for {machine}, {self.name} is {there}",
                    where=str(program),
                    hint="convert for another --target",
                )
        return [self._send_program(program) for program in programs]

    def _send_program(self, program: Path) -> str:
        place = f"{self.folder}/{program.name}-{file_digest(program)[:16]}"
        if self.shell(f"test -x {shlex.quote(place)} && touch {shlex.quote(place)}").code:
            self._checked(self.shell(f"mkdir -p {self.folder}"), self.folder)
            self.shell(f"find {self.folder} -type f -mtime +{KEPT_DAYS} -exec rm -f {{}} +")
            self._send(program, f"{place}.part")
            moved = f"chmod 755 {shlex.quote(place)}.part && mv {shlex.quote(place)}.part "
            self._checked(self.shell(moved + shlex.quote(place)), place)
        return place

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        made = self._checked(self.shell(f"mktemp -d {self.folder}/run-XXXXXX"), self.folder)
        place = made.output.decode().strip()
        try:
            yield place
        finally:
            self.shell(f"rm -rf {shlex.quote(place)}")

    def _restore(
        self, program: str, image: np.ndarray[Any, Any], scratch: str, threads: int, overlap: int
    ) -> np.ndarray[Any, Any]:
        with tempfile.TemporaryDirectory(prefix="distillc-remote-") as name:
            source, sink = Path(name) / "in.npy", Path(name) / "out.npy"
            with storage_errors(source):
                np.save(source, np.ascontiguousarray(image, np.float32))
            self._send(source, f"{scratch}/in.npy")
            words: list[object] = ["--threads", threads, "--runs", 0]
            words += ["--overlap", overlap] if overlap >= 0 else []
            words += ["--picture", f"{scratch}/in.npy", f"{scratch}/out.npy"]
            self._start(program, words)
            self._checked(self.pull(f"{scratch}/out.npy", sink), f"{scratch}/out.npy")
            found: np.ndarray[Any, Any] = np.load(sink)
        return found

    def _start(
        self, program: str, words: Sequence[object], timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Run a program; return what it prints."""
        command = shlex.join([program, *map(str, words)])
        answer = self._checked(self.shell(command, timeout_s), program)
        try:
            found: dict[str, Any] = json.loads(answer.output.decode().splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise DeviceError(f"the program on {self.name} printed no result") from error
        return found

    def _send(self, local: Path, remote: str) -> None:
        self._checked(self.push(local, remote), remote)

    def _checked(self, answer: Answer, where: str) -> Answer:
        if not answer.code:
            return answer
        said = answer.complaint
        what, hint = said or f"exit code {answer.code}", "`distillc doctor` says more"
        if "No space left" in said:
            what, hint = "there is no space left", f"clear {self.folder} there"
        elif "Exec format error" in said or "not executable" in said:
            what, hint = "the program is for another machine", "convert for another --target"
        elif answer.code == 137 or said == "Killed":
            what = "the system killed the program: there is too little memory"
            hint = "close what else runs there, or convert for a smaller --size"
        raise DeviceError(f"{self.name}: {what}", where=where, hint=hint)
