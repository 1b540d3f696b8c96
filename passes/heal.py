"""Fine-tune the hybrid end to end."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.data.metrics import mean_psnr
from distillc.forms import Tensors
from distillc.frontend.structure import module_digest
from distillc.network import KEEP, Network
from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.training import (
    Average,
    RunState,
    TrainingPass,
    clipped_backward,
    imitation_loss,
    judging_edge,
    mixed_precision,
)
from distillc.pipeline import Context, PassResult, require
from distillc.stages import Stage

_CLIP = 0.1  # gradient norm; L1 gradients are small, and one bad batch must not undo the start
_HELD_OUT = 12  # images that decide between before and after
_PSNR = "/psnr"  # no weight has such a name
_FIGURES = ("psnr_teacher", "psnr_before", "psnr_after")

ENOUGH = 0.08
"""Difference from the teacher, dB, that further rounds are not spent on."""

LITTLE = 0.02
"""Gain of a round, dB, that is too little for another one."""


@dataclass
class Heal(TrainingPass):
    """Fine-tune the hybrid end to end against the clean image and the teacher's output.

    1. Loss: L1(hybrid, clean) + `teacher_weight` * L1(hybrid, teacher), see `imitation_loss`.
    2. All weights are trained, those of the teacher's blocks too: they adapt to the new
       neighbours. The result is the moving average of the weights.
    3. PSNR on held-out images decides: if the result is not better, the hybrid stays as it was.
    4. What is still more than `ENOUGH` below the teacher is trained in further rounds, each twice
       as long as the one before (warm restarts: Loshchilov & Hutter, SGDR, 2017, section 3, T_mult
       of 2), as long as one gains more than `LITTLE`.

    Given:   decisions {"latent.0": "mamba", "latent.1": "keep"}, healed None
    Result:  healed {name: weight} for `Network.hybrid()`, metrics["heal"] with PSNR before/after

    Args: see `TrainingPass`, and
        teacher_weight: Weight of the teacher's output in the loss.
        rounds: At most so many: `steps` in the first, then twice as many, and so on.
    """

    teacher_weight: float = 1.0
    rounds: int = 1

    after = (ApplyReplacements,)

    def requires(self, net: Network) -> None:
        require(bool(net.decisions), "the network has no decisions", "ApplyReplacements")
        super().requires(net)

    def run(self, net: Network, ctx: Context) -> PassResult:
        if all(label == KEEP for label in net.decisions.values()):
            return PassResult(net, False, ("no block is replaced: nothing to heal",))
        data = open_data(self.data, self.task, *net.channels)
        hybrid, healed = net.hybrid(), None
        rounds: list[dict[str, Any]] = []
        for number in range(self.rounds):
            longer = replace(self, steps=self.steps << number)
            first = longer.steps - self.steps
            weights, figures = longer._round(net, hybrid, data, first, ctx)
            rounds.append(figures)
            gain = figures["psnr_after"] - figures["psnr_before"]
            if gain <= 0:  # rule 3
                break
            healed = weights
            hybrid.load_state_dict(weights)
            if gain < LITTLE or figures["psnr_teacher"] - figures["psnr_after"] < ENOUGH:  # rule 4
                break
        before, after = rounds[0]["psnr_before"], max(each["psnr_after"] for each in rounds)
        note = f"{before:.3f} dB -> {after:.3f} dB on held-out images"
        figures = {
            **rounds[0],
            "psnr_after": after,
            "steps": sum(each["steps"] for each in rounds),
            "accepted": healed is not None,
        }
        metrics = {**net.metrics, "heal": figures}
        if not healed:
            return PassResult(
                net.with_(metrics=metrics), True, (note, "not better: left as it was")
            )
        return PassResult(net.with_(healed=healed, metrics=metrics), True, (note,))

    def _round(
        self, net: Network, hybrid: nn.Module, data: RestorationData, first: int, ctx: Context
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the weights after a round, and its figures; from the work directory if there."""
        key = self._key(net, hybrid, data, ctx) | ({"first": first} if first else {})
        psnr = torch.zeros(len(_FIGURES), dtype=torch.float64)
        form = Tensors({**hybrid.state_dict(), _PSNR: psnr})
        with ctx.stage("heal", key) as stage:
            heal = partial(self._heal, net, copy.deepcopy(hybrid), data, first, stage, ctx)
            result = stage.once("hybrid.sealed", form, heal)
            RunState(stage).clear()
        weights = dict(result)
        figures = dict(zip(_FIGURES, weights.pop(_PSNR).tolist(), strict=True))
        return weights, {"steps": self.steps, **figures}

    def _key(
        self, net: Network, hybrid: nn.Module, data: RestorationData, ctx: Context
    ) -> dict[str, Any]:
        key = self.key(net, data, ctx)
        return {
            **key,
            "hybrid": module_digest(hybrid),
            "decisions": dict(net.decisions),
            "options": [*key["options"], self.teacher_weight],
        }

    def _heal(
        self,
        net: Network,
        hybrid: nn.Module,
        data: RestorationData,
        first: int,
        stage: Stage,
        ctx: Context,
    ) -> Mapping[str, torch.Tensor]:
        """Return the weights after a round, and the PSNRs that `_FIGURES` names."""
        teacher = copy.deepcopy(net.module).to(ctx.train_on)
        hybrid = hybrid.to(ctx.train_on)
        pairs = data.held_out(_HELD_OUT, judging_edge(net, self.patch))
        before = [mean_psnr(each, pairs, ctx.train_on) for each in (teacher, hybrid)]
        average = self._train(teacher, hybrid, data, first, RunState(stage), ctx)
        figures = [*before, mean_psnr(average, pairs, ctx.train_on)]
        weights = {name: each.cpu() for name, each in average.state_dict().items()}
        return {**weights, _PSNR: torch.tensor(figures, dtype=torch.float64)}

    def _train(
        self,
        teacher: nn.Module,
        hybrid: nn.Module,
        data: RestorationData,
        first: int,
        state: RunState,
        ctx: Context,
    ) -> nn.Module:
        """Train `hybrid`, on batches from `first` on, and return the module of averaged weights."""
        average = Average(hybrid)
        hybrid.train().requires_grad_(True)

        def compute(step: int) -> str:
            pair = data.batch(first + step, self.batch, self.patch, ctx.seed)
            degraded, clean = (each.to(ctx.train_on) for each in pair)
            with mixed_precision(ctx.train_on):
                with torch.no_grad():
                    wanted = teacher(degraded)
                loss = imitation_loss(hybrid(degraded), clean, wanted, self.teacher_weight)
            clipped_backward(loss, hybrid, _CLIP)
            return f"loss {loss.item():.4f}"

        parts = {"hybrid": hybrid, "average": average.module}
        self.take_steps("heal", hybrid, parts, compute, state, ctx, average)
        return average.module
