"""An Android phone on a cable: `adb`, or `adb:SERIAL` where there are several."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from distillc.errors import DeviceError
from distillc.runtime.devices.asking import SHORT_S, Answer, ask
from distillc.runtime.devices.base import TIMEOUT_S, Finding
from distillc.runtime.devices.remote import RemoteDevice

STATES = {
    "unauthorized": "the phone does not trust this machine: unlock it and allow USB debugging",
    "offline": "the phone is offline: pull the cable and plug it in again",
    "no permissions": "this user may not use the USB device: Android's udev rules are missing",
}


class Adb(RemoteDevice):
    """An Android phone on a cable.

    See `RemoteDevice`; phones run what lies in `/data/local/tmp`.

    Args:
        serial: Of the phone, as `adb devices` lists it; empty where only one is connected.
    """

    name = "adb"
    address: ClassVar[str | None] = "[:serial]"
    folder: ClassVar[str] = "/data/local/tmp/distillc"

    def __init__(self, serial: str = "") -> None:
        self.name = f"adb:{serial}" if serial else "adb"
        self._serial = serial

    def words(self, command: str) -> list[str]:
        """See `RemoteDevice.words`."""
        return self._adb("shell", command)

    def shell(self, command: str, timeout_s: float = SHORT_S, given: bytes | None = b"") -> Answer:
        """See `RemoteDevice.shell`.

        Old phones lose the exit code and mix both outputs: the code is printed, errors come last.
        """
        coded = f"( {command} ); code=$?; echo; echo code $code"
        answer = ask(self.words(coded), timeout_s, self.name, given)
        text, found = answer.output.decode(errors="replace"), answer.code
        if match := re.search(r"\r?\n?code (\d+)\s*$", text):
            text, found = text[: match.start()], int(match[1])
        lines = text.strip().splitlines()
        complaint = answer.complaint or (lines[-1] if found and lines else "")
        return Answer(found, text.encode(), complaint)

    def push(self, local: Path, remote: str) -> Answer:
        """See `RemoteDevice.push`."""
        return ask(self._adb("push", str(local), remote), TIMEOUT_S, self.name)

    def pull(self, remote: str, local: Path) -> Answer:
        """See `RemoteDevice.pull`."""
        return ask(self._adb("pull", remote, str(local)), TIMEOUT_S, self.name)

    def reach(self) -> Iterator[Finding]:
        """See `RemoteDevice.reach`."""
        client = shutil.which("adb")
        yield Finding("client", bool(client), client or "adb (Debian: adb) is missing")
        if not client:
            return
        phones = self._phones()
        if self._serial and self._serial not in phones:
            known = ", ".join(phones) or "none"
            yield Finding("phone", False, f"no phone {self._serial}; connected: {known}")
            return
        if not phones:
            seen = "no phone is connected: see the cable, and that USB debugging is on"
            yield Finding("phone", False, seen)
            return
        if not self._serial and len(phones) > 1:
            seen = f"several are connected, name one: {', '.join(f'adb:{each}' for each in phones)}"
            yield Finding("phone", False, seen)
            return
        serial = self._serial or next(iter(phones))
        state = phones[serial]
        if state != "device":
            causes = [text for word, text in STATES.items() if state.startswith(word)]
            yield Finding("phone", False, causes[0] if causes else f"{serial} is in state {state}")
            return
        yield Finding("phone", True, serial)
        answer = self.shell("getprop ro.product.model; getprop ro.build.version.sdk")
        about = " ".join(answer.output.decode(errors="replace").split()) or "a phone"
        yield Finding("shell", not answer.code, answer.complaint if answer.code else about)

    def _phones(self) -> dict[str, str]:
        """Return serial -> state of what is connected."""
        answer = ask(["adb", "devices"], SHORT_S, "adb")
        if answer.code:
            raise DeviceError(f"adb does not work: {answer.complaint}")
        lines = answer.output.decode(errors="replace").partition("List of devices attached")[2]
        rows = (line.split(maxsplit=1) for line in lines.splitlines() if line.strip())
        return {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows}

    def _adb(self, *words: str) -> list[str]:
        return ["adb", *(["-s", self._serial] if self._serial else []), *words]
