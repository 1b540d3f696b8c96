"""Train every surrogate on the features of the block it stands in for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distillc.data.images import RestorationData
from distillc.errors import PassError
from distillc.frontend.calls import record_calls
from distillc.network import Network
from distillc.passes.students import Distillation, Students, surrogate_key
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.training import RunState, clipped_backward
from distillc.pipeline import Context
from distillc.workdir import digest

_CALIBRATION = 16  # images that students start from
_CLIP = 0.2  # gradient norm of one surrogate: the first steps are the roughest


@dataclass
class DistillBlocks(Distillation):
    """Train every candidate of every block on the teacher's own features.

    The block-wise feature distillation of "Edge-Efficient Image Restoration" (arXiv 2605.02794),
    as far as its abstract tells:

    1. On one batch every candidate starts from what its block does, where its family can.
    2. The teacher runs once a step on a degraded batch; the input and output of every block (of
       its attention, for candidates of that scope) are kept.
    3. Every candidate gets the teacher's input and is trained towards the teacher's output, with
       an error relative to what the block changes. Blocks train independently of each other.
    4. Fidelity is the relative error on held-out images: ||s(x) - t(x)|| / ||t(x) - x||; for an
       attention the denominator is ||t(x)||.

    Given:   candidates {"latent.0": (conv, mamba)} with initial weights, fidelity None
    Result:  the same candidates, trained, with fidelity

    Args: see `TrainingPass`.
    """

    lr: float = 1.2e-2

    stage = "distill"
    after = (SynthesizeSurrogates,)

    def ensures(self, net: Network) -> None:
        for name, candidates in net.candidates.items():
            if any(each.fidelity is None for each in candidates):
                raise PassError("a candidate was not distilled", where=name)

    def parts(self, students: Students) -> dict[str, Students]:
        # One by one: what others learn beside it changes nothing, so it stays when they change.
        return {
            f"{digest(surrogate_key(each.surrogate))}.sealed": Students([each]) for each in students
        }

    def train(
        self,
        teacher: nn.Module,
        students: Students,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> None:
        students.train(ctx.train_on)
        for weights in teacher.parameters():
            if weights.dim() == 4:  # `Module.to` would take those of five axes too, and fail
                weights.data = weights.data.contiguous(memory_format=torch.channels_last)

        images, _ = data.batch(0, _CALIBRATION, self.patch, ctx.seed)
        students.calibrate(teacher, images.to(ctx.train_on))

        def compute(step: int) -> str:
            degraded, _ = data.batch(step, self.batch, self.patch, ctx.seed)
            images = degraded.to(ctx.train_on, memory_format=torch.channels_last)
            # Float32: bfloat16 would drown a small change in the rounding of a large input.
            calls = record_calls(teacher, students.paths, images)
            losses = []
            for student in students:
                loss = student.loss(calls)
                clipped_backward(loss, student.module, _CLIP)
                losses.append(loss.detach())
            return _worst(students, losses)

        parts = {"modules": students.modules}
        self.take_steps("distill blocks", students.modules, parts, compute, state, ctx)


def _worst(students: Students, losses: list[torch.Tensor]) -> str:
    """The student that is furthest from its teacher, and how far."""
    values = torch.stack(losses).tolist()  # one transfer from the device
    value, worst = max(zip(values, students, strict=True), key=lambda pair: pair[0])
    return f"block {worst.path} {worst.surrogate.label} loss {value:.3f}"
