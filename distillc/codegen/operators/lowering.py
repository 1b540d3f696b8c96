"""What the conversion of an operator may ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from distillc.targets.base import Target


@dataclass(frozen=True)
class Lowering:
    """A program on its way into Relax.

    Attributes:
        target: What it is compiled for.
        constants: Returns the value of each node that depends on weights alone.
    """

    target: Target
    constants: Callable[[], dict[fx.Node, torch.Tensor]]
