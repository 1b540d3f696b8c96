"""Restoration tasks: how a clean image becomes the degraded one that a network restores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from distillc.errors import UsageError


@dataclass(frozen=True)
class Task:
    """A restoration task.

    `str(task)` is its canonical form, which `parse_task` reads back.

    Attributes:
        name: `"denoise"`, `"derain"`, `"deblur"` or `"sr"`.
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
        degraded = _KINDS[self.name].degrade(batch, self.options, generator)
        return degraded if clean.dim() == 4 else degraded[0]


@dataclass(frozen=True)
class _Kind:
    """A task's options with default and allowed range, and its degradation of (B, C, H, W)."""

    options: Mapping[str, tuple[float, float, float]]
    degrade: Callable[[torch.Tensor, Mapping[str, float], torch.Generator], torch.Tensor]
    integral: bool = False


def parse_task(text: str | Task) -> Task:
    """Parse `"denoise:sigma=25"`, `"derain"`, `"deblur"` or `"sr:scale=2"`.

    Sigma is in units of 1/255. An option left out takes its default.

    Raises:
        UsageError: Unknown task, unknown option, or a value out of range; the message lists the
            known.
    """
    if isinstance(text, Task):
        return text
    name, _, rest = text.strip().partition(":")
    if name not in _KINDS:
        raise UsageError(f"unknown task {name!r}", hint=f"known tasks: {', '.join(known_tasks())}")
    kind = _KINDS[name]
    options = {key: default for key, (default, _, _) in kind.options.items()}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise UsageError(
                f"task {name!r} has no option {key!r}", hint=f"options of {name}: {known}"
            )
        options[key] = _number(f"{name}:{part}", value, kind, *kind.options[key][1:])
    return Task(name, options)


def _number(where: str, text: str, kind: _Kind, low: float, high: float) -> float:
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
    """Return every task with its defaults, in canonical form."""
    return [
        str(Task(name, {key: value[0] for key, value in kind.options.items()}))
        for name, kind in _KINDS.items()
    ]


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


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _denoise(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    noise = torch.randn(clean.shape, generator=generator)
    return clean + noise * (options["sigma"] / 255)


def _super_resolve(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    scale = int(options["scale"])
    size = (clean.shape[2] // scale, clean.shape[3] // scale)
    small = F.interpolate(clean, size, mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(0, 1)


def _filter(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolve every channel of (B, C, H, W) with one odd (k, k) kernel, edges repeated."""
    channels, pad = images.shape[1], kernel.shape[-1] // 2
    weight = kernel.expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(images, (pad,) * 4, mode="replicate"), weight, groups=channels)


def _line_kernel(length: float, angle: float) -> torch.Tensor:
    """An antialiased line segment of this length (pixels) and angle (radians) from the column."""
    radius = math.ceil(length / 2)
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    across = (column * math.cos(angle) - row * math.sin(angle)).abs()
    along = (column * math.sin(angle) + row * math.cos(angle)).abs()
    return (1 - across).clamp(0, 1) * (length / 2 + 0.5 - along).clamp(0, 1)


def _derain(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    """Add bright streaks, nearly parallel within an image: sparse drops smeared along a line."""
    degraded = clean.clone()
    for image in degraded:
        angle = math.radians(_uniform(generator, -40, 40))
        for _ in range(2):  # two layers: near rain is longer and sparser than far rain
            length = _uniform(generator, 7, 31)
            density = _uniform(generator, 0.02, 0.12) / length
            drops = torch.rand(1, 1, *image.shape[1:], generator=generator)
            brightness = _uniform(generator, 0.4, 0.9)
            tilt = angle + math.radians(_uniform(generator, -4, 4))
            streaks = _filter((drops < density).float() * brightness, _line_kernel(length, tilt))
            image += streaks[0].clamp(0, 1) * (1 - image)
    return degraded


def _motion_kernel(generator: torch.Generator) -> torch.Tensor:
    """A camera-shake kernel: a smooth random path, splatted bilinearly on a grid, sum 1."""
    points, extent = 96, _uniform(generator, 5, 21)
    turns = torch.randn(points, generator=generator).cumsum(0) * 0.12
    heading = turns + _uniform(generator, 0, 2 * math.pi)
    path = torch.stack([heading.sin(), heading.cos()]).cumsum(1)
    path -= path.mean(1, keepdim=True)
    path *= extent / 2 / path.abs().max()
    radius = math.ceil(extent / 2) + 1
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    rows = (1 - (axis[:, None] - path[0]).abs()).clamp(min=0)
    columns = (1 - (axis[:, None] - path[1]).abs()).clamp(min=0)
    kernel = rows @ columns.T
    return kernel / kernel.sum()


def _deblur(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    return torch.cat([_filter(image[None], _motion_kernel(generator)) for image in clean])


_KINDS = {
    "denoise": _Kind({"sigma": (25, 0.1, 255)}, _denoise),
    "derain": _Kind({}, _derain),
    "deblur": _Kind({}, _deblur),
    "sr": _Kind({"scale": (2, 2, 8)}, _super_resolve, integral=True),
}
