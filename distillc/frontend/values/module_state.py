"""What a network's modules hold, kept while it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook

_CONTAINERS = (dict, list, set)


@contextmanager
def kept_attributes(network: nn.Module) -> Iterator[Callable[[], bool]]:
    """Put back, after it, every attribute of every module; caches in dicts and lists too.

    What a module writes into a tensor stays. Yields a function that says whether a module made a
    tensor that it keeps.
    """
    held: dict[int, tuple[Any, Any]] = {}
    for module in network.modules():
        for each in (vars(module), *vars(module).values()):
            if type(each) in _CONTAINERS:
                held[id(each)] = each, each.copy()
    known = {id(tensor) for _, content in held.values() for tensor in _tensors(content)}
    own = set(network.modules())
    registered: list[str] = []

    def note(module: nn.Module, name: str, _: Tensor | None) -> None:
        if module in own:  # others are the graph's, which torch makes
            registered.append(name)

    # `torch.export` puts buffers back itself.
    hook = register_module_buffer_registration_hook(note)
    try:
        yield (
            lambda: (
                bool(registered)
                or any(
                    id(tensor) not in known for now, _ in held.values() for tensor in _tensors(now)
                )
            )
        )
    finally:
        hook.remove()
        for each, content in held.values():
            each.clear()
            each.extend(content) if isinstance(each, list) else each.update(content)


def _tensors(held: Any) -> list[Tensor]:
    values = held.values() if isinstance(held, dict) else held
    return [each for each in values if isinstance(each, Tensor)]
