"""The image in what a network returns beside losses, maps or other scales."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from distillc.errors import TraceError, UsageError
from distillc.printable import printable

log = logging.getLogger(__name__)

DEEPEST = 4
"""How many containers are looked through: an object may hold itself."""


def whole_scale(given: Sequence[int], output: object) -> int | None:
    """Return how much larger than its input (1, C, H, W) an output is; None for anything else.

    An image is float32, (1, C', H * scale, W * scale) with a whole scale.
    """
    if not isinstance(output, Tensor) or output.dim() != 4 or output.dtype != torch.float32:
        return None
    scale = max(1, output.shape[2] // given[2])
    wanted = (1, scale * given[2], scale * given[3])
    fits = output.shape[1] and (output.shape[0], *output.shape[2:]) == wanted
    return scale if fits else None


def described(value: object) -> str:
    """Return what a network returned, in words: shapes, and names where there are several."""
    if isinstance(value, Tensor):
        kind = "" if value.dtype == torch.float32 else f"{value.dtype} ".removeprefix("torch.")
        return kind + str(tuple(value.shape))
    inside = [f"{name} {described(each)}" for name, each in tensors(value)]
    return f"a {type(value).__name__}" + (f" of {', '.join(inside)}" if inside else "")


def tensors(value: object, path: str = "", depth: int = DEEPEST) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in tuples, lists, dicts and objects with their names, say `"stages.0"`."""
    if isinstance(value, Tensor):
        yield path, value
    elif depth:
        for name, each in _inside(value).items():
            yield from tensors(each, f"{path}.{name}" if path else name, depth - 1)


def take_image(
    module: nn.Module, given: Tensor, output: object, wanted: str | int | None = None
) -> tuple[nn.Module, object]:
    """Make a network return the image in its output; its modules keep their names.

    1. With `wanted`, it is the tensor of this name or index.
    2. What is a tensor already stays, and so does what holds no image.
    3. The only image is taken; of several the only one with as many channels as the input.

    Args:
        module: The network; it is not changed.
        given: What it was called with, (1, C, H, W).
        output: What it returned.
        wanted: A name or an index; with dots for what is deeper, say `"stages.0"`.

    Returns:
        The network, a copy that shares all weights where it returned more; and its image.

    Raises:
        UsageError: Nothing in the output has the wanted name.
        TraceError: Several images, and none was asked for.
    """
    found = dict(tensors(output))
    if wanted is not None:  # rule 1
        if (name := str(wanted)) not in found or not name:
            raise UsageError(
                f"the network returns no {name!r}, but {described(output)}",
                where="--output",
                hint="give a name or an index of these, or leave --output out",
            )
        return _returning(module, name), found[name]
    images = {
        name: each for name, each in found.items() if whole_scale(given.shape, each) is not None
    }
    if isinstance(output, Tensor) or not images:  # rule 2
        return module, output
    alike = [name for name, each in images.items() if each.shape[1] == given.shape[1]]
    chosen = [*images] if len(images) == 1 else alike  # rule 3
    if len(chosen) != 1:
        first = (chosen or [*images])[0]
        raise TraceError(
            f"the network returns several images: {described(output)}",
            hint=f"say which one it is: --output {first}, or output={first!r} of distillc.trace",
        )
    returned = printable(f"{described(output)}: {chosen[0]} is taken")
    log.warning("a network must return an image, this one returns %s", returned)
    return _returning(module, chosen[0]), found[chosen[0]]


def _returning(module: nn.Module, name: str) -> nn.Module:
    """Return a copy that shares all but its hooks, the last of which chooses from the output."""
    twin = copy.copy(module)
    twin._forward_hooks = module._forward_hooks.copy()
    twin.register_forward_hook(_Choose(name))
    return twin


class _Choose:
    """A hook that returns a part of an output; unlike a closure it can be copied and pickled."""

    def __init__(self, name: str) -> None:
        self.steps = name.split(".")

    def __call__(self, module: nn.Module, given: object, output: object) -> object:
        for step in self.steps:
            output = _inside(output)[step]
        return output


def _inside(value: object) -> Mapping[str, object]:
    """Return what a container holds by name."""
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items()}
    if isinstance(value, list | tuple):
        names = getattr(value, "_fields", None) or range(len(value))
        return {str(name): each for name, each in zip(names, value, strict=True)}
    if isinstance(value, nn.Module):
        return {}
    slots = [name for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    names = [*getattr(value, "__dict__", ()), *slots]
    return {name: getattr(value, name) for name in names if not name.startswith("_")}
