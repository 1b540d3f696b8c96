"""Devices behind a cable or a network: a folder there, files to it and from it, commands in it."""

from __future__ import annotations

import json
import secrets
import shlex
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distillc.errors import DeviceError
from distillc.runtime.devices.asking import SHORT_S, Answer, kept_open, leashed
from distillc.runtime.devices.base import KERNELS_S, TIMEOUT_S, Device, Finding, Timing
from distillc.workdir import file_digest, storage_errors

KEPT_DAYS = 7
"""Programs that were not used for longer make room for others."""
ROUNDS = 3
"""How often several programs take turns: a phone gets warm, and all of them must get it alike."""

MACHINES = {62: "x86_64", 183: "aarch64"}
"""`e_machine` of an ELF header -> what `uname -m` says."""


class RemoteDevice(Device):
    """A machine that runs the programs of bundles, which need nothing there.

    Files go to one folder that only this user can enter, named by their content, so that none is
    sent twice, and stay for some days after they were used. What is started there, and what it
    leaves, ends with this process: see `leashed`.

    Attributes:
        folder: The folder's name but for the number of the user.
    """

    programs: ClassVar[bool] = True
    folder: ClassVar[str]

    @abstractmethod
    def words(self, command: str) -> list[str]:
        """Return the words that run a command there."""

    @abstractmethod
    def shell(self, command: str, timeout_s: float = SHORT_S, given: bytes | None = b"") -> Answer:
        """Run a command there; see `ask` for `given`.

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
        self._check_machine([path])
        with self._scratch() as scratch:
            program = f"{scratch}/kernels"
            self._put(path, program)
            return self._start(program, [threads, *words], KERNELS_S)

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
        try:
            folder = self._private
        except DeviceError as error:
            yield Finding("folder", False, str(error))
            return
        free = self._words(f"df -Pk {folder} | tail -n 1").split()
        room = int(free[3]) // 1024 if len(free) > 3 and free[3].isdecimal() else 0
        yield Finding("folder", room >= 64, f"{folder}, {room} MiB free")
        script = f"{folder}/doctor"
        test = f"printf '#!/bin/sh\\nexit 0\\n' > {script} && chmod 755 {script} && {script}"
        done = self.shell(f"{test}; code=$?; rm -f {script}; exit $code")
        seen = "programs start there" if not done.code else done.complaint or "they do not start"
        yield Finding("programs", done.code == 0, seen)

    def _words(self, command: str) -> str:
        answer = self.shell(command)
        return answer.output.decode(errors="replace").strip() or answer.complaint

    @cached_property
    def _private(self) -> str:
        """The folder there, made, and checked that only we can enter it: what lies in it is run."""
        name = f"{self.folder}-$(id -u)"
        made = f'd={name}; {{ [ -e "$d" ] || [ -L "$d" ] || mkdir -m 700 "$d"; }}'
        answer = self.shell(f'{made} && ls -ldn "$d" && id -u && echo "$d"')
        lines = [line.split() for line in answer.output.decode(errors="replace").splitlines()]
        if len(lines) < 3 or len(lines[-3]) < 3:
            raise DeviceError(
                f"{self.name}: no folder for programs: {answer.complaint or 'unknown answer'}",
                where=f"{self.folder}-*",
                hint="see what `mkdir` says there",
            )
        (mode, _, owner, *_), (user,), (folder,) = lines[-3:]
        if mode.rstrip(".") != "drwx------" or owner != user:
            raise DeviceError(
                f"{self.name}: others could put programs into {folder} ({mode}, of user {owner})",
                hint="find out who made it, and remove it there",
            )
        return folder

    def _check_machine(self, programs: Sequence[Path]) -> None:
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

    def _install(self, programs: Sequence[Path]) -> list[str]:
        """Send programs unless they are there; return their names there."""
        self._check_machine(programs)
        places = []
        for program in programs:
            digest = file_digest(program)
            place = f"{self._private}/{program.name}-{digest[:16]}"
            if not self._holds(place, digest):
                old = f"{self._private} -mindepth 1 -maxdepth 1 -mtime +{KEPT_DAYS}"
                self.shell(f"find {old} -exec rm -rf {{}} +")
                self._put(program, place)
            places.append(place)
        return places

    def _holds(self, place: str, digest: str) -> bool:
        """Whether a program is there whole; if so, it counts as used."""
        quoted = shlex.quote(place)
        answer = self.shell(f"test -x {quoted} && sha256sum < {quoted} && touch {quoted}")
        return not answer.code and answer.output.split()[:1] == [digest.encode()]

    def _put(self, program: Path, place: str) -> None:
        """Send a program, and see that it arrived."""
        part = f"{place}.{secrets.token_hex(4)}"
        self._send(program, part)
        moved = f"chmod 700 {shlex.quote(part)} && mv {shlex.quote(part)} {shlex.quote(place)}"
        self._checked(self.shell(moved), place)
        if not self._holds(place, file_digest(program)):
            hint = "`sha256sum` must be there: see what it says"
            raise DeviceError(
                f"{self.name}: the program is not what was sent", where=place, hint=hint
            )

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        """Give a folder there that is gone afterwards, also when this process is killed."""
        made = f'd=$(mktemp -d {self._private}/run-XXXXXX) && echo "$d" && read -r x'
        with kept_open(self.words(f"trap '' HUP; {made}; rm -rf \"$d\"")) as answer:
            yield self._checked(answer, self._private).output.decode()

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
        """Run a program, which ends when its standard input does; return what it prints."""
        command = shlex.join([program, *map(str, words)])
        answer = self._checked(self.shell(leashed(command), timeout_s, None), program)
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
            what, hint = "there is no space left", f"clear {self._private} there"
        elif "Exec format error" in said or "not executable" in said:
            what, hint = "the program is for another machine", "convert for another --target"
        elif answer.code == 137 or said == "Killed":
            what = "the system killed the program: there is too little memory"
            hint = "close what else runs there, or convert for a smaller --size"
        raise DeviceError(f"{self.name}: {what}", where=where, hint=hint)
