"""What the results of stages look like: how they are packed, and what makes one wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from safetensors.torch import load, save

T = TypeVar("T")


class Form(Protocol[T]):
    """How a value is kept."""

    def check(self, value: T) -> None:
        """Raise `ValueError` where a value is not of this form."""

    def pack(self, value: T) -> bytes: ...

    def unpack(self, content: bytes) -> T: ...


@dataclass(frozen=True)
class Tensors:
    """Named tensors, kept as safetensors.

    Args:
        like: Names, shapes and types that are expected. Values must be finite, except where these
            are not: some networks keep masks of infinities.
    """

    like: Mapping[str, torch.Tensor]

    def check(self, value: Mapping[str, torch.Tensor]) -> None:
        if value.keys() != self.like.keys():
            raise ValueError("holds other tensors")
        for name, tensor in value.items():
            like = self.like[name]
            if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
                raise ValueError(f"holds a tensor of another shape or type, {name}")
            if not (tensor.cpu().isfinite() | ~like.cpu().isfinite()).all():
                raise ValueError(f"holds numbers that are not finite, in {name}")

    def pack(self, value: Mapping[str, torch.Tensor]) -> bytes:
        plain = {name: each.detach().cpu().contiguous().clone() for name, each in value.items()}
        return save(plain)

    def unpack(self, content: bytes) -> Mapping[str, torch.Tensor]:
        return load(content)


@dataclass(frozen=True)
class Times:
    """Milliseconds by name, kept as JSON.

    Args:
        names: The names that are expected.
    """

    names: Collection[str]

    def check(self, value: Mapping[str, float]) -> None:
        if set(value) != set(self.names):
            raise ValueError("holds other names")
        if not all(0 <= each < math.inf for each in value.values()):
            raise ValueError("holds what is not a time")

    def pack(self, value: Mapping[str, float]) -> bytes:
        return json.dumps(value, indent=2, sort_keys=True).encode()

    def unpack(self, content: bytes) -> Mapping[str, float]:
        found: dict[str, float] = json.loads(content)
        return found
