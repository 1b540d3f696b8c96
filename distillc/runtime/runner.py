"""The native runner: compiled once for each kind of machine, kept in the user's cache."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillc.children import with_us
from distillc.errors import DeviceError, reason
from distillc.runtime.devices.base import Timing
from distillc.runtime.native import FLAGS, FOLDER, RUNNER
from distillc.sealed import cached_file
from distillc.workdir import storage_errors
from distillc.zig import HINT, run_zig

SOURCES = tuple(FOLDER / f"{name}.c" for name in RUNNER)


def build_runner(triple: str | None) -> Path:
    """Return the runner for a zig triple (None: this machine), compiled when it is not cached.

    Args:
        triple: Say `"aarch64-linux-gnu.2.28"`.

    Raises:
        DeviceError: It does not compile.
    """
    options = [*FLAGS, "-ldl", "-lm", *(["-target", triple] if triple else [])]

    def build(temporary: Path) -> None:
        if reason := run_zig("cc", *SOURCES, "-o", temporary, *options):
            raise DeviceError("the runner does not compile", where=reason, hint=HINT)
        temporary.chmod(0o755)

    parts = (*SOURCES, *sorted(FOLDER.glob("*.h")))
    code = b"".join(each.read_bytes() for each in parts)
    return cached_file("runner", code + repr(triple).encode(), build)


def start_runner(
    command: Sequence[str], environment: Mapping[str, str], library: Path, timeout_s: float
) -> dict[str, Any]:
    """Start the runner and return what it prints.

    Args:
        command: The runner with its arguments, and what it runs under.
        environment: Environment of the process.
        library: The compiled code that it loads, for messages.
        timeout_s: Seconds after which the process is killed.

    Raises:
        DeviceError: It cannot be started, takes too long, crashes, or prints an error.
    """
    try:
        done = subprocess.run(
            with_us(command, environment), capture_output=True, text=True, timeout=timeout_s
        )
    except OSError as error:
        raise DeviceError(
            f"{command[0]} cannot be started: {reason(error)}",
            hint="check that programs may run in the folder of the cache (XDG_CACHE_HOME)",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"compiled code did not finish within {timeout_s:.0f} s",
            where=str(library),
            hint="try a smaller --size",
        ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DeviceError(
            f"running compiled code failed: {said}",
            where=str(library),
            hint="the library may be damaged or built for another machine: `distillc verify` says "
            "more",
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_models(
    command: Sequence[str],
    environment: Mapping[str, str],
    models: Sequence[Path],
    x: np.ndarray[Any, Any],
    output_shape: Sequence[int],
    *,
    warmup: int,
    runs: int,
    timeout_s: float,
    overlap: int = -1,
) -> tuple[np.ndarray[Any, Any], Timing]:
    """Run the first model on every image and time all in turn on the first; return both.

    Args:
        command: The runner, and what it runs under.
        environment: Environment of the process.
        models: Compiled libraries with equal input shapes.
        x: One or several images (N, C, H, W), float32, of any size; a model takes one at a time.
        output_shape: (1, C', H', W') of the first model's output for one of them.
        warmup: Runs that are not timed.
        runs: Timed runs.
        timeout_s: Seconds after which the process is killed.
        overlap: Pixels that the tiles of a large image share, -1 for the library's own choice.

    Returns:
        The outputs, along the first axis, float32, and the times.

    Raises:
        DeviceError: It takes too long, crashes, or prints an error.
        StorageError: There is no space for the input.
    """
    with tempfile.TemporaryDirectory(prefix="distillc-run-") as folder:
        source, sink = Path(folder) / "input", Path(folder) / "output"
        with storage_errors(source):
            # Not `tofile`, whose error does not say that the disk is full.
            source.write_bytes(np.ascontiguousarray(x, dtype=np.float32).data)
        shape = ",".join(str(extent) for extent in x.shape[1:])
        words = [shape, overlap, source, sink, warmup, runs, *(path.resolve() for path in models)]
        data = start_runner([*command, *map(str, words)], environment, models[0], timeout_s)
        output = np.fromfile(sink, np.float32)
    wanted = (len(x), *output_shape[1:])
    if output.size != np.prod(wanted):
        raise DeviceError(
            f"the network returned {output.size} values, the manifest says {wanted}",
            where=str(models[0]),
        )
    timing = Timing(tuple(tuple(each) for each in data["ms"]), data["peak_bytes"])
    return output.reshape(wanted), timing
