"""What the training passes share: options, the loop, precision, averaging, resumable state."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from distillc.checks import EDGES, POSITIVE, RUNS, check_real, check_whole
from distillc.data.images import RestorationData
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import UsageError
from distillc.frontend.structure import module_digest
from distillc.network import Network
from distillc.pipeline import Context, Pass
from distillc.stages import Stage

SAVE_SECONDS = 60.0
"""How much work a kill may cost."""

WEIGHT_DECAY = 1e-4


def cosine_rate(progress: float, peak: float, warmup: float = 0.03) -> float:
    """Return the learning rate at `progress` in [0, 1]: a linear warm-up, then a half cosine."""
    return peak * min(1.0, (progress + 1e-3) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradient(module: nn.Module, largest: float) -> None:
    """Scale the gradient to this norm at most; one that is not finite is dropped for this step."""
    if not nn.utils.clip_grad_norm_(module.parameters(), largest).isfinite():
        module.zero_grad()


def clipped_backward(loss: torch.Tensor, module: nn.Module, largest: float) -> None:
    """Leave the gradient of a loss in a module, clipped; a loss that no weight decides leaves none.

    What leaves its block out has no weights.
    """
    if loss.requires_grad:
        loss.backward()
        clip_gradient(module, largest)


def mixed_precision(device: str) -> AbstractContextManager[Any]:
    """bfloat16 for convolutions and products where the machine has it, float32 for the rest."""
    has = torch.cuda.is_bf16_supported() if device.startswith("cuda") else _cpu_multiplies_bf16()
    return torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=has)


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_patch(net: Network, patch: int) -> None:
    """Check that the network takes training images of this edge.

    Raises:
        UsageError: It does not; the message names the multiple it needs, or its one size.
    """
    if net.fixed_size and net.size != (patch, patch):
        raise UsageError(
            f"{net.name} cannot take patches of {patch} pixels: it runs at "
            f"{net.size[0]}x{net.size[1]} only",
            hint=f"try patch={net.size[0]}"
            if net.size[0] == net.size[1]
            else "only a network of a square size can be distilled",
        )
    if patch % net.multiple:
        near = max(1, round(patch / net.multiple)) * net.multiple
        raise UsageError(
            f"{net.name} cannot take patches of {patch} pixels: it needs multiples of "
            f"{net.multiple}",
            hint=f"try patch={near}",
        )


def judging_edge(net: Network, patch: int) -> int:
    """Return the edge of the held-out images that judge training with patches of this edge."""
    return patch if net.fixed_size else 2 * patch


def imitation_loss(
    given: torch.Tensor, clean: torch.Tensor, wanted: torch.Tensor, teacher_weight: float = 1.0
) -> torch.Tensor:
    """L1 to the clean image, and L1 to the teacher's output.

    The teacher's output has none of the noise that no network can predict, so it steadies the
    gradient; the clean image lets a hybrid become better than its teacher.

    Args:
        given: The hybrid's output, (B, C, H, W) as the others.
        clean: The clean image.
        wanted: The teacher's output.
        teacher_weight: Weight of the second term.
    """
    return F.l1_loss(given, clean) + teacher_weight * F.l1_loss(given, wanted)


class Average:
    """Exponential moving average of a module's weights: smoother, and better, than the last.

    Attributes:
        module: A copy of the module with the averaged weights.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after `step` (from 0); early steps weigh more, so it starts fast."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        mine: list[torch.Tensor] = list(self.module.parameters())
        theirs: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(mine, theirs, weight)
        for own, other in zip(self.module.buffers(), module.buffers(), strict=True):
            own.copy_(other)


