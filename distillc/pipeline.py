"""The pass contract and its manager.

A pass is a class with `requires`, `run` and `ensures`; ordering is data (`after`), checked when
the pipeline is built. A `Pipeline` is called like a pass, so pipelines nest.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.progress import Progress

from distillc.checks import SEEDS, check_training_device, check_whole
from distillc.errors import PassError, PreconditionError, UsageError
from distillc.executor.base import Executor
from distillc.executor.here import Here
from distillc.network import Network, PassRecord
from distillc.printable import escaped
from distillc.quiet import quiet_libraries
from distillc.stages import Stage, WorkDir
from distillc.workdir import write_json, write_text


class ProgressLine:
    """A line of progress; does nothing when there is no display."""

    def __init__(self, progress: Progress | None, description: str, total: int) -> None:
        self._progress = progress
        self._id = progress.add_task(description, total=total, detail="") if progress else None

    def update(self, completed: int, detail: str = "") -> None:
        """Show how many steps are done, and a few words (say the loss)."""
        if self._progress and self._id is not None:
            self._progress.update(self._id, completed=completed, detail=detail)

    def end(self) -> None:
        """Show that no step is left, also where fewer were needed than thought."""
        if self._progress and self._id is not None:
            task = next(each for each in self._progress.tasks if each.id == self._id)
            self._progress.update(self._id, total=task.completed)


@dataclass
class Context:
    """What passes share while a pipeline runs.

    Attributes:
        work: Where results are kept; None keeps nothing (and nothing resumes).
        seed: Seed of everything random.
        train_on: Torch device that trains and evaluates, `"cpu"` or `"cuda"`.
        progress: Rich display with a `detail` field; None shows nothing.
        executor: Runs the jobs that expensive passes are cut into.

    Raises:
        UsageError: The seed is out of range, or the device is not here.
    """

    work: WorkDir | None = None
    seed: int = 0
    train_on: str = "cpu"
    progress: Progress | None = None
    executor: Executor = field(default_factory=Here)

    def __post_init__(self) -> None:
        check_whole(SEEDS, seed=self.seed)
        check_training_device(self.train_on)

    def stage(self, name: str, key: Any) -> AbstractContextManager[Stage]:
        """Open a stage of the work directory; without one, a stage that keeps nothing."""
        return self.work.stage(name, key) if self.work else nullcontext(Stage(None))

    @contextmanager
    def progress_line(self, description: str, total: int) -> Iterator[ProgressLine]:
        """Show a line of progress for the duration of the block; it stays as it ended."""
        line = ProgressLine(self.progress, description, total)
        yield line
        line.end()


@dataclass(frozen=True)
class PassResult:
    """What a pass returns: the network, whether it differs, and notes for the log."""

    network: Network
    modified: bool
    notes: tuple[str, ...] = ()


class Pass(ABC):
    """A transformation of a `Network`. Subclasses set `after` and write `run`."""

    after: ClassVar[tuple[type[Pass], ...]] = ()
    """Passes whose results this one uses."""

    @property
    def name(self) -> str:
        """Snake-case name: `find_attention` for `FindAttention`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def requires(self, net: Network) -> None:  # noqa: B027 - optional hook
        """Raise `PreconditionError` when the network lacks what `run` needs."""

    def foresee(self, net: Network) -> None:  # noqa: B027 - optional hook
        """Raise `UsageError` where options cannot fit a network that earlier passes work on.

        A pipeline asks this of every pass that is still to come, so that nobody waits for hours to
        hear of a misspelt name.
        """

    @abstractmethod
    def run(self, net: Network, ctx: Context) -> PassResult:
        """Return the transformed network; never change `net` in place."""

    def ensures(self, net: Network) -> None:  # noqa: B027 - optional hook
        """Raise `PassError` when the result is not what the pass promises."""

    @quiet_libraries()
    def __call__(self, net: Network, ctx: Context | None = None) -> Network:
        """Check, run, check, and add a line to the network's log."""
        ctx = ctx or Context()
        self.requires(net)
        start = time.perf_counter()
        result = self.run(net, ctx)
        self.ensures(result.network)
        record = PassRecord(
            self.name, round(time.perf_counter() - start, 3), result.modified, result.notes
        )
        return result.network.with_(log=(*result.network.log, record))


def require(condition: bool, what: str, provider: str) -> None:
    """Raise `PreconditionError` unless `condition`; `provider` is the pass that supplies it."""
    if not condition:
        raise PreconditionError(what, hint=f"run {provider} first")


