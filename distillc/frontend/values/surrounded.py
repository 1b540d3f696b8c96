"""A network with something around each of its runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Layer = Callable[[nn.Module, Forward], Forward]
"""Makes of a network, and what runs it, what runs it from then on."""


def surrounded(network: nn.Module, layer: Layer) -> nn.Module:
    """Return a copy that shares all modules and tensors, and runs as a layer says.

    Args:
        network: The network; it may have layers already, which are inside.
        layer: A function of a module or an object of a class: it is copied and pickled with it.
    """
    inside = getattr(vars(network).get("forward"), "__self__", None)
    twin = copy.copy(network)
    layers = inside.layers if isinstance(inside, _Forward) else ()
    # A method, for `torch.export` asks for its code.
    twin.forward = _Forward(twin, (*layers, layer)).run  # type: ignore[method-assign]
    return twin


class _Forward:
    """A `forward` with layers around that of the class."""

    def __init__(self, network: nn.Module, layers: tuple[Layer, ...]) -> None:
        self.network = network
        self.layers = layers

    def run(self, *args: Any, **kwargs: Any) -> Any:
        run: Forward = partial(type(self.network).forward, self.network)
        for layer in self.layers:
            run = layer(self.network, run)
        return run(*args, **kwargs)
