"""A target of your own: a Cortex-A76 board that is not among the presets.

    python examples/custom_target.py

A package makes it known to `--target` through an entry point:

    [project.entry-points."distillc.targets"]
    raspberrypi5 = "mypackage.raspberrypi5:RASPBERRYPI5"
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

import distillc
from distillc.runtime.verify import verify_bundle
from distillc.targets.generic_aarch64 import GENERIC_AARCH64

RASPBERRYPI5 = replace(
    GENERIC_AARCH64,
    name="raspberrypi5",
    cpu="cortex-a76",
    threads=4,
    l2_kib=512,
    half=True,
)


def main() -> None:
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 3, 3, padding=1)
    network = nn.Sequential(*layers)
    bundle = distillc.compile(network, target=RASPBERRYPI5, size=(64, 64))
    check = verify_bundle(bundle, device="emulator")
    print(f"compiled for {RASPBERRYPI5.cpu}, max error under emulation {check.max_error:.1e}")


if __name__ == "__main__":
    main()
