"""Time every block and every candidate as compiled code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, product
from pathlib import Path
from statistics import median

import torch
from torch import nn

from distillc.checks import RUNS, THREADS, check_whole
from distillc.codegen.schedule.records import load_records, records_digest
from distillc.codegen.tuning.time_modules import Meter, generator_digest
from distillc.forms import Times
from distillc.frontend.calls import Bound, record_calls
from distillc.frontend.cost import on_meta
from distillc.frontend.structure import structure_digest
from distillc.network import Network, Surrogate
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.pipeline import Context, Pass, PassResult, ProgressLine, require
from distillc.runtime.devices import get_device
from distillc.stages import Stage
from distillc.surrogates.answering import Answering
from distillc.targets.base import Target, get_target
from distillc.workdir import digest

Modules = Mapping[str, tuple[nn.Module, tuple[int, ...]]]

Bounds = dict[str | nn.Module, nn.Module]

_IDLE = nn.Identity()

_SCALES = (0.5, 2.0)  # what is beyond is noise: networks of microseconds


@dataclass
class ProfileBlocks(Pass):
    """Measure the latency of blocks and candidates at the network's size.

    1. Blocks with equal structure are timed once: weights do not change the time. So are candidates
       with equal structure and label.
    2. All are compiled before any is timed. Each round then runs every one of every shape in turn,
       one process a shape, and the median over the rounds counts: so other load on the machine
       changes all costs or none.
    3. A block by itself is handed a whole image of features, which it is not inside the network.
       What that takes is the time of a network that does nothing, and is taken off.
    4. The whole network is timed too, and the network with its blocks left out: the rest. All
       costs are scaled so that blocks and rest sum to the whole: by itself, a block is slower or
       faster than between its neighbours.
    5. Libraries and rounds that are finished are kept, libraries until the last round.
    6. The times are those of `device`: this machine, or a phone on a cable.

    Given:   Block("latent.0", latency_ms=None)
    Result:  Block("latent.0", latency_ms=3.1), candidates with latencies, metrics["profile"]

    Args:
        threads: Threads that every module is timed on.
        rounds: How often all modules are timed in turn; the medians count.
        runs: Timed runs of each module in a round.
        device: Name of the device that times them.
        target: What modules are compiled for.

    Raises:
        UsageError: A number is out of range, or no device has this name.
        LoweringError: A block or a candidate cannot be compiled.
        DeviceError: Running fails.
    """

    threads: int = 2
    rounds: int = 5
    runs: int = 5
    device: str = "host"
    target: str | Target = "host"

    after = (SynthesizeSurrogates,)

    def __post_init__(self) -> None:
        check_whole(THREADS, threads=self.threads)
        check_whole(RUNS, rounds=self.rounds, runs=self.runs)
        get_device(self.device)

    def requires(self, net: Network) -> None:
        require(bool(net.blocks), "no blocks are known", "FindAttention")

    def run(self, net: Network, ctx: Context) -> PassResult:
        bound, bare = _bound_modules(net), _bare(net, ctx)
        groups = self._groups(net, bound, bare)
        key = {
            "groups": {shape: sorted(modules) for shape, modules in groups.items()},
            "device": self.device,
            "target": str(get_target(self.target)),
            "versions": {name: version(name) for name in ("distillc", "apache-tvm")},
            "generator": generator_digest(),
            "records": records_digest(load_records(get_target(self.target))),
            "options": [self.threads, self.rounds, self.runs],
        }
        total = sum(map(len, groups.values())) + self.rounds * len(groups)
        with (
            ctx.stage("profile", key) as stage,
            tempfile.TemporaryDirectory(prefix="distillc-profile-") as spare,
            ctx.progress_line("profile blocks", total) as shown,
        ):
            # Libraries need a place, also where nothing is kept.
            place = stage if stage.folder else Stage(Path(spare))
            return self._result(net, bound, bare, self._measure(groups, place, shown))

    def _measure(
        self, groups: Mapping[str, Modules], stage: Stage, shown: ProgressLine
    ) -> dict[str, float]:
        """Build and time what the stage lacks: structure -> milliseconds."""
        libraries: dict[str, Path] = {}

        def time(modules: Modules) -> dict[str, float]:
            if not libraries:  # rule 2
                for name, (module, shape) in chain(*(each.items() for each in groups.values())):
                    make = partial(self._meter.build, module, shape)
                    libraries[name] = stage.program(_library(name), make)
                    shown.update(len(libraries), name)
            return self._time(modules, [libraries[name] for name in modules])

        times: dict[str, list[float]] = {}
        rounds = product(range(self.rounds), sorted(groups.items()))
        for done, (number, (shape, modules)) in enumerate(rounds, 1):
            name = f"round{number}-{digest(shape)}"
            for each, spent in stage.once(
                f"{name}.sealed", Times(modules), partial(time, modules)
            ).items():
                times.setdefault(each, []).append(spent)
            shown.update(len(libraries) + done, name)
        for each in times:
            stage.remove(_library(each))
        return {each: median(spent) for each, spent in times.items()}

    @property
    def _meter(self) -> Meter:
        return Meter(self.device, self.target)

    def _groups(self, net: Network, bound: Bounds, bare: nn.Module) -> dict[str, Modules]:
        """Return what is timed together: shape -> structure -> module and input shape."""
        groups: dict[str, dict[str, tuple[nn.Module, tuple[int, ...]]]] = {}

        def add(module: nn.Module, shape: tuple[int, ...], label: str = "") -> None:
            group = groups.setdefault(str(shape), {})
            group[_structure(_IDLE, shape)] = (_IDLE, shape)
            group[_structure(module, shape, label)] = (module, shape)

        for block in net.blocks:
            add(bound[block.name], block.shape)
            for each in net.candidates.get(block.name, ()):
                add(*_candidate(net, each, bound))
        for module in (net.module, bare):
            add(module, net.input_shape)
        return {shape: dict(modules) for shape, modules in groups.items()}

    def _time(self, modules: Modules, libraries: Sequence[Path]) -> dict[str, float]:
        """Time libraries of one input shape, one round: structure -> milliseconds."""
        shape = next(iter(modules.values()))[1]  # the first does nothing: its output is as large
        stats = self._meter.time(libraries, shape, shape, self.threads, self.runs, warmup=1)
        return {name: each.median_ms for name, each in zip(modules, stats, strict=True)}

    def _result(
        self,
        net: Network,
        bound: Bounds,
        bare: nn.Module,
        times: Mapping[str, float],
    ) -> PassResult:

        def cost(module: nn.Module, shape: tuple[int, ...], label: str = "") -> float:  # rule 3
            idle = times[_structure(_IDLE, shape)]
            return max(0.0, times[_structure(module, shape, label)] - idle)

        alone = {block.name: cost(bound[block.name], block.shape) for block in net.blocks}
        total = cost(net.module, net.input_shape)
        replaceable = sum(alone[name] for name in net.candidates)
        scale = 1.0
        if replaceable:  # rule 4
            inside = total - cost(bare, net.input_shape)
            scale = min(max(inside / replaceable, _SCALES[0]), _SCALES[1])
        blocks = tuple(replace(block, latency_ms=scale * alone[block.name]) for block in net.blocks)
        candidates = {}
        for name, found in net.candidates.items():
            block = net.block(name)
            timed = []
            for each in found:
                own = cost(*_candidate(net, each, bound))
                if each.scope == "attention":  # the block's other parts stay
                    share = 1 - block.attention_cost.macs / max(1, block.cost.macs)
                    own += alone[name] * share
                timed.append(replace(each, latency_ms=scale * own))
            candidates[name] = tuple(timed)
        within = scale * sum(alone.values())
        profile = {
            "device": self.device,
            "threads": self.threads,
            "network_ms": total,
            "rest_ms": max(0.0, total - within),
            "scale": scale,
        }
        note = (
            f"timed on {self.device}, {self.threads} threads: network {total:.1f} ms, of which "
            f"blocks {within:.1f} ms ({scale:.2f} of what they take by themselves)"
        )
        changed = net.with_(
            blocks=blocks, candidates=candidates, metrics={**net.metrics, "profile": profile}
        )
        return PassResult(changed, True, (note,))


def _bare(net: Network, ctx: Context) -> nn.Module:
    """Return the network without the blocks that can be replaced."""
    if not net.candidates:
        return net.module
    without = SynthesizeSurrogates(["skip"]).run(net, ctx).network
    return without.hybrid(dict.fromkeys(net.candidates, "skip"))


def _candidate(
    net: Network, each: Surrogate, bound: Bounds
) -> tuple[nn.Module, tuple[int, ...], str]:
    block = net.block(each.block)
    shape = block.shape if each.scope == "block" else block.attention_shape
    return bound[each.module], shape, each.label


def _bound_modules(net: Network) -> Bounds:
    """Return blocks and candidates as maps from input to output, whatever else they are given.

    Returns:
        Block name, or a candidate's module -> module.
    """
    paths = [path for block in net.blocks for path in (block.name, block.attention)]
    twin, (image,) = on_meta(net.module, [net.input_shape])
    more = [path for path, call in record_calls(twin, paths, image).items() if call.has_more]
    # Only where a block is given more must the network really run, for the values.
    calls = record_calls(net.module, more, torch.zeros(net.input_shape)) if more else {}

    def bind(path: str, module: nn.Module) -> nn.Module:
        return Bound(module, calls[path]) if path in calls else module

    bound: Bounds = {
        block.name: bind(block.name, net.module.get_submodule(block.name)) for block in net.blocks
    }
    for name, found in net.candidates.items():
        for each in found:
            path = name if each.scope == "block" else net.block(name).attention
            answers = isinstance(each.module, Answering)
            bound[each.module] = _Whole(each.module, calls[path]) if answers else each.module
    return bound


class _Whole(Bound):
    """Adds what is returned beside the result to it, so that it is computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        module = self.module
        assert isinstance(module, Answering)
        made = self.call.run(module, x)
        result: torch.Tensor = made[self.call.at]
        for number in module.beside:
            result = result + made[int(number)].mean(1 if module.image else -1, keepdim=True)
        return result


def _library(structure: str) -> str:
    return f"{digest(structure)}.so"


def _structure(module: nn.Module, shape: tuple[int, ...], label: str = "") -> str:
    """Return a name that modules share when they compile to equal code.

    A candidate shares it with those of its own label only: that says all options of its family.
    """
    return f"{label or type(module).__name__} {shape} {structure_digest(module)}"
