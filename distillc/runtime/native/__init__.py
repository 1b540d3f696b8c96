"""The C sources of every compiled network: its functions, its threads, and a program that runs it.

`distillc.h` is what others include; `runner.c` is a program, the rest is linked into libraries.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the sources lie."""

FLAGS = ("-std=gnu11", "-O2", "-mcpu=baseline", "-pthread", f"-I{FOLDER}")
"""What they are compiled with. Kernels come as objects: nothing here needs the newest CPU."""
