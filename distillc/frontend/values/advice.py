"""What stands in the way of a network whose Python looks at values, and what would do instead."""

from __future__ import annotations

import re

from torch import Tensor

from distillc.errors import reason
from distillc.frontend.values.answering import TRUTHS
from distillc.frontend.values.recording import Read
from distillc.frontend.values.settle import Settled


def why_not(error: Exception, settled: Settled) -> str:
    """Say why a module cannot be exported.

    Args:
        error: What `torch.export` raised.
        settled: What `settle` made of the module.
    """
    if settled.open:
        read = settled.open[0]
        more = len(settled.open) - 1
        also = f", and so do {more} more lines" if more > 1 else ", and so does one more line"
        return (
            f"its Python depends on tensor values of the image, here {shown(read)}: "
            f"`{read.place.source}`" + also * bool(more)
        )
    return reason(error, longest=300)


def instead(error: Exception, settled: Settled) -> str:
    """Say which change would do; arguments as of `why_not`."""
    if not settled.open:
        if _is_about_values(error):
            return KEEP_SIZES
        return "`torch.export.export(module, (image,))` shows the whole error"
    function, source = settled.open[0].function, settled.open[0].place.source
    if "range(" in source:
        return (
            "loop as often as is ever needed, and choose by torch.where(i < n, after, before) with "
            "a tensor n; " + SPECIALISE
        )
    if function in TRUTHS:
        return (
            "compute both and choose by torch.where(condition, a, b); leave the line out if it is "
            "there for training or for other inputs; " + SPECIALISE
        )
    if function in (Tensor.numpy, Tensor.__array__):
        return "compute it with torch, or once in __init__ if it is the same for every image"
    return (
        "keep the tensor, with torch.floor(x) for int(x): experts[i] of an nn.ModuleList and "
        "mask[..., a:b] = 1 take tensors; " + KEEP_SIZES
    )


SPECIALISE = "or fix it as it is for one image: --specialise IMAGE"

KEEP_SIZES = (
    "keep sizes that no value changes: multiply by a mask instead of a crop, keep a fixed ratio of "
    "tokens (scores.topk(n // 2)), run every expert and weigh the results with gates that are 0; "
    + SPECIALISE
)
"""What does instead of sizes that depend on values."""


def _is_about_values(error: Exception) -> bool:
    return re.search("data-dependent|dynamic|unbacked", str(error), re.IGNORECASE) is not None


def shown(read: Read) -> str:
    """Return what a value was, briefly."""
    if isinstance(read.value, bool | int | float):
        return f"{read.value:.4g}" if isinstance(read.value, float) else str(read.value)
    values = read.value if isinstance(read.value, tuple) else (read.value,)
    return f"an array {', '.join(str(tuple(each.shape)) for each in values)}"