@dataclass
class Pipeline:
    """Runs passes in order; stands wherever a pass may stand.

    Args:
        passes: The passes, in an order that agrees with every pass's `after`.
        verify_each: Compare the eager output before and after every pass that does not change
            decisions; a pass that alters the numbers by more than 1e-4 is an error.
        dump_dir: Where to write `03_distill_blocks.{txt,json}` after each pass.
        print_after: Called with the dump text after the pass of this name.
        stop_after: Name of the last pass to run.

    Raises:
        UsageError: The order contradicts `after`, or a name is not in the pipeline.
    """

    passes: Sequence[Pass | Pipeline]
    verify_each: bool = False
    dump_dir: Path | None = None
    print_after: str | None = None
    stop_after: str | None = None
    emit: Callable[[str], object] = print
    name: str = "pipeline"

    def __post_init__(self) -> None:
        self._check_order()
        for wanted in (self.print_after, self.stop_after):
            if wanted and wanted not in [each.name for each in self.passes]:
                known = ", ".join(each.name for each in self.passes)
                raise UsageError(
                    f"no pass named {wanted!r} in this pipeline", hint=f"one of: {known}"
                )

    def _flat(self) -> list[Pass]:
        flat: list[Pass] = []
        for each in self.passes:
            flat.extend(each._flat() if isinstance(each, Pipeline) else [each])
        return flat

    def foresee(self, net: Network) -> None:
        """See `Pass.foresee`."""
        for each in self.passes:
            each.foresee(net)

    def _check_order(self) -> None:
        """Reject a pass that stands before one it builds on; absent ones may have run earlier."""
        flat = self._flat()
        problems = []
        for index, each in enumerate(flat):
            for later in flat[index + 1 :]:
                if isinstance(later, each.after):
                    problems.append(f"{each.name} must come after {later.name}")
        if problems:
            raise UsageError("the passes are in the wrong order:\n  - " + "\n  - ".join(problems))

    def run(self, net: Network, ctx: Context | None = None) -> Network:
        """Run every pass and return the last network; without a context nothing is kept."""
        ctx = ctx or Context()
        self.foresee(net)
        for index, each in enumerate(self.passes):
            before = net
            net = each(net, ctx)
            _lint(net, each.name)
            for later in self.passes[index + 1 :]:
                later.foresee(net)
            if (
                self.verify_each
                and net.decisions == before.decisions
                and net.healed is before.healed
            ):
                _compare(before, net, each.name)
            text = dump_text(net)
            if self.dump_dir:
                stem = self.dump_dir / f"{index:02d}_{each.name}"
                write_text(stem.with_suffix(".txt"), text)
                write_json(stem.with_suffix(".json"), dump_data(net))
            if self.print_after == each.name:
                self.emit(text)
            if self.stop_after == each.name:
                break
        return net

    __call__ = run


def _lint(net: Network, name: str) -> None:
    """Check what must hold after every pass: a sound graph and decisions that can be applied."""
    if net.program is not None:
        net.program.graph_module.graph.lint()
    known = {block.name for block in net.blocks}
    if unknown := sorted(set(net.decisions) - known):
        raise PassError(f"decisions for unknown blocks: {', '.join(unknown)}", where=name)


def _compare(before: Network, after: Network, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(before.input_shape, generator=generator)
    with torch.no_grad():
        error = (before.hybrid()(image) - after.hybrid()(image)).abs().max().item()
    if not error <= 1e-4:  # nor where it is NaN
        raise PassError(f"the pass changed the network's output by {error:.2e}", where=name)


def dump_data(net: Network) -> dict[str, Any]:
    """Return the network's state as JSON values (no weights)."""
    return {
        "name": net.name,
        "size": list(net.size),
        "blocks": [
            {
                "name": block.name,
                "kind": block.kind,
                "shape": list(block.shape),
                "params": block.cost.params,
                "macs": block.cost.macs,
                "latency_ms": block.latency_ms,
                "decision": net.decisions.get(block.name),
                "candidates": [
                    {
                        "label": each.label,
                        "params": each.cost.params,
                        "macs": each.cost.macs,
                        "fidelity": each.fidelity,
                        "latency_ms": each.latency_ms,
                    }
                    for each in net.candidates.get(block.name, ())
                ],
            }
            for block in net.blocks
        ],
        "front": [
            {"psnr": point.psnr, "cost": point.cost, "decisions": dict(point.decisions)}
            for point in net.front
        ],
        "log": [{"pass": each.name, "notes": list(each.notes)} for each in net.log],
    }


def dump_text(net: Network) -> str:
    """Return the network's state as a few readable lines (no weights, no timings)."""
    lines = [f"network {net.name} {net.size[0]}x{net.size[1]}"]
    for block in net.blocks:
        shape = "x".join(str(extent) for extent in block.shape)
        decision = net.decisions.get(block.name, "undecided")
        lines.append(
            f"  block {block.name} {block.kind} {shape} "
            f"params={block.cost.params} macs={block.cost.macs} -> {decision}"
        )
        for each in net.candidates.get(block.name, ()):
            fidelity = "" if each.fidelity is None else f" fidelity={each.fidelity:.4f}"
            cost = f"params={each.cost.params} macs={each.cost.macs}"
            lines.append(f"    candidate {each.label} {cost}{fidelity}")
    for point in net.front:
        replaced = sum(label != "keep" for label in point.decisions.values())
        lines.append(f"  point psnr={point.psnr:.3f} cost={point.cost:.4g} replaced={replaced}")
    return escaped("\n".join(lines) + "\n")
