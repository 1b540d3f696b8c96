"""Train the surrogates of all blocks together, in hybrids drawn at random."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData
from distillc.network import Network
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.students import Distillation, Student, Students, candidate_digests
from distillc.passes.training import (
    RunState,
    clipped_backward,
    imitation_loss,
    mixed_precision,
)
from distillc.pipeline import Context

_CLIP = 0.1  # gradient norm of all that a hybrid trains
_KEPT = 0.8  # largest share of blocks that a hybrid keeps


@dataclass
class DistillHybrids(Distillation):
    """Train all candidates end to end, in random hybrids of the network.

    `DistillBlocks` shows a surrogate the teacher's features. In a hybrid it gets what other
    surrogates make of them, and their errors add up. As weight-sharing architecture search trains
    its supernet (Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform
    Sampling", ECCV 2020, section 3.2):

    1. Every step draws a hybrid: the share of blocks that stay, evenly from 0 to 0.8, and for
       each of the others one candidate, evenly.
    2. The hybrid's output is drawn to the clean image and to the teacher's output. Only the
       surrogates of this hybrid change: the teacher's blocks stay what every other hybrid needs.
    3. Fidelity is measured anew, as `DistillBlocks` does. It gets worse where a surrogate makes
       up for others.

    Given:   candidates {"latent.0": (conv, mamba)}, distilled block by block
    Result:  the same candidates, which lose less together

    Args: see `TrainingPass`.
    """

    lr: float = 2e-3

    stage = "hybrids"
    after = (DistillBlocks,)

    def key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        return {**super().key(net, data, ctx), "candidates": candidate_digests(net)}

    def parts(self, students: Students) -> dict[str, Students]:
        return {"surrogates.sealed": students}

    def train(
        self,
        teacher: nn.Module,
        students: Students,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> None:
        students.train(ctx.train_on)
        hybrid = Hybrid(teacher, students)

        def compute(step: int) -> str:
            degraded, clean = (
                each.to(ctx.train_on, memory_format=torch.channels_last)
                for each in data.batch(step, self.batch, self.patch, ctx.seed)
            )
            chosen = hybrid.draw(random.Random(f"{ctx.seed}/{step}"))
            with mixed_precision(ctx.train_on):
                with torch.no_grad():
                    wanted = teacher(degraded)
                loss = imitation_loss(hybrid(chosen, degraded), clean, wanted)
            clipped_backward(loss, students.modules, _CLIP)
            return f"{len(chosen)} of {hybrid.blocks} replaced loss {loss.item():.4f}"

        parts = {"modules": students.modules}
        self.take_steps("distill hybrids", students.modules, parts, compute, state, ctx)


class Hybrid:
    """The teacher with some of its modules replaced by students, which it shares.

    Args:
        teacher: The network; a copy of it is used.
        students: The surrogates.
    """

    def __init__(self, teacher: nn.Module, students: Students) -> None:
        self._module = copy.deepcopy(teacher).requires_grad_(False)
        self._students: dict[str, list[Student]] = {}
        for student in students:
            self._students.setdefault(student.surrogate.block, []).append(student)

    @property
    def blocks(self) -> int:
        """How many blocks can be replaced."""
        return len(self._students)

    def draw(self, source: random.Random) -> list[Student]:
        """Draw a hybrid: the students that are in it, at least one."""
        return self.pick(source, source.uniform(0, _KEPT))

    def pick(self, source: random.Random, stays: float) -> list[Student]:
        """Draw a hybrid in which blocks stay with this probability."""
        chosen = [
            source.choice(each) for each in self._students.values() if source.random() >= stays
        ]
        return chosen or [source.choice(source.choice(list(self._students.values())))]

    def __call__(self, chosen: list[Student], images: torch.Tensor) -> torch.Tensor:
        """Run one hybrid, (B, C, H, W) float32; gradients reach the students in it."""
        own = {each.path: self._module.get_submodule(each.path) for each in chosen}
        try:
            for each in chosen:
                self._module.set_submodule(each.path, each.module)
            output: torch.Tensor = self._module(images)
            return output
        finally:
            for path, module in own.items():
                self._module.set_submodule(path, module)
