"""Restoration tasks: how a clean image becomes the degraded one that a network restores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distillc.errors import UsageError
from distillc.registry import Registry


@dataclass(frozen=True)
class Task:
    """A restoration task.

    `str(task)` is its canonical form, which `parse_task` reads back.

    Attributes:
        name: `"denoise"`, `"derain"`, `"deblur"`, `"sr"`, or that of another package.
        options: Option -> value, every option of the task present.
    """

    name: str
    options: Mapping[str, float] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Size of the clean image / size of the degraded one."""
        return int(self.options.get("scale", 1))

    def __str__(self) -> str:
        options = ",".join(f"{key}={value:g}" for key, value in sorted(self.options.items()))
        return f"{self.name}:{options}" if options else self.name

    def degrade(self, clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Degrade clean images; each image of a batch gets a degradation of its own.

        Args:
            clean: (C, H, W) or (B, C, H, W) float32 in [0, 1] on the CPU; for `sr`, H and W are
                multiples of the scale.
            generator: Source of all randomness, a CPU generator.

        Returns:
            The same rank, (..., C, H / scale, W / scale) float32. Noise is not clipped, so values
            may leave [0, 1] for `denoise`.
        """
        batch = clean if clean.dim() == 4 else clean[None]
        degraded = TASKS.find(self.name).degrade(batch, self.options, generator)
        return degraded if clean.dim() == 4 else degraded[0]


@dataclass(frozen=True)
class Degradation:
    """What a task does to clean images.

    Attributes:
        name: The name of the task.
        does: One line for the user.
        degrade: (clean images (B, C, H, W) float32 in [0, 1] on the CPU, every option's value, the
            source of all randomness) -> the degraded ones, float32. An option `scale` says how
            many times smaller they are; without one they have the same size.
        options: Option -> its default and the smallest and largest value.
        integral: Whether options are whole numbers.
    """

    name: str
    does: str
    degrade: Callable[[torch.Tensor, Mapping[str, float], torch.Generator], torch.Tensor]
    options: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    integral: bool = False

    def defaults(self) -> Task:
        """Return the task with every option at its default."""
        return Task(self.name, {key: value[0] for key, value in self.options.items()})


def _accept(found: Any) -> Degradation:
    if not isinstance(found, Degradation):
        raise TypeError("it is not a Degradation")
    return found


TASKS = Registry("distillc.tasks", "task", _accept, lambda found: found.name)
"""The tasks by name. An entry point names a `Degradation`."""


def parse_task(text: str | Task) -> Task:
    """Parse `"denoise:sigma=25"`, `"derain"`, `"deblur"`, `"sr:scale=2"`, or another package's.

    Sigma is in units of 1/255. An option left out takes its default.

    Raises:
        UsageError: Unknown task, unknown option, or a value out of range; the message lists the
            known. Or the task of another package cannot be used.
    """
    if isinstance(text, Task):
        return text
    name, _, rest = text.strip().partition(":")
    if TASKS.names() and name not in TASKS.names():
        raise UsageError(f"unknown task {name!r}", hint=f"known tasks: {', '.join(known_tasks())}")
    kind = TASKS.find(name)
    options = dict(kind.defaults().options)
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise UsageError(
                f"task {name!r} has no option {key!r}", hint=f"options of {name}: {known}"
            )
        options[key] = _number(f"{name}:{part}", value, kind, *kind.options[key][1:])
    return Task(name, options)


def _number(where: str, text: str, kind: Degradation, low: float, high: float) -> float:
    what = "a whole number" if kind.integral else "a number"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or (kind.integral and value != int(value)):
        raise UsageError(
            f"{text!r} is not {what} from {low:g} to {high:g}", where=where, hint="change --task"
        )
    return value


def known_tasks() -> list[str]:
    """Return every task that can be used, with its defaults, in canonical form."""
    return [str(found.defaults()) for found in TASKS.load_all()[0].values()]


def check_scale(task: Task, scale: int) -> None:
    """Check that a task and a network agree on output size / input size.

    Raises:
        UsageError: They do not.
    """
    if task.scale == scale:
        return
    fitting = f"sr:scale={scale}" if scale > 1 else "denoise:sigma=25, derain or deblur"
    raise UsageError(
        f"task {str(task)!r} enlarges images {task.scale} times, the network {scale} times",
        hint=f"a network of scale {scale} takes --task {fitting}",
    )
