"""Further inputs of a network, fixed to constants: a noise level, a prompt, a degradation's id."""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillc.errors import TraceError, UsageError, reason
from distillc.frontend.constants import EXAMPLES, as_tensor
from distillc.frontend.cpu_attention import allow_math
from distillc.frontend.user_code import advice, user_line
from distillc.printable import printable

log = logging.getLogger(__name__)

MOST_TRIES = 300
"""Combinations of forms that are tried."""


@dataclass(frozen=True)
class InputForm:
    """A way to hand a constant to a network.

    Attributes:
        value: A tensor, or any other value as it is.
        repeated: Axes that a tensor is repeated along: "" for none, "batch", or "map" for the
            batch, the image's height and its width.
    """

    value: Any
    repeated: str = ""

    def __str__(self) -> str:
        if not isinstance(self.value, Tensor):
            return repr(self.value)
        few = self.value.flatten().tolist() if self.value.numel() <= 4 else ()
        numbers = "".join(f"{each:g}, " for each in few)
        kind = str(self.value.dtype).removeprefix("torch.")
        size = "a map of the image's size" if self.repeated == "map" else tuple(self.value.shape)
        return f"{numbers}{kind} {size}"


class _Fixed:
    """Comes before a network's own class: its `forward` takes the image and adds the constants.

    So modules keep their names, and the network its class; constants are buffers that are not
    saved, which move to the device that the network moves to.
    """

    _image: str
    _forms: Mapping[str, InputForm]

    def forward(self, image: Tensor) -> Any:
        given: dict[str, Any] = {self._image: image}
        for name, form in self._forms.items():
            value = form.value
            if isinstance(value, Tensor):
                value = getattr(self, _buffer(name))
            if form.repeated == "map":
                value = value.expand(len(image), 1, *image.shape[2:])
            elif form.repeated == "batch":
                value = value.expand(len(image), *value.shape[1:])
            given[name] = value
        return super().forward(**given)  # type: ignore[misc]


def fix_inputs(module: nn.Module, example: Tensor, constants: Mapping[str, Any]) -> nn.Module:
    """Make a network take the image only; its modules keep their names.

    1. The image goes to the first input that is not among the constants.
    2. A number is tried as it is, then as tensors of one number, then as a map of the image's size.
       Lists and tensors are tried as they are, then with an axis for the batch in front.
    3. The first forms are taken by which two images together give what they give alone, tensors
       of a batch of one repeated along the batch or not; else the first by which one image runs.

    Args:
        module: The network; it is not changed.
        example: An image (1, C, H, W) float32.
        constants: What `read_inputs` returns.

    Raises:
        UsageError: `forward` has no input of a name, or none is left for the image.
        TraceError: It runs with no form; the message is of the last.
    """
    image = _image_name(module, constants)
    if missing := [name for name in needed_inputs(module) if name not in {image, *constants}]:
        raise TraceError(
            f"{type(module).__name__}.forward needs {', '.join(map(repr, missing))} too",
            hint=fixing(missing),
        )
    names, shown, last = list(constants), None, None
    first: Mapping[str, InputForm] = {}
    trial = copy.deepcopy(module)  # a network may change as it runs
    choices = itertools.product(*(_forms(constants[name]) for name in names))
    for forms in itertools.islice(choices, MOST_TRIES):
        twin = _with(trial, image, dict(zip(names, forms, strict=True)))
        try:
            with torch.no_grad():
                twin(example)
        except Exception as failure:
            if allow_math(failure):
                return fix_inputs(module, example, constants)
            last = failure
            tensors = all(isinstance(form.value, Tensor) for form in forms)
            shown = shown if shown or not tensors else failure
            continue
        first = first or twin._forms
        if chosen := _for_batches(twin, trial, example):
            return _told(module, image, chosen)
    if first:
        return _told(module, image, first)
    error = shown or last  # that tensors do not fit says more than that they are wanted
    assert error is not None
    said = ", ".join(f"{name} {_described(constants[name])}" for name in names)
    raise TraceError(
        f"the network does not run on {tuple(example.shape)} with {said}: {reason(error)}",
        where=user_line(error),
        hint=advice(error) or f"check the shapes of --input and of the image; {EXAMPLES}",
    ) from error


