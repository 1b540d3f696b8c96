"""Static facts of modules: parameters, multiply-accumulates of one inference, shapes.

Counted by torch's `FlopCounterMode` on meta tensors, so nothing is computed and image size does
not matter. Elementwise work is not counted, as is usual for these networks.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from distillc.network import Cost


def count_costs(module: nn.Module, *shapes: tuple[int, ...]) -> dict[str, Cost]:
    """Return the cost of a module (under `""`) and of each submodule, by its path.

    Args:
        module: Called with one float32 tensor per shape.
        shapes: Shapes of the inputs.
    """
    twin, inputs = on_meta(module, shapes)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        twin(*inputs)
    flops = {
        name.partition(".")[2] if name != "Global" else "": sum(counts.values())
        for name, counts in counter.flop_counts.items()
    }
    return {
        name: Cost(sum(each.numel() for each in part.parameters()), flops.get(name, 0) // 2)
        for name, part in twin.named_modules()
    }


def count_cost(module: nn.Module, *shapes: tuple[int, ...]) -> Cost:
    """Return the cost of a module as a whole; see `count_costs`."""
    return count_costs(module, *shapes)[""]


def output_shape(module: nn.Module, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a module's result; arguments as in `count_costs`."""
    twin, inputs = on_meta(module, shapes)
    with torch.no_grad():
        return tuple(twin(*inputs).shape)


def on_meta(
    module: nn.Module, shapes: Sequence[tuple[int, ...]]
) -> tuple[nn.Module, list[torch.Tensor]]:
    """Return a module and inputs of these shapes without values: to run it costs nothing."""
    twin = copy.deepcopy(module).to("meta").eval()
    return twin, [torch.empty(shape, device="meta") for shape in shapes]
