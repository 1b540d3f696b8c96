"""Train every surrogate on the features of the block it stands in for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData
from distillc.errors import PassError
from distillc.executor.base import Job
from distillc.frontend.calls import Call, record_calls
from distillc.network import Network
from distillc.passes.students import Distillation, Student, Students, surrogate_key
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.training import (
    WEIGHT_DECAY,
    Clock,
    RunState,
    clipped_backward,
    cosine_rate,
    set_rate,
)
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

        learners = [Learner(each, self.lr) for each in students]
        parts = {str(number): each for number, each in enumerate(learners)}
        done = state.load(parts)
        groups = share_out(learners, ctx.executor.workers)
        shared = [ctx.executor.share((teacher, group)) for group in groups]
        with ctx.progress_line("distill blocks", self.steps) as shown:
            clock, seen = Clock(done, self.steps), done

            def watch(step: int, line: str) -> None:
                nonlocal seen
                if step > seen:  # else the job has shown it already
                    shown.update(step, f"{line} {clock.left(step)}")
                    seen = step

            while done < self.steps:
                last = min(self.steps, done + clock.at_once(done))
                numbers = range(done, last)
                batches = [data.batch(n, self.batch, self.patch, ctx.seed)[0] for n in numbers]
                rates = [cosine_rate(step / self.steps, self.lr) for step in numbers]
                jobs = [
                    Job(
                        f"distill {group[0].student.path} to {group[-1].student.path}",
                        learn,
                        (own, [each.state_dict() for each in group], batches, rates, done),
                        watch,
                        ctx.train_on != "cpu",
                    )
                    for own, group in zip(shared, groups, strict=True)
                ]
                lines = []
                pending = [ctx.executor.submit(each) for each in jobs]
                for group, result in zip(groups, ctx.executor.gather(pending), strict=True):
                    states, worst = result
                    lines.append(worst)
                    for learner, learnt in zip(group, states, strict=True):
                        learner.load_state_dict(learnt)
                done = last
                watch(done, _say(max(lines)))
                state.save(parts, done)


class Learner:
    """A student and what its training remembers.

    Args:
        student: Its module is trained in place.
        lr: Peak learning rate.
    """

    def __init__(self, student: Student, lr: float) -> None:
        self.student = student
        weights = list(student.module.parameters())
        self._optimizer = (
            torch.optim.AdamW(weights, lr, weight_decay=WEIGHT_DECAY, fused=True)
            if weights
            else None  # what leaves its block out has nothing to learn
        )

    def step(self, calls: Mapping[str, Call], rate: float) -> torch.Tensor:
        """Take a training step; return the loss before it, 0-d float32."""
        loss = self.student.loss(calls)
        if self._optimizer:
            set_rate(self._optimizer, rate)
            self._optimizer.zero_grad()
            clipped_backward(loss, self.student.module, _CLIP)
            self._optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return weights and what the optimizer remembers."""
        optimizer = self._optimizer.state_dict() if self._optimizer else {}
        return {"module": self.student.module.state_dict(), "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.student.module.load_state_dict(state["module"])
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])


Worst = tuple[float, str, str]
"""The largest loss, and the path and label of the student that has it."""


def learn(
    shared: tuple[nn.Module, list[Learner]],
    states: list[dict[str, Any]],
    batches: list[torch.Tensor],
    rates: list[float],
    done: int,
    watch: Callable[[int, str], object] | None = None,
) -> tuple[list[dict[str, Any]], Worst]:
    """Take some training steps with some learners.

    Args:
        shared: The teacher and the learners, of which copies are trained.
        states: What the learners have learnt so far.
        batches: Degraded images of each step, (B, C, H, W) float32.
        rates: Learning rate of each step.
        done: Steps taken before.
        watch: Called after each step, with how many are done and a line to show.

    Returns:
        What they have learnt now, and the worst of the last step.
    """
    teacher, learners = shared[0], copy.deepcopy(shared[1])
    device = next((each.device for each in teacher.parameters()), torch.device("cpu"))
    for learner, state in zip(learners, states, strict=True):
        learner.load_state_dict(copy.deepcopy(state))  # an optimizer keeps what it is given
    paths = [each.student.path for each in learners]
    for step, (degraded, rate) in enumerate(zip(batches, rates, strict=True), done + 1):
        # Float32: bfloat16 would drown a small change in the rounding of a large input.
        images = degraded.to(device, memory_format=torch.channels_last)
        calls = record_calls(teacher, paths, images)
        losses = [each.step(calls, rate) for each in learners]
        worst = _worst(learners, losses)
        if watch:
            watch(step, _say(worst))
    return [copy.deepcopy(each.state_dict()) for each in learners], worst


def share_out(learners: Sequence[Learner], workers: int) -> list[list[Learner]]:
    """Split learners, in their order, into at most so many groups of nearly equal work."""
    work = [max(1, each.student.surrogate.cost.macs) for each in learners]
    groups: dict[int, list[Learner]] = {}
    before = 0
    for learner, own in zip(learners, work, strict=True):
        middle = before + own / 2
        groups.setdefault(int(workers * middle / sum(work)), []).append(learner)
        before += own
    return list(groups.values())


def _worst(learners: Sequence[Learner], losses: list[torch.Tensor]) -> Worst:
    """Return who is furthest from the teacher, and how far."""
    values = torch.stack(losses).tolist()  # one transfer from the device
    return max(
        (value, each.student.path, each.student.surrogate.label)
        for value, each in zip(values, learners, strict=True)
    )


def _say(worst: Worst) -> str:
    loss, path, label = worst
    return f"block {path} {label} loss {loss:.3f}"
