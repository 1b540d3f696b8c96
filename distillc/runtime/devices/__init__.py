"""Devices: what runs a compiled network.

`host` is this machine, `emulator` qemu-aarch64, `ssh:user@host` what OpenSSH reaches, `adb` a phone
on a cable.
"""

from __future__ import annotations

from distillc.errors import UsageError
from distillc.runtime.devices.adb import Adb
from distillc.runtime.devices.base import Device
from distillc.runtime.devices.local import Emulator, Host, LocalDevice
from distillc.runtime.devices.ssh import Ssh

LOCAL: dict[str, LocalDevice] = {device.name: device for device in (Host(), Emulator())}
KNOWN = (*LOCAL, "ssh:user@host[:port]", "adb[:serial]")


def get_device(name: str) -> Device:
    """Return a device by name.

    Raises:
        UsageError: No device has this name; the message lists the known.
    """
    kind, _, rest = name.partition(":")
    if name in LOCAL:
        return LOCAL[name]
    if kind == "ssh" and rest:
        return Ssh(rest)
    if kind == "adb":
        return Adb(rest)
    raise UsageError(f"unknown device {name!r}", hint=f"known devices: {', '.join(KNOWN)}")


def get_local_device(name: str) -> LocalDevice:
    """Return a device that loads libraries, by name.

    Raises:
        UsageError: No such device has this name; the message lists the known.
    """
    if name not in LOCAL:
        raise UsageError(
            f"{name!r} is no device that loads libraries", hint=f"known are: {', '.join(LOCAL)}"
        )
    return LOCAL[name]
