"""What a kind is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

import distillc
from distillc.network import Network

_Class = TypeVar("_Class", bound=type[nn.Module])


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        name: What is special about it, in a few words.
        module: Class of the network; it is made without arguments.
        found: Its blocks, as "2 window Block, 1 channel Block"; "" for none.
        refused: Words of the message that refuses it; "" where it goes through.
        shape: Shape of its input.
        options: Further keywords of `distillc.trace`.
    """

    name: str
    module: type[nn.Module]
    found: str
    refused: str = ""
    shape: tuple[int, int, int, int] = (1, 3, 32, 32)
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Network:
        """Return the network, of random weights."""
        torch.manual_seed(0)
        module = self.module().eval()
        return distillc.trace(module, torch.rand(self.shape), name=self.name, **self.options)


KINDS: dict[str, Kind] = {}
"""All kinds, by name, in the order of the table."""


def kind(name: str, found: str, **more: Any) -> Callable[[_Class], _Class]:
    """Return a decorator that lists a class of network as a `Kind`; `more` are its attributes."""

    def listed(module: _Class) -> _Class:
        if name in KINDS:
            raise ValueError(f"two kinds of the name {name!r}")
        KINDS[name] = Kind(name, module, found, **more)
        return module

    return listed
