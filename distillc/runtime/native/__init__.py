"""The C sources of every compiled network: its functions, its threads, and programs that run it.

`distillc.h` is what others include. `bench.c` is the program of a bundle, `runner.c` the one that
loads libraries here.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the sources lie."""

FLAGS = ("-std=gnu11", "-O2", "-mcpu=baseline", "-pthread", f"-I{FOLDER}")
"""What they are compiled with. Kernels come as objects: nothing here needs the newest CPU."""

KERNELS = ("pool", "cores")
"""Sources that kernels need."""
MODEL = (*KERNELS, "model", "weights", "images", "tiles", "error")
"""Sources of a network's library."""
KERNEL_PROGRAM = (*KERNELS, "kernel_bench", "kernels", "race")
"""Sources of a program of single kernels."""
RUNNER = ("runner", "kernels", "race")
"""Sources of the program that loads libraries here."""
PICTURES = ("pictures", "png", "inflate", "jpeg", "exif")
"""Sources of the decoders."""
PROGRAM = (*MODEL, "bench", *PICTURES)
"""Sources of a network's program."""