def needed_inputs(module: nn.Module) -> list[str]:
    """Return the inputs that a network cannot do without, the image among them."""
    return [
        each.name
        for each in _parameters(module)
        if each.default is each.empty and each.kind in _NAMED
    ]


def fixing(names: Sequence[str]) -> str:
    """Say how inputs are fixed."""
    return (
        f"fix what it needs: {' '.join(f'--input {name}=VALUE' for name in names)}, or NAME=FILE "
        "(inputs={...} in Python)"
    )


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except ValueError:  # what TorchScript traced has no signature
        return []


def _image_name(module: nn.Module, constants: Mapping[str, Any]) -> str:
    parameters = _parameters(module)
    known = [each.name for each in parameters if each.kind in _NAMED]
    free = any(each.kind is each.VAR_KEYWORD for each in parameters)
    unknown = [name for name in constants if name not in known]
    left = [name for name in known if name not in constants]
    if (unknown and not free) or not left:
        what = f"no input {unknown[0]!r}" if unknown else "no input left for the image"
        raise UsageError(
            f"{type(module).__name__}.forward has {what}",
            where="--input",
            hint=f"its inputs are {', '.join(known) or 'without names'}",
        )
    return left[0]


def _forms(value: Any) -> Iterator[InputForm]:
    """Yield the ways to hand a constant over, the likeliest first."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield InputForm(value)
        for shape in ((1,), (), (1, 1), (1, 1, 1, 1)):
            for kind in (
                (torch.int64, torch.float32) if isinstance(value, int) else (torch.float32,)
            ):
                yield InputForm(torch.full(shape, value, dtype=kind))
        yield InputForm(torch.full((1, 1, 1, 1), value, dtype=torch.float32), "map")
        return
    if not isinstance(value, (Tensor, list)):
        yield InputForm(value)
        return
    tensor = as_tensor(value)
    kinds = (
        [tensor]
        if isinstance(value, Tensor) or tensor.is_floating_point()
        else [tensor.float(), tensor]
    )
    for each in kinds:
        yield InputForm(each)
        yield InputForm(each[None])
    if isinstance(value, list):
        yield InputForm(value)


def _with(module: nn.Module, image: str, forms: Mapping[str, InputForm]) -> Any:
    """Return a copy that shares all but its class and its buffers."""
    twin: Any = copy.copy(module)
    own = type(module)
    told = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    twin.__class__ = type(own.__name__, (_Fixed, own), told)
    twin._buffers = module._buffers.copy()
    twin._non_persistent_buffers_set = module._non_persistent_buffers_set.copy()
    twin._image, twin._forms = image, forms
    for name, form in forms.items():
        if isinstance(form.value, Tensor):
            twin.register_buffer(_buffer(name), form.value, persistent=False)
    return twin


def _buffer(name: str) -> str:
    return f"fixed_{name}"


def _told(module: nn.Module, image: str, forms: Mapping[str, InputForm]) -> nn.Module:
    """Return the network with constants, and log which, in which form."""
    for name, form in forms.items():
        log.warning("input %s is fixed: %s", printable(name), printable(str(form)))
    made: nn.Module = _with(module, image, forms)
    return made


def _for_batches(twin: Any, module: nn.Module, example: Tensor) -> Mapping[str, InputForm]:
    """Return the forms by which a network takes several images (rule 3), none if it does not."""
    one = [
        name
        for name, form in twin._forms.items()
        if isinstance(form.value, Tensor) and not form.repeated and form.value.shape[:1] == (1,)
    ]
    pair = torch.rand(2, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    for chosen in _subsets(one):
        forms = {
            name: InputForm(form.value, "batch") if name in chosen else form
            for name, form in twin._forms.items()
        }
        tried = _with(module, twin._image, forms)
        try:
            with torch.no_grad():
                together, alone = tried(pair), [twin(each[None]) for each in pair]
        except Exception:
            continue
        if not isinstance(together, Tensor) or torch.allclose(
            together, torch.cat(alone), atol=1e-4
        ):
            return forms
    return {}


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for count in range(len(names), -1, -1):
        yield from itertools.combinations(names, count)


def _described(value: Any) -> str:
    return str(InputForm(value))
