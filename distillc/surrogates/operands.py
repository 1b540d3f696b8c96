"""The check of what the operators of scans are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from distillc.errors import UsageError


def unfit(scan: str, what: str) -> UsageError:
    """Return the error for operands that do not fit.

    Args:
        scan: The operator and its file's name, say `"selective_scan"`.
        what: What is wrong.
    """
    return UsageError(
        f"the operands of torch.ops.distillc.{scan} do not fit: {what}",
        where=f"torch.ops.distillc.{scan}",
        hint=f"its docstring in distillc/surrogates/{scan}.py lists the shapes",
    )


def check_operands(
    scan: str, device: torch.device, operands: Iterable[tuple[str, Tensor | None, Sequence[int]]]
) -> None:
    """Check shapes, types and devices: kernels take bare addresses and would read past the end.

    Args:
        scan: As in `unfit`.
        device: Where all operands must be.
        operands: Names, tensors and the shapes that they must have; what is not given is None.

    Raises:
        UsageError: One does not fit.
    """
    for name, tensor, shape in operands:
        if tensor is None:
            continue
        if tuple(tensor.shape) != tuple(shape):
            raise unfit(scan, f"{name} must be {tuple(shape)}, not {tuple(tensor.shape)}")
        if tensor.dtype != torch.float32 or tensor.device != device:
            given = f"{tensor.dtype} on {tensor.device}"
            raise unfit(scan, f"{name} must be torch.float32 on {device}, not {given}")
