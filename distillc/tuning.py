"""Tuning networks: their kernels searched for the best schedules, which later builds then use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from torch import nn

from distillc.checks import MINUTES, check_real, check_size, check_writable, temporary_folder
from distillc.codegen.dumps import Dumps
from distillc.codegen.schedule.records import user_records
from distillc.codegen.stages import lower
from distillc.codegen.tuning.price_kernels import choose_pricer
from distillc.codegen.tuning.tuner import TuningResult, tune_modules
from distillc.errors import UsageError
from distillc.frontend.trace import as_network, export_program
from distillc.network import Network
from distillc.pipeline import Context
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target, get_target


def tune(
    networks: Sequence[Network | nn.Module],
    target: str | Target = "host",
    sizes: Sequence[tuple[int, int]] = ((256, 256),),
    minutes: float = 10,
    *,
    precision: str = "fp32",
    device: str | None = None,
    records: Path | None = None,
    dump_dir: Path | None = None,
    progress: Progress | None = None,
) -> TuningResult:
    """Search the schedules of networks' kernels; what is found is used whenever one is built.

    Run again after a crash, it goes on behind the last finished kernel.

    Args:
        networks: Networks, or modules; see `distillc.compile`.
        target: A target or its name.
        sizes: Each (H, W) in pixels that networks are tuned at.
        minutes: Time to spend on all together, after they are traced.
        precision: What the networks will compute in. Kernels on float16 keep their defaults: with
            `"fp16"`, only what is left in float32 is searched.
        device: Device that candidates run on, by default the target's first. One without a clock
            (the emulator) has the static model say what they cost.
        records: File of records, by default the user's own for the target.
        dump_dir: Folder for each network after each stage of code generation, a folder for each
            network and size.
        progress: Rich display with a `detail` field.

    Raises:
        UsageError: Unknown target, precision or device, no time, or the static model's programs are
            missing.
        TraceError: A network cannot take a size, or cannot be exported.
        LoweringError: An operator cannot be compiled.
        DeviceError: Running fails.
        StorageError: The records cannot be written.
    """
    check_real(MINUTES, minutes=minutes)
    if not minutes:
        raise UsageError("0 minutes leave no time to search", hint="give more than 0")
    for size in sizes:
        check_size(size)
    if records:
        check_writable(records)
    if dump_dir:
        check_writable(dump_dir / "0")
    temporary_folder()
    chosen = get_target(target)
    arithmetic = get_precision(precision).arithmetic
    pricer = choose_pricer(chosen, device or chosen.devices[0])
    mods = []
    for number, network in enumerate(networks):
        for size in sizes:
            dumps = Dumps(dump_dir).inside(f"{number}_{size[0]}x{size[1]}")
            net = as_network(network, size)
            program = export_program(net.hybrid(), net.at(size).input_shape)
            mods.append(lower(program, chosen, arithmetic, dumps))
    seconds = round(60 * minutes)
    with Context(progress=progress).progress_line("tune", seconds) as shown:
        path = records or user_records(chosen)
        result = tune_modules(mods, chosen, pricer, path, seconds, shown.update)
        shown.update(seconds, f"{len(result.records)} kernels searched")
    return result