class Stateful(Protocol):
    """A module or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


class RunState:
    """The state of a training run on disk, so that the same command goes on after a kill.

    Args:
        stage: Where it is kept.
        name: What tells it from the states of other runs in this stage.
    """

    def __init__(self, stage: Stage, name: str = "run") -> None:
        self._stage = stage
        self._name = f"{name}.pt"
        self._saved = time.monotonic()

    def load(self, parts: Mapping[str, Stateful]) -> int:
        """Load the state last saved into its parts; return the steps it has seen, 0 without one."""

        def unpack(content: bytes) -> int:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            step: int = state.pop("step")
            before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
            try:
                for name, part in parts.items():
                    part.load_state_dict(state[name])
            except Exception:
                for name, part in parts.items():
                    part.load_state_dict(before[name])
                raise
            return step

        return self._stage.read(self._name, unpack) or 0

    def save(self, parts: Mapping[str, Stateful], step: int) -> None:
        """Save the state of `parts` after `step` steps if the last time is `SAVE_SECONDS` ago.

        Raises:
            StorageError: It cannot be written; the last state is still there.
        """
        if self._stage.folder is None or time.monotonic() - self._saved < SAVE_SECONDS:
            return
        buffer = io.BytesIO()  # torch.save to a file hides a full disk behind a RuntimeError
        torch.save(
            {**{name: part.state_dict() for name, part in parts.items()}, "step": step}, buffer
        )
        self._stage.write(self._name, buffer.getvalue())
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Forget the state: the run is finished and its result is stored."""
        self._stage.remove(self._name)


class Clock:
    """How long the rest of a run takes, from the steps done since it started or resumed."""

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total, self._start = first, total, time.monotonic()

    def at_once(self, done: int) -> int:
        """Return how many steps to take before the state is saved, as far as time tells."""
        if done == self._first:
            return 1  # nothing is known yet
        return max(1, int(SAVE_SECONDS / 2 / self._pace(done)))

    def left(self, done: int) -> str:
        """Return the time left after `done` steps, say `"3:20 left"`."""
        minutes, seconds = divmod(round(self._pace(done) * (self._total - done)), 60)
        return f"{minutes}:{seconds:02d} left"

    def _pace(self, done: int) -> float:
        """Return seconds for a step."""
        return max(1e-6, time.monotonic() - self._start) / max(1, done - self._first)


@dataclass
class TrainingPass(Pass):
    """A pass that trains on restoration data.

    Args:
        data: Folder of images or pairs; scikit-image's photographs by default.
        task: How clean images are degraded.
        steps: Training steps.
        batch: Images a step.
        patch: Edge of a training image, pixels.
        lr: Peak learning rate (AdamW, warm-up and cosine).

    Raises:
        UsageError: A number is out of range.
    """

    data: Path | None = None
    task: str = "denoise:sigma=25"
    steps: int = 1000
    batch: int = 8
    patch: int = 64
    lr: float = 1e-3

    def __post_init__(self) -> None:
        check_whole((0, RUNS[1]), steps=self.steps)
        check_whole(RUNS, batch=self.batch)
        check_whole(EDGES, patch=self.patch)
        check_real(POSITIVE, lr=self.lr)

    def requires(self, net: Network) -> None:
        check_scale(parse_task(self.task), net.scale, *net.channels)
        check_patch(net, self.patch)

    def key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        """Return what every trained result depends on, as JSON values."""
        return {
            "teacher": module_digest(net.module),
            "data": data.fingerprint,
            "options": [self.steps, self.batch, self.patch, self.lr],
            "seed": ctx.seed,
        }

    def take_steps(
        self,
        title: str,
        module: nn.Module,
        parts: Mapping[str, Stateful],
        compute: Callable[[int], str],
        state: RunState,
        ctx: Context,
        average: Average | None = None,
    ) -> None:
        """Take the steps that are left of a run.

        Args:
            title: What progress calls it.
            module: What is trained.
            parts: What a resumed run needs back, by name, besides the optimizer.
            compute: Leaves the gradient of a step in `module`, clipped; returns a line to show.
            state: Brings back what an earlier run has done.
            ctx: The context of the pass.
            average: Follows the weights of `module`.
        """
        if not any(True for _ in module.parameters()):
            return
        optimizer = torch.optim.AdamW(
            module.parameters(), self.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        parts = {**parts, "optimizer": optimizer}
        first = state.load(parts)
        with ctx.progress_line(title, self.steps) as shown:
            clock = Clock(first, self.steps)
            for step in range(first, self.steps):
                set_rate(optimizer, cosine_rate(step / self.steps, self.lr))
                optimizer.zero_grad()
                line = compute(step)
                optimizer.step()
                if average:
                    average.update(module, step)
                done = step + 1
                shown.update(done, f"{line} {clock.left(done)}")
                state.save(parts, done)
