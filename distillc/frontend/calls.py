"""What a network's modules are called with when it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten


@dataclass(frozen=True)
class Call:
    """One call of a module, as a map of one tensor to another among what is given and returned.

    Attributes:
        given: The first tensor among the arguments.
        place: Its number among the leaves of (arguments, keyword arguments).
        arguments: All leaves: tensors, sizes, masks.
        form: What they are the leaves of.
        result: What was returned; of several the first tensor of the shape of `given`.
        at: Its number among the leaves of what was returned.
        returned: All leaves. Tensors that a surrogate could not make are on the meta device.
        returned_form: What they are the leaves of.
    """

    given: Tensor
    place: int
    arguments: tuple[Any, ...]
    form: TreeSpec
    result: Tensor
    at: int
    returned: tuple[Any, ...]
    returned_form: TreeSpec

    @property
    def rest(self) -> tuple[Any, ...]:
        """The positional arguments after the first."""
        args, _ = tree_unflatten(self.arguments, self.form)
        return tuple(args[1:])

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments; without the first argument where that was one."""
        args, kwargs = tree_unflatten(self.arguments, self.form)
        return dict(kwargs) if args else dict(list(kwargs.items())[1:])

    @property
    def has_more(self) -> bool:
        """Whether there is more than the first argument."""
        return bool(self.rest or self.options or self.nests)

    @property
    def nests(self) -> bool:
        """Whether the tensor is given or returned within something, or not as the first."""
        args, kwargs = tree_unflatten(self.arguments, self.form)
        first = args[0] if args else next(iter(kwargs.values()))
        return not isinstance(first, Tensor) or not self.returned_form.is_leaf()

    @property
    def beside(self) -> dict[int, Tensor]:
        """What was returned besides the result that has its grid, by number."""
        return {
            number: each
            for number, each in enumerate(self.returned)
            if number != self.at and is_alike(each, self.result) and each.device.type != "meta"
        }

    def run(self, module: nn.Module, given: Tensor | None = None) -> list[Any]:
        """Call another module the same way; return the leaves of what it returns."""
        arguments = list(self.arguments)
        arguments[self.place] = self.given if given is None else given
        args, kwargs = tree_unflatten(arguments, self.form)
        return tree_leaves(module(*args, **kwargs))

    def repeat(self, module: nn.Module, given: Tensor | None = None) -> Tensor:
        """Call another module the same way, with another first tensor if one is given."""
        result: Tensor = self.run(module, given)[self.at]
        return result


class Bound(nn.Module):
    """A module as it was called once: a map from its first tensor to its result.

    Args:
        module: The module.
        call: Brings the other arguments.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call.repeat(self.module, x)


def is_alike(value: Any, image: Tensor) -> bool:
    """Whether a value is a tensor that differs from another in the extent of one axis at most.

    A square one beside tokens, (B, H W, H W), is an attention map.
    """
    if not isinstance(value, Tensor) or value.dim() != image.dim() or value.dtype.is_complex:
        return False
    if value.dim() == 3 and value.shape != image.shape and value.shape[1] == value.shape[2]:
        return False
    pairs = zip(value.shape[1:], image.shape[1:], strict=True)
    return value.shape[0] == image.shape[0] and sum(a != b for a, b in pairs) <= 1


@torch.no_grad()
def record_calls(network: nn.Module, paths: Iterable[str], images: Tensor) -> dict[str, Call]:
    """Run a network once and return how some of its modules were called, the last time each.

    Args:
        network: Module in eval mode.
        paths: Qualified names of submodules; left out are those that do not run, and those that do
            not map a tensor to a tensor, or to several of which one has its shape.
        images: (B, C, H, W) float32, on the network's device.

    Returns:
        Path -> call; what is given and returned are float32 copies, since a later module may work
        in place on them.
    """
    arguments: dict[str, tuple[Tensor, int, tuple[Any, ...], TreeSpec]] = {}
    calls: dict[str, Call] = {}

    def listen(path: str) -> list[Any]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            leaves, form = tree_flatten((args, kwargs))
            for place, each in enumerate(leaves):
                if isinstance(each, Tensor):
                    arguments[path] = each.float().clone(), place, tuple(leaves), form
                    return

        def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            leaves, form = tree_flatten(result)
            if path not in arguments:
                return
            extents = arguments[path][0].shape
            for at, each in enumerate(leaves):
                if isinstance(each, Tensor) and (form.is_leaf() or each.shape == extents):
                    kept = tuple(_kept(value, each) for value in leaves)
                    calls[path] = Call(*arguments[path], kept[at], at, kept, form)
                    return

        module = network.get_submodule(path)
        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]

    handles = [handle for path in dict.fromkeys(paths) for handle in listen(path)]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _kept(value: Any, result: Tensor) -> Any:
    """Return a copy of what a surrogate makes, and of attention maps only their form."""
    if is_alike(value, result):
        return value.float().clone()
    return value.to("meta") if isinstance(value, Tensor) else value
