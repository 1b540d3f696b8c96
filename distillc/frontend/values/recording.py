"""What a network's Python asks while it runs on an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillc.frontend.values.answering import AS_TENSOR, TEXTS, TRUTHS, AnswerMode, Question
from distillc.frontend.values.places import Line, Place


@dataclass(frozen=True)
class Read:
    """A value that Python asked for, once.

    Attributes:
        place: Where it stands in the code.
        function: What it called.
        value: What it got; `AS_TENSOR` where the tensor did as well.
        of_image: Whether it depends on the image; else weights and constants make it.
    """

    place: Place
    function: Callable[..., Any]
    value: Any
    of_image: bool

    @property
    def is_choice(self) -> bool:
        """Whether it is a truth of the image."""
        return self.of_image and self.function in TRUTHS

    @property
    def chooses(self) -> bool:
        """Whether Python may do something else for another image."""
        return self.of_image and self.function not in TEXTS and self.value is not AS_TENSOR


@dataclass(frozen=True)
class Recording:
    """What a network did.

    Attributes:
        output: The tensors that it returned.
        reads: What its Python asked, in order.
        rewrote: Whether something was read or written at places that tensors chose.
        all_run: Where a tensor chose among modules, and of how many.
    """

    output: list[Tensor]
    reads: list[Read]
    rewrote: bool
    all_run: Mapping[Place, int]


@torch.no_grad()
def record(
    network: nn.Module, image: Tensor, as_tensors: bool, forced: Mapping[Line, bool]
) -> Recording:
    """Run a network and keep what its Python asks.

    Args:
        network: Module in eval mode.
        image: (1, C, H, W) float32; left alone.
        as_tensors: Whether numbers of the image stay tensors.
        forced: Lines on which the truths of the image get another answer.
    """
    reads: list[Read] = []

    def answer(asked: Question) -> Any:
        of_image = any(map(dependence.holds, asked.tensors))
        if of_image and as_tensors and asked.function is Tensor.item:
            value: Any = AS_TENSOR
        elif of_image and asked.function in TRUTHS and asked.place.line in forced:
            value = forced[asked.place.line]
        else:
            value = asked.natural()
        reads.append(Read(asked.place, asked.function, value, of_image))
        return value

    given = image.clone()
    with Dependence(given) as dependence, AnswerMode(network, answer) as answering:
        output = network(given)
    return Recording(tensor_leaves(output), reads, answering.rewrote, answering.all_run)


def tensor_leaves(values: Any) -> list[Tensor]:
    """Return the tensors in what a function took or returned."""
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


class Dependence(TorchDispatchMode):
    """Within it, `holds` says which tensors depend on an image.

    Args:
        image: The tensor.
    """

    supports_higher_order_operators = True

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._storages = {_storage(image)}

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers depend on the image's."""
        return _storage(tensor) in self._storages

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_storage(each) for each in tensor_leaves((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        depends = not given.isdisjoint(self._storages)
        for each in tensor_leaves(result):
            if depends:
                self._storages.add(_storage(each))
            elif _storage(each) not in given or func is torch.ops.aten.lift_fresh.default:
                self._storages.discard(_storage(each))  # new, where an older one was
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
