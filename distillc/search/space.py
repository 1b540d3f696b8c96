"""What a search chooses from: one label a block, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillc.errors import PassError, UsageError
from distillc.frontend.cost import count_cost
from distillc.network import KEEP, Block, Network, Surrogate

OBJECTIVES = {
    "transformers": "transformer blocks kept",
    "macs": "GMACs",
    "latency": "latency, ms",
}
"""What the cost can be, and how plots name it."""

FLOOR = 1e-6
"""Costs are kept this far from zero, so that a ratio means something when nothing is left."""

Choice = tuple[int, ...]
"""The number of each block's label."""


@dataclass(frozen=True)
class Option:
    """A label that a block can take.

    Attributes:
        label: `KEEP` or a surrogate's label.
        cost: What the block costs then, in the objective's unit.
        fidelity: Relative error of the surrogate's features, 0 for `KEEP`.
    """

    label: str
    cost: float
    fidelity: float


@dataclass(frozen=True)
class Space:
    """All hybrids of a network.

    Attributes:
        blocks: Names, in execution order.
        options: The options of each, the first of which is `KEEP`.
        allowed: The numbers of those that may be chosen.
        rest: Cost of what is in no block.
    """

    blocks: tuple[str, ...]
    options: tuple[tuple[Option, ...], ...]
    allowed: tuple[frozenset[int], ...]
    rest: float

    @property
    def keep(self) -> Choice:
        """The network as it is."""
        return (0,) * len(self.blocks)

    def allows(self, choice: Choice) -> bool:
        """Whether every option may be chosen."""
        return all(number in some for number, some in zip(choice, self.allowed, strict=True))

    def decisions(self, choice: Choice) -> dict[str, str]:
        """Return the label of each block."""
        picked = zip(self.blocks, self.options, choice, strict=True)
        return {block: options[number].label for block, options, number in picked}

    def choice(self, decisions: Mapping[str, str]) -> Choice:
        """Return the numbers of these labels."""
        return tuple(
            [option.label for option in options].index(decisions[block])
            for block, options in zip(self.blocks, self.options, strict=True)
        )

    def cost(self, choice: Choice) -> float:
        """Return the cost of the whole network."""
        picked = zip(self.options, choice, strict=True)
        return max(FLOOR, self.rest + sum(options[number].cost for options, number in picked))


def check_forced(net: Network, keep: Sequence[str], replace: Mapping[str, str]) -> None:
    """Check what is asked of blocks, as far as the network knows its blocks and candidates.

    Args:
        net: Before or after `FindAttention` and `SynthesizeSurrogates`.
        keep: Blocks that must stay.
        replace: Block -> the label that it must take.

    Raises:
        UsageError: No block or no surrogate has such a name (the message lists the known), or a
            block is to stay and to be replaced.
    """
    for name in replace:
        if name in keep:
            raise UsageError(f"block {name!r} is to be kept and to be replaced", where="--replace")
    try:
        for name in (*keep, *replace) if net.blocks else ():
            net.block(name)
        for name, label in replace.items() if net.candidates else ():
            net.surrogate(name, label)
    except PassError as error:
        raise UsageError(error.what, where="--keep or --replace", hint=error.hint) from error


def search_space(
    net: Network,
    objective: str,
    keep: Sequence[str] = (),
    replace: Mapping[str, str] | None = None,
) -> Space:
    """Return what can be chosen for a network.

    Args:
        net: With candidates, and latencies where the objective is `"latency"`.
        objective: One of `OBJECTIVES`.
        keep: Blocks that must stay.
        replace: Block -> the label that it must take.

    Raises:
        UsageError: See `check_forced`.
    """
    check_forced(net, keep, replace or {})
    forced = {**dict.fromkeys(keep, KEEP), **(replace or {})}
    options, allowed = [], []
    for block in net.blocks:
        offered = [Option(KEEP, _kept(block, objective), 0.0)]
        offered += [
            Option(each.label, _replaced(block, each, objective), each.fidelity or 0.0)
            for each in net.candidates.get(block.name, ())
        ]
        wanted = forced.get(block.name)
        options.append(tuple(offered))
        allowed.append(
            frozenset(n for n, each in enumerate(offered) if wanted in (None, each.label))
        )
    names = tuple(block.name for block in net.blocks)
    return Space(names, tuple(options), tuple(allowed), _rest(net, objective))


def _kept(block: Block, objective: str) -> float:
    costs: dict[str, Any] = {
        "transformers": 1.0,
        "macs": block.cost.macs / 1e9,
        "latency": block.latency_ms or 0.0,
    }
    return float(costs[objective])


def _replaced(block: Block, surrogate: Surrogate, objective: str) -> float:
    gone = block.cost.macs if surrogate.scope == "block" else block.attention_cost.macs
    costs: dict[str, Any] = {
        "transformers": 0.0,
        "macs": (block.cost.macs - gone + surrogate.cost.macs) / 1e9,
        "latency": surrogate.latency_ms or 0.0,
    }
    return float(costs[objective])


def _rest(net: Network, objective: str) -> float:
    if objective == "latency":
        return float(net.metrics["profile"]["rest_ms"])
    if objective == "macs":
        whole = count_cost(net.module, net.input_shape).macs
        return (whole - sum(block.cost.macs for block in net.blocks)) / 1e9
    return 0.0
