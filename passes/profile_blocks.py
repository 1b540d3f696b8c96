"""Time every block and every candidate as compiled code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from torch import nn

from distillc.codegen.measure import time_modules
from distillc.network import Network
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.targets.base import get_target
from distillc.workdir import digest, write_json

_PLAIN = (bool, int, float, str, tuple)  # attributes that decide what a module computes


@dataclass
class ProfileBlocks(Pass):
    """Measure the latency of blocks and candidates at the network's size.

    1. Blocks with equal structure are timed once: weights do not change the time.
    2. Block and candidates of one shape are compiled apart and timed in turn, in one process.
    3. The whole network is timed too; what is not in its blocks is the rest.
    4. Phones are not at hand: the times are this machine's.

    Given:   Block("latent.0", latency_ms=None)
    Result:  Block("latent.0", latency_ms=3.1), candidates with latencies, metrics["profile"]

    Args:
        threads: Threads.
        runs: Timed rounds.

    Raises:
        LoweringError: A block or a candidate cannot be compiled.
    """

    threads: int = 2
    runs: int = 15

    after = (SynthesizeSurrogates,)

    def requires(self, net: Network) -> None:
        require(bool(net.blocks), "no blocks are known", "FindAttention")

    def run(self, net: Network, ctx: Context) -> PassResult:
        groups = self._groups(net)
        key = {
            "groups": sorted(groups),
            "network": _structure(net.module, net.input_shape),
            "target": str(get_target("host")),
            "versions": {name: version(name) for name in ("distillc", "apache-tvm")},
            "options": [self.threads, self.runs],
        }
        stage = ctx.work.stage("profile", key) if ctx.work else None
        times: dict[str, float] = {}
        with ctx.task("profile blocks", len(groups) + 1) as shown:
            for index, (name, modules) in enumerate(sorted(groups.items())):
                path = stage / f"{digest(name)}.json" if stage else None
                if path and path.exists():
                    times |= json.loads(path.read_text())
                else:
                    measured = self._time(modules)
                    if path:
                        write_json(path, measured)
                    times |= measured
                shown.update(index + 1, name)
        return self._result(net, times)

    def _groups(self, net: Network) -> dict[str, dict[str, tuple[nn.Module, tuple[int, ...]]]]:
        """Return what is timed together: shape -> structure -> module and input shape."""
        groups: dict[str, dict[str, tuple[nn.Module, tuple[int, ...]]]] = {}

        def add(module: nn.Module, shape: tuple[int, ...]) -> None:
            groups.setdefault(str(shape), {})[_structure(module, shape)] = (module, shape)

        for block in net.blocks:
            if len(block.shape) == 4:
                add(net.module.get_submodule(block.name), block.shape)
            for each in net.candidates.get(block.name, ()):
                add(*self._candidate(net, each))
        add(net.module, net.input_shape)
        return groups

    def _candidate(self, net: Network, each: Any) -> tuple[nn.Module, tuple[int, ...]]:
        block = net.block(each.block)
        return each.module, block.shape if each.scope == "block" else block.attention_shape

    def _time(self, modules: Mapping[str, tuple[nn.Module, tuple[int, ...]]]) -> dict[str, float]:
        """Time modules of one input shape: structure -> milliseconds."""
        shape = next(iter(modules.values()))[1]
        stats = time_modules([each for each, _ in modules.values()], shape, self.threads, self.runs)
        return {name: each.median_ms for name, each in zip(modules, stats, strict=True)}

    def _result(self, net: Network, times: Mapping[str, float]) -> PassResult:
        blocks = tuple(
            replace(
                block,
                latency_ms=times.get(_structure(net.module.get_submodule(block.name), block.shape)),
            )
            for block in net.blocks
        )
        whole = {block.name: block.latency_ms or 0.0 for block in blocks}
        candidates = {}
        for name, found in net.candidates.items():
            block = net.block(name)
            timed = []
            for each in found:
                own = times[_structure(*self._candidate(net, each))]
                if each.scope == "attention":  # the block's other parts stay
                    share = 1 - block.attention_cost.macs / max(1, block.cost.macs)
                    own += whole[name] * share
                timed.append(replace(each, latency_ms=own))
            candidates[name] = tuple(timed)
        total = times[_structure(net.module, net.input_shape)]
        profile = {
            "device": "host",
            "threads": self.threads,
            "network_ms": total,
            # Blocks timed apart may sum to more than the network: then the rest is nothing.
            "rest_ms": max(0.0, total - sum(whole.values())),
        }
        note = (
            f"timed on this machine, {self.threads} threads: network {total:.1f} ms, of which "
            f"blocks {sum(whole.values()):.1f} ms"
        )
        changed = net.with_(
            blocks=blocks, candidates=candidates, metrics={**net.metrics, "profile": profile}
        )
        return PassResult(changed, True, (note,))


def _structure(module: nn.Module, shape: tuple[int, ...]) -> str:
    """Return a name that modules share when they compile to equal code."""
    parts = [(name, tuple(value.shape)) for name, value in module.state_dict().items()]
    options = []
    for each in module.modules():
        plain = {k: v for k, v in vars(each).items() if isinstance(v, _PLAIN) and k != "training"}
        options.append([type(each).__name__, plain])
    return f"{type(module).__name__} {shape} {digest([parts, options])}"
