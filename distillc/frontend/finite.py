"""Weights that are not numbers: a network that has some is damaged, and restores nothing."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from distillc.errors import CheckpointError

MOST = 4
"""Names in a message."""

STATISTICS = ("running_mean", "running_var")
"""Buffers that are weights all the same: what a normalisation learned."""


def check_finite(module: nn.Module, where: str | None = None) -> None:
    """Refuse weights that are NaN or infinite.

    A parameter must be finite, and so must the statistics of a normalisation. Another buffer may be
    infinite, as masks of attention are, but not NaN.

    Args:
        module: A network.
        where: The file it came from, for messages.

    Raises:
        CheckpointError: Some are not; the message names the first.
    """
    weights: list[tuple[str, Tensor]] = list(module.named_parameters())
    constants: list[tuple[str, Tensor]] = []
    for name, tensor in module.named_buffers():
        (weights if name.rpartition(".")[2] in STATISTICS else constants).append((name, tensor))
    check_weights(weights, constants, where)


def check_weights(
    weights: Iterable[tuple[str, Tensor]],
    constants: Iterable[tuple[str, Tensor]],
    where: str | None = None,
) -> None:
    """Refuse weights that are not finite, and other constants that hold NaN, all by name.

    Raises:
        CheckpointError: Some are damaged; the message names the first.
    """
    bad = [name for name, tensor in weights if _has_numbers(tensor) and not tensor.isfinite().all()]
    bad += [name for name, tensor in constants if _has_numbers(tensor) and tensor.isnan().any()]
    if bad:
        some = ", ".join(bad[:MOST]) + (", ..." if len(bad) > MOST else "")
        tensors = "1 tensor" if len(bad) == 1 else f"{len(bad)} tensors"
        raise CheckpointError(
            f"NaN or infinite weights in {tensors}: {some}",
            where=where,
            hint="the training diverged or the file is damaged: take an earlier checkpoint",
        )


def _has_numbers(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_meta
