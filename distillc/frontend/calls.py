"""What a network's modules are called with when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes:
        given: The first argument.
        rest: The other positional arguments: sizes, masks.
        options: Keyword arguments; without the first argument where that was one.
        result: What was returned.
    """

    given: torch.Tensor
    rest: tuple[Any, ...]
    options: Mapping[str, Any]
    result: torch.Tensor

    @property
    def has_more(self) -> bool:
        """Whether there is more than the first argument."""
        return bool(self.rest or self.options)

    def repeat(self, module: nn.Module, given: torch.Tensor | None = None) -> torch.Tensor:
        """Call another module the same way, with another first argument if one is given."""
        x = self.given if given is None else given
        output: torch.Tensor = module(x, *self.rest, **self.options)
        return output


class Bound(nn.Module):
    """A module as it was called once: a map from its first argument to its result.

    Args:
        module: The module.
        call: Brings the other arguments.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.module = module
        self.rest = call.rest
        self.options = dict(call.options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.module(x, *self.rest, **self.options)
        return output


@torch.no_grad()
def record_calls(network: nn.Module, paths: Iterable[str], images: torch.Tensor) -> dict[str, Call]:
    """Run a network once and return how some of its modules were called, the last time each.

    Args:
        network: Module in eval mode.
        paths: Qualified names of submodules; left out are those that do not run, and those that do
            not map a tensor to a tensor (several results, a list).
        images: (B, C, H, W) float32, on the network's device.

    Returns:
        Path -> call; first argument and result are float32 copies, since a later module may work
        in place on them.
    """
    arguments: dict[str, tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]] = {}
    calls: dict[str, Call] = {}

    def listen(path: str) -> list[Any]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            options = dict(kwargs)
            first, *rest = args or (options.pop(next(iter(options))),)
            if isinstance(first, torch.Tensor):
                arguments[path] = first.float().clone(), tuple(rest), options

        def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            if path in arguments and isinstance(result, torch.Tensor):
                calls[path] = Call(*arguments[path], result.float().clone())

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
