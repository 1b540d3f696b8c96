"""Static facts of modules: parameters, multiply-accumulates of one inference, shapes.

Counted by torch's `FlopCounterMode` on meta tensors, so nothing is computed and image size does
not matter. Elementwise work is not counted, as is usual for these networks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
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
    """Return a module and inputs of these shapes without values: to run it costs nothing.

    Where a number is asked for, it is one, and masks are true everywhere.
    """
    # The counter asks what requires a gradient for its function, which views of weights lack here.
    twin = copy.deepcopy(module).to("meta").eval().requires_grad_(False)
    forward = twin.forward

    def guessing(*args: Any, **kwargs: Any) -> Any:
        with _Guesses():
            return forward(*args, **kwargs)

    twin.forward = guessing  # type: ignore[method-assign]
    return twin, [torch.empty(shape, device="meta") for shape in shapes]


class _Guesses(TorchDispatchMode):
    """Within it, tensors without values answer for them, and others meet them without theirs."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0 if args[0].is_floating_point() else 1
        inputs = (args, dict(kwargs or {}))
        if any(isinstance(each, torch.Tensor) and each.is_meta for each in tree_leaves(inputs)):
            # Networks that make grids or masks as they run make them on the CPU.
            inputs = tree_map_only(torch.Tensor, lambda each: each.to("meta"), inputs)
        args, kwargs = inputs
        with _config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
            return func(*args, **kwargs)
