"""Devices: what runs a compiled network.

`host` is this machine, `emulator` qemu-aarch64, `ssh:user@host` what OpenSSH reaches, `adb` a phone
on a cable. Each file holds one kind; `base` says what a device is.
"""

from __future__ import annotations

from distillc.errors import UsageError
from distillc.runtime.devices.base import DEVICES, Device
from distillc.runtime.devices.local import LocalDevice


def get_device(name: str) -> Device:
    """Return a device by name: that of its kind, and its address after a colon.

    Raises:
        UsageError: The kind takes no address, or see `Registry.find`.
    """
    kind, colon, address = name.partition(":")
    found = DEVICES.find(kind)
    if found.address is None:
        if colon:
            raise UsageError(f"device {kind!r} takes no address: {name!r}", hint=f"write {kind}")
        return found()
    return found(address)


def get_local_device(name: str) -> LocalDevice:
    """Return a device that loads libraries, by name.

    Raises:
        UsageError: No such device has this name; the message lists the known.
    """
    device = get_device(name)
    if not isinstance(device, LocalDevice):
        known = ", ".join(local_devices())
        raise UsageError(f"device {name!r} does not load libraries", hint=f"known are: {known}")
    return device


def local_devices() -> list[str]:
    """Return the names of the devices that load libraries."""
    return [name for name, each in DEVICES.load_all()[0].items() if issubclass(each, LocalDevice)]
