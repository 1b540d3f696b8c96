"""What moves elements and computes nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator


@operator("view")
def permute(draw: Draw, x: Tensor) -> Layer:
    order = draw.order(x.dim())
    return Layer(described("permute", {"order": order}), lambda x: x.permute(order))


@operator("view")
def reshape(draw: Draw, x: Tensor) -> Layer:
    shape = draw.shape(x.numel(), draw.some(2, 5))
    return Layer(described("reshape", {"shape": shape}), lambda x: x.reshape(shape))


@operator("view")
def flatten(draw: Draw, x: Tensor) -> Layer:
    first = draw.some(0, x.dim() - 1)
    last = draw.some(first, x.dim() - 1)
    return Layer(described("flatten", {"axes": (first, last)}), lambda x: x.flatten(first, last))


@operator("view")
def unflatten(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    shape = draw.shape(x.shape[axis], 2)
    return Layer(
        described("unflatten", {"axis": axis, "shape": shape}), lambda x: x.unflatten(axis, shape)
    )


@operator("view")
def pixel_unshuffle(draw: Draw, x: Tensor) -> Layer:
    factor = draw.divisor(x.shape[2])
    return Layer(
        described("pixel_unshuffle", {"factor": factor}), lambda x: F.pixel_unshuffle(x, factor)
    )


@operator("view")
def pixel_shuffle(draw: Draw, x: Tensor) -> Layer:
    factor = draw.one(*(each for each in (1, 2, 3) if x.shape[1] % each**2 == 0))
    return Layer(
        described("pixel_shuffle", {"factor": factor}), lambda x: F.pixel_shuffle(x, factor)
    )


@operator("view")
def channel_shuffle(draw: Draw, x: Tensor) -> Layer:
    groups = draw.divisor(x.shape[1])
    return Layer(
        described("channel_shuffle", {"groups": groups}),
        lambda x: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2),
    )


@operator("view")
def roll(draw: Draw, x: Tensor) -> Layer:
    axes = draw.order(x.dim())[: draw.some(1, x.dim())]
    shifts = [draw.some(-x.shape[axis] - 1, x.shape[axis] + 1) for axis in axes]
    return Layer(
        described("roll", {"shifts": shifts, "axes": axes}), lambda x: torch.roll(x, shifts, axes)
    )


@operator("view")
def flip(draw: Draw, x: Tensor) -> Layer:
    axes = draw.order(x.dim())[: draw.some(1, x.dim())]
    return Layer(described("flip", {"axes": axes}), lambda x: x.flip(axes))


@operator("view")
def rot90(draw: Draw, x: Tensor) -> Layer:
    times = draw.some(-1, 3)
    return Layer(described("rot90", {"times": times}), lambda x: torch.rot90(x, times, (-2, -1)))


@operator("view")
def slices(draw: Draw, x: Tensor) -> Layer:
    parts = []
    for extent in x.shape:
        start, step = draw.some(0, extent - 1), draw.one(1, 1, 2, 3)
        whole = draw.chance(0.4)
        end = draw.some(start + 1, extent)
        end = end - extent if end < extent and draw.chance(0.5) else end
        parts.append(slice(None, None, step) if whole else slice(start, end or None, step))
    text = ", ".join(f"{p.start}:{p.stop}:{p.step}" for p in parts)
    return Layer(f"x[{text}]", lambda x: x[tuple(parts)])


@operator("view")
def select(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    index = draw.some(-x.shape[axis], x.shape[axis] - 1)
    return Layer(
        described("select", {"axis": axis, "index": index}), lambda x: x.select(axis, index)
    )


@operator("view")
def parts(draw: Draw, x: Tensor) -> Layer:
    """Split, change the order, put together again."""
    axis, count = draw.axis(x), draw.some(1, 4)
    way = draw.one("chunk", "tensor_split", "split", "unbind")

    def cut(x: Tensor) -> tuple[Tensor, ...]:
        if way == "unbind":
            return x.unbind(axis)
        return getattr(x, way)(count, axis)

    number = len(cut(x))
    order = draw.order(number)[: draw.some(1, number)]
    stack, act = draw.chance(0.3), draw.chance(0.5)

    def run(x: Tensor) -> Tensor:
        pieces = cut(x)
        chosen = [pieces[each] for each in order]
        if act:
            chosen[0] = torch.tanh(chosen[0])
        return torch.stack(chosen, axis) if stack else torch.cat(chosen, axis)

    given = {"way": way, "count": count, "axis": axis, "order": order, "stack": stack, "act": act}
    return Layer(described("parts", given), run)


@operator("view")
def pad(draw: Draw, x: Tensor) -> Layer:
    some = min(x.dim(), draw.some(1, 3))
    amounts = [draw.some(-1, 3) for _ in range(2 * some)]
    mode = draw.one("constant", "constant", "reflect", "replicate", "circular")
    value = draw.real(-1, 1) if mode == "constant" else None
    return Layer(
        described("pad", {"amounts": amounts, "mode": mode, "value": value}),
        lambda x: F.pad(x, amounts, mode, value),
    )


@operator("view")
def expand(draw: Draw, x: Tensor) -> Layer:
    way, times = draw.one("repeat", "expand", "interleave", "tile", "new axis"), draw.some(1, 3)
    axis = draw.some(0, x.dim() - 1)
    ways = {
        "repeat": lambda x: x.repeat([times if i == axis else 1 for i in range(x.dim())]),
        "expand": lambda x: x.mean(axis, keepdim=True).expand(x.shape),
        "interleave": lambda x: x.repeat_interleave(times, axis),
        "tile": lambda x: torch.tile(x, (times,)),
        "new axis": lambda x: x.unsqueeze(axis).expand(*x.shape[:axis], times, *x.shape[axis:]),
    }
    return Layer(described(way, {"axis": axis, "times": times}), ways[way])


@operator("view")
def unfold(draw: Draw, x: Tensor) -> Layer:
    """im2col, and its way back."""
    kernel, stride = (draw.some(1, 3), draw.some(1, 3)), (draw.some(1, 3), draw.some(1, 3))
    dilation, padding = draw.one(1, 1, 2), draw.some(0, 1)
    back = draw.chance(0.5)

    def run(x: Tensor) -> Tensor:
        y = F.unfold(x, kernel, dilation, padding, stride)
        return F.fold(y, x.shape[2:], kernel, dilation, padding, stride) if back else y

    given = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    return Layer(described("unfold + fold" if back else "unfold", given), run)


@operator("view")
def windows(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    size, step = draw.some(1, x.shape[axis]), draw.some(1, 4)
    return Layer(
        described("Tensor.unfold", {"axis": axis, "size": size, "step": step}),
        lambda x: x.unfold(axis, size, step),
    )


@operator("view")
def triangle(draw: Draw, x: Tensor) -> Layer:
    name, offset = draw.one("tril", "triu", "diagonal"), draw.some(-1, 1)
    return Layer(
        described(name, {"offset": offset}),
        lambda x: (
            x.diagonal(offset, -2, -1) if name == "diagonal" else getattr(torch, name)(x, offset)
        ),
    )


@operator("view")
def einsum(draw: Draw, x: Tensor) -> Layer:
    letters = "abcdef"[: x.dim()]
    kept = [letters[each] for each in draw.order(x.dim())[: draw.some(1, x.dim())]]
    text = f"{letters}->{''.join(kept)}"
    return Layer(described("einsum", {"text": text}), lambda x: torch.einsum(text, x) / 4)


@operator("view")
def write(draw: Draw, x: Tensor) -> Layer:
    """A part is changed in place."""
    axis = draw.some(0, x.dim() - 1)
    start = draw.some(0, x.shape[axis] - 1)
    end, step = draw.some(start + 1, x.shape[axis]), draw.some(1, 2)
    way = draw.one("half", "fill", "reversed")

    def run(x: Tensor) -> Tensor:
        y = x.clone()
        place = (slice(None),) * axis + (slice(start, end, step),)
        if way == "half":
            y[place] *= 0.5
        elif way == "fill":
            y[place] = 0.25
        else:
            y[place] = y[place].flip(axis)
        return y

    return Layer(described("write", {"axis": axis, "part": (start, end, step), "way": way}), run)
