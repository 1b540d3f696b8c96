"""ONNX operators that are layers: products, norms, windows, changes of size."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillc.frontend.onnx_graph.operator import (
    Attributes,
    Function,
    Known,
    Operator,
    check_supported,
    integers,
    plain,
)

CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d}
TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d}
AVERAGES = {3: F.avg_pool1d, 4: F.avg_pool2d}
LARGEST = {3: F.max_pool1d, 4: F.max_pool2d}
INTERPOLATIONS = {
    ("linear", "half_pixel"): ("bilinear", False),
    ("linear", "pytorch_half_pixel"): ("bilinear", False),
    ("linear", "align_corners"): ("bilinear", True),
    ("cubic", "half_pixel"): ("bicubic", False),
    ("cubic", "pytorch_half_pixel"): ("bicubic", False),
    ("cubic", "align_corners"): ("bicubic", True),
}
"""Mode and coordinates of Resize to torch's mode and `align_corners`."""


def _margins(x: Tensor, window: Sequence[int], attributes: Attributes) -> list[int]:
    """Return the padding of a window as ONNX lists it: all that come first, then all last."""
    given, strides = attributes.get("pads"), attributes.get("strides") or [1] * len(window)
    policy = attributes.get("auto_pad", "NOTSET")
    if policy in ("NOTSET", "VALID"):
        return list(given or [0] * 2 * len(window))
    dilations = attributes.get("dilations") or [1] * len(window)
    missing = [
        max(0, (-(-size // stride) - 1) * stride + (extent - 1) * dilation + 1 - size)
        for size, extent, stride, dilation in zip(
            x.shape[2:], window, strides, dilations, strict=True
        )
    ]
    small, large = [each // 2 for each in missing], [-(-each // 2) for each in missing]
    return small + large if policy == "SAME_UPPER" else large + small


def _conv(attributes: Attributes) -> Function:
    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        margins = _margins(x, weight.shape[2:], attributes)
        axes = len(margins) // 2
        padding, after = margins[:axes], margins[axes:]
        if padding != after:
            sides = [each for pair in zip(padding, after, strict=True) for each in pair]
            x = F.pad(x, [sides[i + j] for i in range(2 * axes - 2, -1, -2) for j in (0, 1)])
            padding = [0] * axes
        return CONVOLUTIONS[x.dim()](
            x,
            weight,
            bias,
            attributes.get("strides") or [1] * axes,
            padding,
            attributes.get("dilations") or [1] * axes,
            attributes.get("group", 1),
        )

    rank = len(attributes.get("kernel_shape") or [1, 1])
    check_supported(rank + 2 in CONVOLUTIONS, f"has a window of {rank} axes")
    return conv


def _conv_transpose(attributes: Attributes) -> Function:
    check_supported(not attributes.get("output_shape"), "gives the shape of its output")
    check_supported(attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"), "pads by itself")
    pads = list(attributes.get("pads") or [])
    check_supported(pads[: len(pads) // 2] == pads[len(pads) // 2 :], "pads its sides differently")

    def conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        axes = x.dim() - 2
        return TRANSPOSED[x.dim()](
            x,
            weight,
            bias,
            attributes.get("strides") or [1] * axes,
            pads[:axes] or [0] * axes,
            attributes.get("output_padding") or [0] * axes,
            attributes.get("group", 1),
            attributes.get("dilations") or [1] * axes,
        )

    return conv_transpose


def _gemm(attributes: Attributes) -> Function:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)

    def gemm(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        left = a.t() if attributes.get("transA") else a
        right = b.t() if attributes.get("transB") else b
        product = left @ right
        product = product if alpha == 1 else product * alpha
        if c is None:
            return product
        return product + (c if beta == 1 else c * beta)

    return gemm


def _einsum(attributes: Attributes) -> Function:
    return functools.partial(torch.einsum, attributes["equation"])


def _softmax(attributes: Attributes) -> Function:
    return functools.partial(torch.softmax, dim=attributes.get("axis", -1))


def _layer_norm(attributes: Attributes) -> Function:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)

    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, list(x.shape[axis:]), weight, bias, epsilon)

    return layer_norm


def _batch_norm(attributes: Attributes) -> Function:
    check_supported(not attributes.get("training_mode"), "is in training mode")
    epsilon = attributes.get("epsilon", 1e-5)

    def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, scale, bias, eps=epsilon)

    return batch_norm


def _instance_norm(attributes: Attributes) -> Function:
    epsilon = attributes.get("epsilon", 1e-5)

    def instance_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)

    return instance_norm


def _group_norm(attributes: Attributes) -> Function:
    groups, epsilon = attributes["num_groups"], attributes.get("epsilon", 1e-5)

    def group_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return F.group_norm(x, groups, scale, bias, epsilon)

    return group_norm


def _pool(functions: dict[int, Any], names: Sequence[str]) -> Operator:
    def build(attributes: Attributes) -> Function:
        window = attributes["kernel_shape"]
        check_supported(len(window) + 2 in functions, f"has a window of {len(window)} axes")
        averages = "count_include_pad" in names
        check_supported(
            not averages or set(attributes.get("dilations", [1])) == {1}, "has dilations"
        )
        options = {name: attributes[name] for name in names if name in attributes}
        if averages:
            options["count_include_pad"] = bool(options.get("count_include_pad", 0))
        if "dilations" in options:
            options["dilation"] = options.pop("dilations")
        if attributes["outputs"] > 1:
            check_supported(not attributes.get("storage_order"), "counts places by columns")
            options["return_indices"] = True

        def pool(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            margins = _margins(x, window, attributes)
            before, after = margins[: len(window)], margins[len(window) :]
            check_supported(before == after, "pads its sides differently")
            strides = attributes.get("strides") or [1] * len(window)
            ceil = bool(attributes.get("ceil_mode", 0))
            result: Tensor | tuple[Tensor, Tensor] = functions[x.dim()](
                x, window, strides, before, ceil_mode=ceil, **options
            )
            if isinstance(result, Tensor):
                return result
            largest, places = result  # ONNX counts them in the whole tensor, torch in each image
            images = torch.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(window))
            return largest, places + images * math.prod(x.shape[2:])

        return pool

    return Operator(build)


def _unpool(attributes: Attributes) -> Function:
    def unpool(x: Tensor, places: Tensor, shape: Known | None = None) -> Tensor:
        window, pads = attributes["kernel_shape"], attributes.get("pads") or [0] * 2 * (x.dim() - 2)
        strides = attributes.get("strides") or [1] * len(window)
        edges = zip(x.shape[2:], window, strides, pads, pads[len(window) :], strict=False)
        size = integers(shape) or [
            *x.shape[:2],
            *((n - 1) * step + own - before - after for n, own, step, before, after in edges),
        ]
        filled = x.new_zeros(math.prod(size)).scatter(0, places.reshape(-1), x.reshape(-1))
        return filled.reshape(size)

    return unpool


def _resize(attributes: Attributes) -> Function:
    mode = attributes.get("mode", "nearest")
    place = attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    chosen = INTERPOLATIONS.get((mode, place))
    check_supported(mode == "nearest" or chosen is not None, f"is {mode} with {place} coordinates")
    check_supported(not attributes.get("antialias"), "smooths what it makes smaller")
    check_supported(not attributes.get("exclude_outside"), "leaves out what is outside")
    cubic = attributes.get("cubic_coeff_a", -0.75)
    check_supported(mode != "cubic" or cubic == -0.75, f"is cubic with a = {cubic}")
    stretch = attributes.get("keep_aspect_ratio_policy", "stretch")
    check_supported(stretch == "stretch", "keeps the aspect ratio")

    def resize(
        x: Tensor, _: Known | None = None, scales: Known | None = None, sizes: Known | None = None
    ) -> Tensor:
        axes = [each % x.dim() for each in attributes.get("axes") or range(x.dim())]
        wanted = list(map(float, x.shape))
        for index, axis in enumerate(axes):
            if sizes is not None and sizes.size:
                wanted[axis] = float(sizes[index])
            elif scales is not None:
                wanted[axis] *= float(scales[index])
        extents = [round(each) for each in wanted]
        close = all(abs(each - extent) < 1e-3 for each, extent in zip(wanted, extents, strict=True))
        check_supported(close, f"scales {tuple(x.shape)} to parts of pixels")
        check_supported(
            x.dim() == 4 and extents[:2] == list(x.shape[:2]), "resizes more than an image"
        )
        if chosen:
            return F.interpolate(x, extents[2:], mode=chosen[0], align_corners=chosen[1])
        # Torch's own is asymmetric and rounds down: every way is the same for whole factors.
        whole = all(new % old == 0 for new, old in zip(extents, x.shape, strict=True))
        usual = (place, rounding) == ("asymmetric", "floor")
        centred = place in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        check_supported(
            usual or (centred and whole), f"is nearest with {place} coordinates, {rounding}"
        )
        return F.interpolate(x, extents[2:], mode="nearest")

    return resize


def _global(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


OPERATORS: dict[str, Operator] = {
    "AveragePool": _pool(AVERAGES, ["count_include_pad"]),
    "BatchNormalization": Operator(_batch_norm),
    "Conv": Operator(_conv),
    "ConvTranspose": Operator(_conv_transpose),
    "Einsum": Operator(_einsum),
    "Gemm": Operator(_gemm),
    "GlobalAveragePool": plain(lambda x: x.mean(_global(x), keepdim=True)),
    "GlobalMaxPool": plain(lambda x: x.amax(_global(x), keepdim=True)),
    "GroupNormalization": Operator(_group_norm),
    "InstanceNormalization": Operator(_instance_norm),
    "LayerNormalization": Operator(_layer_norm),
    "MatMul": plain(torch.matmul),
    "MaxPool": _pool(LARGEST, ["dilations"]),
    "MaxUnpool": Operator(_unpool, known=(2,)),
    "Resize": Operator(_resize, known=(1, 2, 3)),
    "Softmax": Operator(_softmax),
}
"""By the names of the ONNX operators."""
