"""Fine-tune the hybrid end to end."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.network import KEEP, Network
from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.training import (
    Average,
    RunState,
    TrainingPass,
    clip_gradient,
    imitation_loss,
    judging_edge,
    mean_psnr,
    mixed_precision,
)
from distillc.pipeline import Context, PassResult, require
from distillc.workdir import read_tensors, weights_digest, write_json, write_tensors

_CLIP = 0.1  # gradient norm; L1 gradients are small, and one bad batch must not undo the start
_HELD_OUT = 12  # images that decide between before and after


@dataclass
class Heal(TrainingPass):
    """Fine-tune the hybrid end to end against the clean image and the teacher's output.

    1. Loss: L1(hybrid, clean) + `teacher_weight` * L1(hybrid, teacher), see `imitation_loss`.
    2. All weights are trained, those of the teacher's blocks too: they adapt to the new
       neighbours. The result is the moving average of the weights.
    3. PSNR on held-out images decides: if the result is not better, the hybrid stays as it was.

    Given:   decisions {"latent.0": "scan1", "latent.1": "keep"}, healed None
    Result:  healed {name: weight} for `Network.hybrid()`, metrics["heal"] with PSNR before/after

    Args: see `TrainingPass`, and
        teacher_weight: Weight of the teacher's output in the loss.
    """

    teacher_weight: float = 1.0

    after = (ApplyReplacements,)

    def requires(self, net: Network) -> None:
        require(bool(net.decisions), "the network has no decisions", "ApplyReplacements")
        super().requires(net)

    def run(self, net: Network, ctx: Context) -> PassResult:
        if all(label == KEEP for label in net.decisions.values()):
            return PassResult(net, False, ("no block is replaced: nothing to heal",))
        data = open_data(self.data, self.task, net.in_channels)
        hybrid = net.hybrid()
        stage = ctx.work.stage("heal", self._key(net, hybrid, data, ctx)) if ctx.work else None
        result = stage / "heal.json" if stage else None
        if stage and result and result.exists():
            weights = read_tensors(stage / "hybrid.safetensors")
            figures = json.loads(result.read_text())
        else:
            state = RunState(stage / "state.pt" if stage else None)
            weights, figures = self._heal(net, hybrid, data, state, ctx)
            if stage and result:
                write_tensors(stage / "hybrid.safetensors", weights)
                write_json(result, figures)
            state.clear()
        better = figures["psnr_after"] > figures["psnr_before"]
        note = (
            f"{figures['psnr_before']:.3f} dB -> {figures['psnr_after']:.3f} dB on held-out images"
        )
        metrics = {**net.metrics, "heal": {**figures, "accepted": better}}
        if not better:
            return PassResult(
                net.with_(metrics=metrics), True, (note, "not better: left as it was")
            )
        return PassResult(net.with_(healed=weights, metrics=metrics), True, (note,))

    def _key(
        self, net: Network, hybrid: nn.Module, data: RestorationData, ctx: Context
    ) -> dict[str, Any]:
        key = self.key(net, data, ctx)
        return {
            **key,
            "hybrid": weights_digest(hybrid),
            "decisions": dict(net.decisions),
            "options": [*key["options"], self.teacher_weight],
        }

    def _heal(
        self,
        net: Network,
        hybrid: nn.Module,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        teacher = copy.deepcopy(net.module).to(ctx.device)
        hybrid = hybrid.to(ctx.device)
        pairs = data.held_out(_HELD_OUT, judging_edge(net, self.patch))
        figures = {
            "steps": self.steps,
            "psnr_teacher": mean_psnr(teacher, pairs, ctx.device),
            "psnr_before": mean_psnr(hybrid, pairs, ctx.device),
        }
        average = self._train(teacher, hybrid, data, state, ctx)
        figures["psnr_after"] = mean_psnr(average, pairs, ctx.device)
        return {name: each.cpu() for name, each in average.state_dict().items()}, figures

    def _train(
        self,
        teacher: nn.Module,
        hybrid: nn.Module,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> nn.Module:
        """Train `hybrid` and return the module of averaged weights."""
        average = Average(hybrid)
        hybrid.train().requires_grad_(True)

        def compute(step: int) -> str:
            degraded, clean = (
                each.to(ctx.device) for each in data.batch(step, self.batch, self.patch, ctx.seed)
            )
            with mixed_precision(ctx.device):
                with torch.no_grad():
                    wanted = teacher(degraded)
                loss = imitation_loss(hybrid(degraded), clean, wanted, self.teacher_weight)
            loss.backward()
            clip_gradient(hybrid, _CLIP)
            return f"loss {loss.item():.4f}"

        parts = {"hybrid": hybrid, "average": average.module}
        self.take_steps("heal", hybrid, parts, compute, state, ctx, average)
        return average.module
