"""What this machine can do at most, measured by `peak.c`.

    python -m tests.benchmarks.peak --threads 2

The loop of `fma` holds nothing but vector FMAs on registers: `objdump -d` of the program shows it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.report import markdown

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-pthread")
SIZES = {"L2": 384 << 10, "L3": 6 << 20, "memory": 192 << 20}
"""Bytes of one thread's three arrays, by where they stay."""


def measure_peak(threads: int) -> dict[str, float]:
    """Return GFLOP/s under `"fma"`, and GB/s of a triad under `"L2"`, `"L3"` and `"memory"`.

    The triad a = b + s c counts its three arrays; that a is read before it is written does not
    count.
    """
    with tempfile.TemporaryDirectory(prefix="distillc-peak-") as folder:
        program = str(Path(folder, "peak"))
        compiler = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", program, str(SOURCE)]
        subprocess.run(compiler, check=True)

        def run(*words: object) -> float:
            done = subprocess.run(
                [program, *map(str, words)], check=True, capture_output=True, text=True
            )
            return float(done.stdout)

        rates = {name: run("triad", threads, size) for name, size in SIZES.items()}
        return {"fma": run("fma", threads)} | rates


def peak_table(peaks: dict[str, float]) -> str:
    """Return the figures as a table."""
    rows = [{"what": "FMA, registers", "rate": peaks["fma"], "unit": "GFLOP/s"}]
    rows += [
        {"what": f"triad, {name}, {size >> 10} KiB a thread", "rate": peaks[name], "unit": "GB/s"}
        for name, size in SIZES.items()
    ]
    return markdown({"measured": "what", "rate": "rate:.1f", "unit": "unit"}, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    print(peak_table(measure_peak(parser.parse_args().threads)))


if __name__ == "__main__":
    main()
