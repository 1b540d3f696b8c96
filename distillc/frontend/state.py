"""What a stranger's state dict must be before networks are built by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, strided

from distillc.errors import CheckpointError

LONGEST_NAME = 1000
"""Letters of a tensor's name; real ones have less than a hundred."""

GROWTH = 8
"""Bytes in float32 per byte of the file: tied weights, and numbers of one byte."""

SPARE = 2**26
"""Bytes that a small file may become beyond that."""

EMPTY = 2**16
"""Largest extent of a tensor without elements."""


def check_state(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what no training run saves and what would make a network of any size.

    1. Names are short, and count no farther than there are tensors: architectures are recognised
       by the largest number in them, and as many layers are built.
    2. Tensors are plain, and in float32 as large as the file: a view of one number can have any
       shape.
    3. A tensor without elements has no extent that would be believed.

    Raises:
        CheckpointError: Naming the tensor.
    """
    farthest = 4 * len(state) + 100
    room = GROWTH * path.stat().st_size + SPARE
    for name, value in state.items():
        if len(name) > LONGEST_NAME:  # rule 1
            raise _refused(f"a name has {len(name)} letters: {name}", path)
        for part in name.split("."):
            if part.isdecimal() and int(part[:20]) > farthest:
                raise _refused(f"{name} counts to {part}, in a file of {len(state)} tensors", path)
        _require_plain(name, value, path)  # rule 2
        size = 4 if value.is_floating_point() else value.element_size()
        room -= math.prod(value.shape) * size
        if room < 0:
            raise _refused(f"up to {name} the tensors take more than the file holds", path)
        if not value.numel() and max(value.shape) > EMPTY:  # rule 3
            raise _refused(f"{name} has no elements, and the shape {tuple(value.shape)}", path)


def _require_plain(name: str, value: Tensor, path: Path) -> None:
    for odd, kind, instead in (
        (value.is_meta, "on the meta device: the file has its shape and no numbers", META),
        (value.is_quantized, "quantised", "bring the weights from before the quantisation"),
        (value.is_nested, "nested", "save its parts as tensors of their own"),
        (value.layout is not strided, f"sparse ({value.layout})", "save value.to_dense() of it"),
    ):
        if odd:
            raise CheckpointError(
                f"{name} is not a plain tensor, it is {kind}", where=str(path), hint=instead
            )


META = "load the weights before saving: torch.save(model.state_dict(), path)"


def _refused(what: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is damaged or hostile: {what}",
        where=str(path),
        hint="save the state dict of the network again: torch.save(model.state_dict(), path)",
    )
