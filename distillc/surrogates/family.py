"""What a surrogate family is: a name, hyper-parameters, and how a module is built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from distillc.registry import Registry
from distillc.surrogates.stand_in import StandIn


@dataclass(frozen=True)
class Family:
    """A surrogate family.

    Attributes:
        name: The name that specs use.
        does: One line for the user.
        build: (channels, whole block or attention inside one, hyper-parameters) -> a module
            (B, channels, H, W) -> the same, float32. A new one returns its input, or zero in the
            place of an attention, whose sum stands outside.
        defaults: Hyper-parameters and their defaults.
        limits: Hyper-parameter -> largest value; the smallest is 1.
        start: (module, block that it replaces): gives it weights to start from.
    """

    name: str
    does: str
    build: Callable[[int, bool, Mapping[str, int]], StandIn]
    defaults: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    start: Callable[[Any, nn.Module], None] | None = None

    def __post_init__(self) -> None:
        if self.defaults.keys() != self.limits.keys():
            raise ValueError(
                f"family {self.name}: every hyper-parameter needs a default and a limit"
            )


def _accept(found: Any) -> Family:
    if not isinstance(found, Family):
        raise TypeError("it is not a Family")
    return found


FAMILIES = Registry(
    "distillc.families",
    "surrogate family",
    _accept,
    lambda family: family.name,
    gone={**dict.fromkeys(("scan1", "scan2", "ss2d"), "mamba"), "fixed": "ssd"},
)
"""The families by name. An entry point names a `Family`."""
