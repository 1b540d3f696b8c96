"""Values that Python asks tensors for, given by someone else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from distillc.frontend.values.places import Place, here, module_paths
from distillc.frontend.values.tensor_forms import (
    gathered_experts,
    read_at,
    write_at,
)

TRUTHS = frozenset(
    {
        *(Tensor.__bool__, Tensor.__contains__, Tensor.is_nonzero, torch.is_nonzero),
        *(torch.equal, Tensor.equal, torch.allclose, Tensor.allclose),
    }
)
PLAIN = frozenset(
    {Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.numpy, Tensor.__array__}
)
"""Calls whose result Python takes only as a number or an array."""

PLACES = frozenset(
    {torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere, torch.where, Tensor.where}
)
"""Calls that return as many places as a mask has; `where` with only a mask."""

TEXTS = frozenset({Tensor.__format__, Tensor.__repr__})

READS = TRUTHS | PLAIN | PLACES | TEXTS | {Tensor.item, Tensor.tolist, torch._assert}

AS_TENSOR = "as a tensor"
"""The answer to `item` where Python computes with the tensor as well."""


@dataclass(frozen=True)
class Question:
    """A value that Python asks for.

    Attributes:
        place: Where it stands in the code.
        function: What it calls.
        tensors: The tensors that it is asked of.
        natural: Computes the value.
    """

    place: Place
    function: Callable[..., Any]
    tensors: tuple[Tensor, ...]
    natural: Callable[[], Any]


class AnswerMode(TorchFunctionMode):
    """Within it, values that Python asks for come from a function.

    Experts, and slices, that tensors choose become operators at the same time.

    Args:
        network: Whose modules places are named by.
        answer: Returns the value, or `AS_TENSOR`.

    Attributes:
        rewrote: Whether a tensor was read or written at places that tensors choose.
        all_run: Where a tensor chose among modules, and of how many: all of them run.
    """

    def __init__(self, network: nn.Module, answer: Callable[[Question], Any]) -> None:
        super().__init__()
        self._paths = module_paths(network)
        self._answer = answer
        self._patches = ExitStack()
        self.rewrote = False
        self.all_run: dict[Place, int] = {}

    def __enter__(self) -> AnswerMode:
        self._patches.enter_context(gathered_experts(self._note_experts))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def _note_experts(self, count: int) -> None:
        self.all_run[here(self._paths)] = count

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is Tensor.__getitem__ and (read := read_at(*args)) is not None:
            self.rewrote = True
            return read
        if func is Tensor.__setitem__ and write_at(*args):
            self.rewrote = True
            return None
        tensors = [each for each in tree_leaves((args, options)) if isinstance(each, Tensor)]
        chooses = func in (torch.where, Tensor.where) and len(args) + len(options) > 1
        if func not in READS or chooses or not tensors:
            return func(*args, **options)
        place = here(self._paths)
        if func is Tensor.tolist:
            return self._numbers(args[0], place)
        if func is torch._assert:  # which asks for a truth where it is not asked itself
            holds = self._ask(Question(place, Tensor.__bool__, (args[0],), lambda: bool(args[0])))
            return None if holds else func(False, *args[1:], **options)
        return self._ask(Question(place, func, tuple(tensors), lambda: func(*args, **options)))

    def _numbers(self, tensor: Tensor, place: Place) -> Any:
        """Return what `tolist` does, asking for each: torch does the same as it exports."""
        if tensor.dim():
            return [self._numbers(each, place) for each in tensor.unbind()]
        return self._ask(Question(place, Tensor.item, (tensor,), tensor.item))

    def _ask(self, asked: Question) -> Any:
        answer = self._answer(asked)
        # A copy, for what it came from may be written to later.
        return asked.tensors[0].detach().reshape(()).clone() if answer is AS_TENSOR else answer
