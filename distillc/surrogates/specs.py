"""Specs, which choose a family and its options: `family[:key=value,...]`.

A label is a spec with a scope: `mamba` for a whole block, `mamba@attention` for only the attention.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from distillc.errors import UsageError
from distillc.network import Scope
from distillc.surrogates.family import FAMILIES, Family
from distillc.surrogates.stand_in import StandIn


def parse_spec(spec: str) -> tuple[Family, dict[str, int]]:
    """Return the family and the hyper-parameters that a spec names.

    Raises:
        UsageError: Unknown hyper-parameter, a value out of range, or see `Registry.find`.
    """
    name, _, text = spec.partition(":")
    family = FAMILIES.find(name)
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
    if block is not None and family.start:
        family.start(surrogate, block)
    return surrogate
