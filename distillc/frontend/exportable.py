"""Helpers of other libraries that look at values for no reason, so that export fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor


@contextmanager
def exportable() -> Iterator[None]:
    """Within it, torchvision's `normalize` computes the same without asking for zeros in `std`."""
    module = sys.modules.get("torchvision.transforms._functional_tensor")
    if module is None:
        yield
        return
    with mock.patch.object(module, "normalize", _normalize):
        yield


def _normalize(
    tensor: Tensor,
    mean: Sequence[float] | Tensor,
    std: Sequence[float] | Tensor,
    inplace: bool = False,
) -> Tensor:
    """Subtract a mean from each channel and divide by a deviation."""
    shift, scale = (
        torch.as_tensor(each, dtype=tensor.dtype, device=tensor.device).reshape(-1, 1, 1)
        for each in (mean, std)
    )
    return tensor.sub_(shift).div_(scale) if inplace else (tensor - shift) / scale
