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
    def planes(self) -> Planes | None:
        """What the task makes of photographs, where that is more than pictures."""
        return TASKS.find(self.name).planes

    @property
    def scale(self) -> int:
        """Size of the restored image / size of the degraded one."""
        return self.planes.scale if self.planes else int(self.options.get("scale", 1))

    @property
    def shrink(self) -> int:
        """Size of the clean image / size of the degraded one."""
        return self.planes.shrink if self.planes else self.scale

    def __str__(self) -> str:
        options = ",".join(f"{key}={value:g}" for key, value in sorted(self.options.items()))
        return f"{self.name}:{options}" if options else self.name

    def fits(self, given: int, made: int) -> bool:
        """Whether it makes of photographs what a network of these channels takes and returns."""
        if self.planes:
            return (self.planes.given, self.planes.made) == (given, made)
        return {given, made} <= PICTURES

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

    def restored(self, clean: torch.Tensor) -> torch.Tensor:
        """Return what a network should make of the degraded images.

        Args:
            clean: The clean images, (B, C, H, W) float32.

        Returns:
            (B, C', H * scale / shrink, W * scale / shrink) float32: the clean images, but where
            `planes` says otherwise.
        """
        return self.planes.restored(clean) if self.planes else clean


@dataclass(frozen=True)
class Planes:
    """What a task makes of photographs for networks that take or return more than pictures.

    Attributes:
        given: Channels of what the network takes.
        made: Channels of what it returns.
        shrink: Size of the photograph / size of what the network takes.
        scale: Size of what it returns / size of what it takes.
        restored: (photographs (B, 3, H, W) float32) -> what a network should return for them.
    """

    given: int
    made: int
    shrink: int
    scale: int
    restored: Callable[[torch.Tensor], torch.Tensor]


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
        planes: For networks that take or return more than pictures; the clean images are then
            photographs of 3 channels.
    """

    name: str
    does: str
    degrade: Callable[[torch.Tensor, Mapping[str, float], torch.Generator], torch.Tensor]
    options: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    integral: bool = False
    planes: Planes | None = None

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


PICTURES = {1, 3}
"""Channels of pictures."""

ARRAYS = (
    "--data with the folders input/ and target/ of .npy arrays, (H, W, C) or (C, H, W); "
    "--no-distill needs none"
)


def check_scale(task: Task, scale: int, given: int = 3, made: int = 3) -> None:
    """Check that a task and a network agree on output size / input size.

    Args:
        task: The task.
        scale: The network's output size / input size.
        given: Channels of its input.
        made: Channels of its output.

    Raises:
        UsageError: They do not.
    """
    if task.scale != scale:
        raise UsageError(
            f"task {str(task)!r} enlarges images {task.scale} times, the network {scale} times",
            hint=f"a network of scale {scale} takes {_fitting(scale, given, made)}",
        )


def check_channels(task: Task, given: int, made: int) -> None:
    """Check that a task makes of photographs what a network takes and returns.

    Raises:
        UsageError: It does not; the message names the tasks that do.
    """
    if not task.fits(given, made):
        planes = task.planes
        kinds = f"{planes.given} for {planes.made}" if planes else "1 or 3"
        raise UsageError(
            f"the network takes {given} channels and returns {made}, task {str(task)!r} is for "
            f"images of {kinds}",
            hint=f"such a network takes {_fitting(task.scale, given, made)}",
        )


def tasks_for(scale: int, given: int, made: int) -> list[str]:
    """Return the tasks that make of photographs what a network takes and returns."""
    if {given, made} <= PICTURES:
        return [f"sr:scale={scale}"] if scale > 1 else ["denoise:sigma=25", "derain", "deblur"]
    return [
        str(kind.defaults())
        for kind in TASKS.load_all()[0].values()
        if (planes := kind.planes)
        and (planes.scale, planes.given, planes.made) == (scale, given, made)
    ]


def _fitting(scale: int, given: int, made: int) -> str:
    """Return the options that give a network images."""
    found = tasks_for(scale, given, made)
    if {given, made} <= PICTURES:
        return f"--task {' or '.join([', '.join(found[:-1]), found[-1]] if found[1:] else found)}"
    return " or ".join([*(f"--task {each}" for each in found), ARRAYS])
