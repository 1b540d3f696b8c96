"""What Python does with numbers that depend on the image, done with tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn


@contextmanager
def gathered_experts(tell: Callable[[int], None]) -> Iterator[None]:
    """Within it, a tensor that indexes a list of modules runs all and takes one result.

    Args:
        tell: Gets the number of modules each time.

    Given:   expert = experts[i]; y = expert(x)
    Result:  y = stack([expert(x) for expert in experts])[i]
    """
    natural = nn.ModuleList.__getitem__

    def chosen(self: nn.ModuleList, index: Any) -> Any:
        if not isinstance(index, Tensor):
            return natural(self, index)
        tell(len(self))
        return _Chosen(self, index)

    with mock.patch.object(nn.ModuleList, "__getitem__", chosen):
        yield


class _Chosen:
    """One of several modules, where nobody knows yet which."""

    def __init__(self, modules: nn.ModuleList, index: Tensor) -> None:
        self.modules = modules
        self.index = index

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        results = torch.stack([each(*args, **kwargs) for each in self.modules])
        return _selected(results, 0, self.index)


def read_at(tensor: Tensor, index: Any) -> Tensor | None:
    """Return `tensor[index]` where tensors of one element stand for numbers, None for any other."""
    parts = _parts(tensor, index)
    if not parts or not any(map(_is_number, parts)):
        return None
    if any(isinstance(each, Tensor) and not _is_number(each) for each in parts):
        return None
    if any(map(_has_tensors, parts)):
        return None
    read = tensor[tuple(slice(None) if _is_number(each) else each for each in parts)]
    kept = [each for each in parts if not isinstance(each, int)]
    for axis in reversed(range(len(kept))):
        if _is_number(kept[axis]):
            read = _selected(read, axis, kept[axis])
    return read


def write_at(tensor: Tensor, index: Any, value: Any) -> bool:
    """Do `tensor[index] = value` by a mask where tensors bound slices; return whether it was.

    Given:   x[..., a:b] = value
    Result:  x = where((places >= a) & (places < b), value, x)
    """
    parts = _parts(tensor, index)
    if not parts or not any(map(_has_tensors, parts)):
        return False
    if any(isinstance(each, Tensor) for each in parts):
        return False
    if any(_has_tensors(each) and each.step not in (None, 1) for each in parts):
        return False
    part = tensor[tuple(slice(None) if _has_tensors(each) else each for each in parts)]
    inside = torch.ones((), dtype=torch.bool, device=tensor.device)
    kept = [each for each in parts if not isinstance(each, int)]
    for axis, each in enumerate(kept):
        if _has_tensors(each):
            extent = part.shape[axis]
            places = torch.arange(extent, device=tensor.device)
            start, stop = _bound(each.start, 0, extent), _bound(each.stop, extent, extent)
            within = torch.logical_and(places >= start, places < stop)
            within = within.view(-1, *[1] * (part.dim() - axis - 1))
            inside = torch.logical_and(inside, within)
    value = torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
    part.copy_(torch.where(inside, value, part))
    return True


def _parts(tensor: Tensor, index: Any) -> list[Any] | None:
    """Return one index for every axis that is there or made; None where they are of other kinds."""
    parts = list(index) if isinstance(index, tuple) else [index]
    known = (type(None), type(...), slice, Tensor)
    if not all(type(each) is int or isinstance(each, known) for each in parts):
        return None
    counted = sum(each is not None and each is not ... for each in parts)
    rest = [slice(None)] * (tensor.dim() - counted)
    where = next((i for i, each in enumerate(parts) if each is ...), len(parts))
    return parts[:where] + rest + parts[where + 1 :]


def _is_number(part: Any) -> bool:
    whole = isinstance(part, Tensor) and part.dim() == 0
    return whole and not part.is_floating_point() and part.dtype != torch.bool


def _has_tensors(part: Any) -> bool:
    return isinstance(part, slice) and isinstance(part.start, Tensor) | isinstance(
        part.stop, Tensor
    )


def _selected(tensor: Tensor, axis: int, index: Tensor) -> Tensor:
    at = index.reshape(1).long()
    at = torch.where(at < 0, at + tensor.shape[axis], at)
    return tensor.index_select(axis, at).squeeze(axis)


def _bound(bound: Any, otherwise: int, extent: int) -> Any:
    if not isinstance(bound, Tensor):
        return otherwise if bound is None else bound + extent if bound < 0 else bound
    bound = bound.reshape(())
    return torch.where(bound < 0, bound + extent, bound)
