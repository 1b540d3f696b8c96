"""A network of two residual blocks small enough to train within a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from distillc.network import Block, Cost, Network, Surrogate
from distillc.pipeline import Context, ProgressLine
from distillc.stages import WorkDir

COST = Cost(0, 0)


class ToyBlock(nn.Module):
    """x + attn(x); the "attention" is a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.attn(x).relu_()


class ToyNet(nn.Module):
    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(ToyBlock(channels), ToyBlock(channels))
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.tail(self.blocks(self.head(x)))


class ToySurrogate(nn.Module):
    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.residual = residual
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return x + y if self.residual else y


def toy_network() -> Network:
    """Two blocks, each with a candidate for the whole block and one for its attention."""
    torch.manual_seed(0)
    shape = (1, 6, 16, 16)
    names = ("blocks.0", "blocks.1")
    return Network(
        ToyNet().eval(),
        (16, 16),
        multiple=2,
        blocks=tuple(
            Block(name, f"{name}.attn", "channel", shape, shape, COST, COST) for name in names
        ),
        candidates={
            name: (
                Surrogate(name, "toy", "block", ToySurrogate(6, True), COST),
                Surrogate(name, "toy", "attention", ToySurrogate(6, False), COST),
            )
            for name in names
        },
    )


def weights(net: Network) -> list[torch.Tensor]:
    """All tensors of all candidates, in order."""
    return [
        tensor
        for candidates in net.candidates.values()
        for each in candidates
        for tensor in each.module.state_dict().values()
    ]


def same_candidates(one: Network, other: Network) -> bool:
    """Whether the candidates of two networks have equal weights."""
    pairs = zip(weights(one), weights(other), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


class Killed(BaseException):
    """Stands for the signal that ends a process."""


class KilledAt(Context):
    """A context whose progress kills the run after so many steps."""

    def __init__(self, work: WorkDir, step: int) -> None:
        super().__init__(work)
        self.step = step

    def progress_line(self, description: str, total: int) -> Any:
        return _Line(lambda done: done > self.step)


class _Line(ProgressLine):
    def __init__(self, kills: Callable[[int], bool]) -> None:
        super().__init__(None, "", 0)
        self.kills = kills

    def update(self, completed: int, detail: str = "") -> None:
        if self.kills(completed):
            raise Killed

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Recorder(Context):
    """A context that keeps what the progress line showed."""

    def __init__(self, work: WorkDir | None = None, seed: int = 0) -> None:
        super().__init__(work, seed)
        self.lines: list[tuple[int, str]] = []

    def progress_line(self, description: str, total: int) -> Any:
        line = _Line(lambda done: False)
        line.update = lambda completed, detail="": self.lines.append((completed, detail))  # type: ignore[method-assign]
        return line
