"""What a module is, as a name: its classes, their code, its options and its parts.

Two modules of equal structure compile to equal code. `module_digest` adds the values of tensors:
two modules of one digest compute the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from distillc.workdir import digest

_PLAIN = (bool, int, float, str, type(None))
_TORCH = "torch."
_STATE = ("_parameters", "_buffers", "_modules")
"""What an fx module has besides its code."""
_UNTOLD = {"__dict__", "__doc__", "__module__", "__weakref__", "__annotations__", "_abc_impl"}
"""Attributes of classes that decide nothing."""


def structure_digest(module: nn.Module) -> str:
    """Return 16 hex digits that modules share which differ in the values of their tensors only."""
    return digest(_Description(values=False).of(module))


def module_digest(module: nn.Module) -> str:
    """Return 16 hex digits that name a module: its structure, and every tensor that it holds."""
    return digest(_Description(values=True).of(module))


class _Description:
    """Describes objects by JSON values that are equal in every process.

    1. Numbers and texts stand for themselves; containers are described item by item.
    2. A tensor is its type and shape, and what it holds where `values` says so.
    3. A function is its code and what it remembers, one of torch is its name. What it calls by a
       global name is not seen.
    4. A module is its class, the code of its class unless that is torch's, and its attributes; an
       fx module is its code and its tensors.
    5. Every other object is what pickle would make it from; one that cannot be pickled (a lock, an
       open file) is its class, and its name if it has one.
    6. An object that was described before is a number.
    """

    def __init__(self, values: bool) -> None:
        self._values = values
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # or an address could be used again

    def of(self, value: Any) -> Any:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:  # rule 1
            return value
        if isinstance(value, bytes):
            return ["bytes", hashlib.sha256(value).hexdigest()]
        if isinstance(value, (type, BuiltinFunctionType)):
            return ["name", _name(value)]
        if isinstance(value, (OpOverload, OpOverloadPacket)):
            return ["name", str(value)]
        if type(value) in (tuple, torch.Size):
            return ["tuple", self._all(value)]
        if id(value) in self._seen:  # rule 6
            return ["again", self._seen[id(value)]]
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return self._compound(value)

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, (property, staticmethod, classmethod)):
            parts = ("fget", "fset", "__func__")
            return [type(value).__name__, *(self.of(getattr(value, each, None)) for each in parts)]
        if isinstance(value, CodeType):
            return [value.co_code.hex(), self._all(value.co_consts), list(value.co_names)]
        if type(value) is list:
            return ["list", self._all(value)]
        if type(value) in (set, frozenset):
            return ["set", sorted(digest(each) for each in self._all(value))]
        if type(value) is dict:
            return ["dict", self._pairs(value)]
        return self._pickled(value)

    def _tensor(self, value: Tensor) -> Any:  # rule 2
        found = ["tensor", str(value.dtype), list(value.shape)]
        if self._values and not value.is_meta:
            plain = value.detach().cpu().contiguous().reshape(-1)
            found.append(hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).hexdigest())
        return found

    def _function(self, value: FunctionType) -> Any:  # rule 3
        if _name(value).startswith(_TORCH):
            return ["name", _name(value)]
        cells = [_content(each) for each in value.__closure__ or ()]
        defaults = [value.__defaults__, value.__kwdefaults__]
        return [_name(value), self.of(value.__code__), self._all(defaults), self._all(cells)]

    def _module(self, value: nn.Module) -> Any:  # rule 4
        code = []
        for each in type(value).__mro__:
            if each not in nn.Module.__mro__ and not _name(each).startswith(_TORCH):
                told = {k: v for k, v in vars(each).items() if k not in _UNTOLD}
                code.append([_name(each), self._pairs(told)])
        if isinstance(value, fx.GraphModule):
            own: dict[str, Any] = {name: vars(value)[name] for name in _STATE}
            return ["graph", value.code, self._pairs(own)]
        own = {name: each for name, each in vars(value).items() if name != "training"}
        for name, each in own.items():
            if name.endswith("_hooks") and isinstance(each, dict):
                own[name] = [*each.values()]  # the keys are numbers that the process counts
        return [_name(type(value)), code, self._pairs(own)]

    def _pickled(self, value: Any) -> Any:  # rule 5
        try:
            made = value.__reduce_ex__(2)
        except Exception:
            return ["name", _name(type(value)), getattr(value, "__name__", None)]
        if isinstance(made, str):
            return ["name", _name(type(value)), made]
        maker, given, *rest = made
        state, items, pairs = (*rest, None, None, None)[:3]
        more = [list(items or ()), list(pairs or ())]
        return ["made", self.of(maker), self._all(given), self.of(state), *map(self._all, more)]

    def _all(self, values: Iterable[Any]) -> list[Any]:
        return [self.of(each) for each in values]

    def _pairs(self, values: Mapping[Any, Any]) -> list[Any]:
        return [[self.of(key), self.of(each)] for key, each in values.items()]


def _name(value: type | BuiltinFunctionType | FunctionType) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _content(cell: CellType) -> Any:
    """Return what a function remembers in a cell; a cell may be empty yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
