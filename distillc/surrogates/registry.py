"""The families by name, and the specs that choose among them: `family[:key=value,...]`.

A label is a spec with a scope: `scan1` for a whole block, `scan1@attention` for only the attention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillc.errors import UsageError
from distillc.network import Scope
from distillc.surrogates.conv import ConvSurrogate
from distillc.surrogates.scan import ScanSurrogate
from distillc.surrogates.skip import SkipSurrogate
from distillc.surrogates.stand_in import StandIn


@dataclass(frozen=True)
class Family:
    """A surrogate family.

    Attributes:
        name: The name specs use.
        does: One line for the user.
        defaults: Hyper-parameters and their defaults.
        limits: Hyper-parameter -> largest value.
        build: (channels, whole_block, hyper-parameters) -> module.
        start: (module, block that it replaces): gives it weights to start from.
    """

    name: str
    does: str
    defaults: Mapping[str, int]
    limits: Mapping[str, int]
    build: Callable[[int, bool, Mapping[str, int]], StandIn]
    start: Callable[[Any, nn.Module], None] | None = None


def _scan(directions: int) -> Callable[[int, bool, Mapping[str, int]], StandIn]:
    def build(channels: int, whole_block: bool, options: Mapping[str, int]) -> StandIn:
        return ScanSurrogate(
            channels, whole_block, directions, options["state"], options["expansion"]
        )

    return build


def _ssd(channels: int, whole_block: bool, options: Mapping[str, int]) -> StandIn:
    inner = channels * options["expansion"]
    head = next(size for size in range(min(16, inner), 0, -1) if inner % size == 0)
    return ScanSurrogate(
        channels, whole_block, options["directions"], options["state"], options["expansion"], head
    )


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "conv",
            "gated depthwise convolution, no state space",
            {"width": 100},
            {"width": 400},
            lambda channels, whole, options: ConvSurrogate(channels, whole, options["width"]),
            ConvSurrogate.start_from,
        ),
        Family(
            "skip",
            "nothing: the block is left out, and the others make up for it",
            {},
            {},
            lambda channels, whole, options: SkipSurrogate(whole),
        ),
        Family(
            "scan1",
            "one selective scan along rows",
            {"state": 1, "expansion": 1},
            {"state": 4, "expansion": 2},
            _scan(1),
        ),
        Family(
            "scan2",
            "rows scanned both ways",
            {"state": 1, "expansion": 1},
            {"state": 4, "expansion": 2},
            _scan(2),
        ),
        Family(
            "ss2d",
            "rows and columns scanned both ways: the quality ceiling, slow",
            {"state": 16, "expansion": 2},
            {"state": 16, "expansion": 2},
            _scan(4),
        ),
        Family(
            "ssd",
            "Mamba-2: one decay rate per head",
            {"state": 8, "expansion": 1, "directions": 1},
            {"state": 64, "expansion": 2, "directions": 4},
            _ssd,
        ),
    )
}


def parse_spec(spec: str) -> tuple[Family, dict[str, int]]:
    """Return the family and the hyper-parameters that a spec names.

    Raises:
        UsageError: Unknown family or hyper-parameter, or a value out of range.
    """
    name, _, text = spec.partition(":")
    if name not in FAMILIES:
        raise UsageError(
            f"unknown surrogate family {name!r}", hint=f"known families: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    options = dict(family.defaults)
    for word in filter(None, text.split(",")):
        key, _, value = word.partition("=")
        if key not in options:
            known = ", ".join(options) or "none"
            raise UsageError(
                f"family {name!r} has no hyper-parameter {key!r}", hint=f"it has: {known}"
            )
        limit = family.limits[key]
        if not re.fullmatch("[0-9]{1,9}", value) or not 1 <= int(value) <= limit:
            raise UsageError(
                f"{key}={value!r} is out of range in {spec!r}", hint=f"1 to {limit} is allowed"
            )
        options[key] = int(value)
    return family, options


def canonical_spec(spec: str) -> str:
    """Return the spec with defaults left out and keys sorted: one text for one surrogate."""
    family, options = parse_spec(spec)
    words = [
        f"{key}={value}" for key, value in sorted(options.items()) if value != family.defaults[key]
    ]
    return family.name + (f":{','.join(words)}" if words else "")


def parse_label(label: str) -> tuple[str, Scope]:
    """Return the canonical spec and the scope that a label names: `spec` or `spec@attention`.

    Raises:
        UsageError: See `parse_spec`; or the scope is neither `block` nor `attention`.
    """
    spec, _, scope = label.partition("@")
    if scope == "attention":
        return canonical_spec(spec), "attention"
    if scope in ("", "block"):
        return canonical_spec(spec), "block"
    raise UsageError(f"unknown scope {scope!r} in {label!r}", hint="known: @block, @attention")


def canonical_label(label: str) -> str:
    """Return the label with its spec in canonical form, as `Surrogate.label` has it.

    Raises:
        UsageError: See `parse_label`.
    """
    spec, scope = parse_label(label)
    return spec if scope == "block" else f"{spec}@{scope}"


def build_surrogate(
    spec: str, channels: int, scope: Scope = "block", seed: int = 0, block: nn.Module | None = None
) -> StandIn:
    """Build a surrogate (B, channels, H, W) -> the same, float32, in eval mode.

    A new one returns its input (scope `"block"`) or zero (scope `"attention"`): training starts
    from there, or from the block's own weights where the family can use them. Equal seeds give
    equal weights; torch's global generator is left alone.

    Args:
        spec: Family and hyper-parameters.
        channels: Channels of the input and output.
        scope: What it replaces.
        seed: Seed of the weights.
        block: The whole block that it replaces; None starts from scratch.

    Raises:
        UsageError: See `parse_spec`.
    """
    family, options = parse_spec(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        surrogate = family.build(channels, scope == "block", options).eval()
    if block is not None and scope == "block" and family.start:
        family.start(surrogate, block)
    return surrogate
