"""Tensors that a network changes as it runs, which then would restore no image twice alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distillc.frontend.values.surrounded import Forward, surrounded
from distillc.printable import printable

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


def run_frozen(network: nn.Module, run: Callable[[], _Result]) -> tuple[nn.Module, _Result]:
    """Forward a network, and freeze the tensors of it that this changes, as centres of tokens.

    What was not there before stays: it is a cache, which every run fills alike.

    Args:
        network: Module in eval mode. Its tensors have their values again afterwards.
        run: Runs it.

    Returns:
        The network: a copy that shares all, whose every run begins with the same values, where some
        changed; and what `run` returned.
    """
    before = [
        (path, name, tensor, tensor.detach().clone())
        for path, module in network.named_modules()
        for name, tensor in _held(module).items()
    ]
    try:
        result = run()
        changed = [each for each in before if _is_changed(network, *each)]
    finally:
        for path, name, tensor, value in before:
            _put(network.get_submodule(path), name, tensor)
            if not torch.equal(tensor, value):
                tensor.data.copy_(value)
    if not changed:
        return network, result
    names = [f"{path}.{name}".lstrip(".") for path, name, *_ in changed]
    log.warning(
        "the network changes %s as it runs: frozen, every image meets the values of the file",
        printable(", ".join(names)),
    )
    return surrounded(network, _Frozen([(path, name) for path, name, *_ in changed])), result


class _Frozen:
    """The layer that lends a network copies of some tensors while it runs."""

    def __init__(self, names: list[tuple[str, str]]) -> None:
        self.names = names

    def __call__(self, network: nn.Module, run: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            held = [(network.get_submodule(path), name) for path, name in self.names]
            lent = [(module, name, getattr(module, name)) for module, name in held]
            try:
                for module, name, tensor in lent:
                    # A parameter cannot be another tensor; an attribute of its name is found first.
                    place = module._buffers if name in module._buffers else vars(module)
                    place[name] = tensor.clone()
                with _FollowedData():
                    return run(*args, **kwargs)
            finally:
                for module, name, tensor in lent:
                    _put(module, name, tensor)

        return forward


class _FollowedData(TorchFunctionMode):
    """Within it, what is done to the `data` of a tensor is done to the tensor.

    As it exports, torch leaves it out.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (_GET_DATA, _SET_DATA):
            data = args[0].detach()
            return data if func == _GET_DATA else data.copy_(args[1])
        return func(*args, **(kwargs or {}))


_GET_DATA, _SET_DATA = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]


def _held(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a module itself holds, by name."""
    held: dict[str, Any] = {**module._parameters, **module._buffers, **vars(module)}
    return {name: each for name, each in held.items() if isinstance(each, Tensor)}


def _is_changed(network: nn.Module, path: str, name: str, tensor: Tensor, value: Tensor) -> bool:
    now = _held(network.get_submodule(path)).get(name)
    return now is not None and now.shape == value.shape and not _equal(now, value)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, 0, 0, equal_nan=True)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor back where a module held it."""
    if name in module._parameters:
        vars(module).pop(name, None)
        module._parameters[name] = tensor  # type: ignore[assignment]
    elif name in module._buffers:
        module._buffers[name] = tensor
    else:
        vars(module)[name] = tensor
