"""Feed-forwards and attentions of blocks, as weights that surrogates start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FEED_FORWARD = 2
"""Parts of a gated feed-forward: gate and value. One without a gate has one part."""
ATTENTION = 3
"""Parts of an attention: queries, keys and values."""

_EDGE = 3  # of the kernel that stands for no depthwise convolution


@dataclass(frozen=True)
class Branches:
    """W_out f(p_1, ..., p_n) + c,  p_1, ..., p_n = dw(W_in norm(x)) + b: n parts of K channels.

    Attributes:
        norm: Path in the block of the norm before it; None where the block has none.
        first: Path in the block of the layer that projects in.
        project_in: (n K, C, 1, 1), the rows of the first part first.
        dwconv: (n K, 1, k, k); one in the middle where the block has no such convolution.
        bias: b, (n K,).
        project_out: (C, K, 1, 1).
        out_bias: c, (C,).
        heads: Of the K channels, in each part.
    """

    norm: str | None
    first: str
    project_in: Tensor
    dwconv: Tensor
    bias: Tensor
    project_out: Tensor
    out_bias: Tensor
    heads: int = 1

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self.project_in) // self.project_out.shape[1]

    def narrow(self, hidden: int, first: int = 0, heads: int = 1) -> Branches:
        """Keep the channels whose weights are largest, at most so many, in their order.

        Args:
            hidden: K afterwards, at most.
            first: Parts before this one do not count.
            heads: A divisor of K before and after: equally many are kept in each of so many runs.
        """
        size = self.project_out.shape[1]
        gains = self.project_in.flatten(1).norm(dim=1) * self.dwconv.flatten(1).norm(dim=1)
        gains = gains.reshape(-1, size)
        importance = gains[first:].prod(0) * self.project_out.flatten(2).norm(dim=(0, 2))
        runs = importance.reshape(heads, -1)
        best = runs.topk(min(hidden, size) // heads).indices.sort().values
        best = (best + torch.arange(heads)[:, None] * runs.shape[1]).flatten()
        rows = torch.cat([best + part * size for part in range(self.parts)])
        return Branches(
            self.norm,
            self.first,
            self.project_in[rows],
            self.dwconv[rows],
            self.bias[rows],
            self.project_out[:, best],
            self.out_bias,
            heads,
        )


@dataclass(frozen=True)
class _Layer:
    """A convolution, or a linear layer as one of 1x1.

    Attributes:
        weight: (out, in / groups, k, k).
        bias: (out,).
        groups: Its groups.
        path: Of the module in the block.
    """

    weight: Tensor
    bias: Tensor
    groups: int
    path: str

    @property
    def is_depthwise(self) -> bool:
        return self.groups == len(self.weight) and self.weight.shape[1] == 1

    def maps(self, given: int, made: int | None = None) -> bool:
        """Whether it maps each pixel by itself, from so many channels to so many."""
        shape = (len(self.weight) if made is None else made, given, 1, 1)
        return self.groups == 1 and self.weight.shape == shape


def find_branches(block: nn.Module, channels: int, parts: int) -> Branches | None:
    """Find a feed-forward or an attention by its shapes, whatever the block's classes are.

    A 1x1 convolution or linear layer from C to n K channels, perhaps a depthwise convolution, one
    from K to C, in the order of the module's children: Restormer (section 3), NAFNet, the windows
    of Swin and what came of them. In an attention, queries, keys and values may have layers of
    their own, in this order, and others may stand before the last. In a feed-forward the depthwise
    convolution may be the value's alone (DAT, section 3.3). Of several the last counts.

    Args:
        block: A block.
        channels: C of its input and output.
        parts: `FEED_FORWARD` or `ATTENTION`.
    """
    layers = list(_layers(block))
    norms = _norms(block, channels)
    norm = None if not norms else norms[0] if parts == ATTENTION else norms[-1]
    for count in range(1, parts + 1) if parts == ATTENTION else [1]:
        for number in reversed(range(len(layers))):
            project_in, rest = _joined(layers[number:], channels, count)
            if project_in is None:
                continue
            wide = len(project_in[0])
            sizes = [wide // parts] if wide % parts == 0 else []
            if parts == FEED_FORWARD:
                rest = rest[:1]
                sizes += [wide] if wide > channels else []  # without a gate
            for last, size in ((last, size) for last in rest for size in sizes):
                if last.maps(size, channels):
                    heads = _find_heads(block, size) if parts == ATTENTION else 1
                    first = layers[number].path
                    return Branches(norm, first, *project_in, last.weight, last.bias, heads)
    return None


def _joined(
    layers: list[_Layer], channels: int, count: int
) -> tuple[tuple[Tensor, Tensor, Tensor] | None, list[_Layer]]:
    """Return W_in, dw and b of so many layers in a row, and the layers behind them."""
    made: list[tuple[Tensor, Tensor, Tensor]] = []
    while len(made) < count:
        if not layers or not layers[0].maps(channels):
            return None, layers
        first, *layers = layers
        depthwise = layers.pop(0) if layers and layers[0].is_depthwise else None
        kernel = _kernel(first, depthwise)
        if kernel is None or (made and made[0][1].shape[1:] != kernel.shape[1:]):
            return None, layers
        bias = first.bias * kernel.sum((1, 2, 3))  # what the convolution does to a flat image
        if depthwise is not None:
            bias[-len(depthwise.bias) :] += depthwise.bias
        made.append((first.weight, kernel, bias))
    weight, kernel, bias = map(torch.cat, zip(*made, strict=True))
    return (weight, kernel, bias), layers


def _kernel(first: _Layer, depthwise: _Layer | None) -> Tensor | None:
    """Return one kernel a channel; the depthwise convolution gives all or the last half."""
    wide = len(first.weight)
    if depthwise is not None and len(depthwise.weight) == wide:
        return depthwise.weight
    kernel = first.weight.new_zeros(wide, 1, _EDGE, _EDGE)
    kernel[:, :, _EDGE // 2, _EDGE // 2] = 1
    if depthwise is not None:
        own = depthwise.weight
        if 2 * len(own) != wide or own.shape[1:] != kernel.shape[1:]:
            return None
        kernel[-len(own) :] = own
    return kernel


def _layers(block: nn.Module) -> Iterator[_Layer]:
    for path, module in block.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight
            bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            yield _Layer(
                weight if weight.dim() == 4 else weight[:, :, None, None], bias, groups, path
            )


def _norms(block: nn.Module, channels: int) -> list[str]:
    """Return the paths of a block's norms over its channels, without those inside its parts."""
    paths = []
    for path, module in block.named_modules():
        weight = module._parameters.get("weight")
        if path and weight is not None and weight.shape == (channels,):
            paths.append(path)
    shallow = min((path.count(".") for path in paths), default=0)
    return [path for path in paths if path.count(".") == shallow]


def _find_heads(block: nn.Module, size: int) -> int:
    """Return how many heads an attention has: as its modules say, or as its temperatures do."""
    told = [
        value
        for module in block.modules()
        for name in ("num_heads", "heads", "n_heads")
        if type(value := getattr(module, name, None)) is int
    ]
    shapes = [weight.shape for weight in block.parameters() if weight.dim() == 3]
    told += [shape[0] for shape in shapes if shape[1:] == (1, 1)]
    return next((heads for heads in told if heads > 0 and size % heads == 0), 1)
