"""Train every surrogate on the features of the block it stands in for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import PassError
from distillc.frontend.calls import record_calls
from distillc.network import Network
from distillc.passes.pupils import Pupils, candidate_digests, summary
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.training import (
    WEIGHT_DECAY,
    Clock,
    RunState,
    Stateful,
    check_patch,
    clip_gradient,
    cosine_rate,
    set_rate,
)
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.workdir import weights_digest

_CLIP = 0.2  # gradient norm of one surrogate: the first steps are the roughest


@dataclass
class DistillBlocks(Pass):
    """Train every candidate of every block on the teacher's own features.

    The block-wise feature distillation of "Edge-Efficient Image Restoration" (arXiv 2605.02794),
    as far as its abstract tells:

    1. The teacher runs once a step on a degraded batch; the input and output of every block (of
       its attention, for candidates of that scope) are kept.
    2. Every candidate gets the teacher's input and is trained towards the teacher's output, with
       an error relative to what the block changes. Blocks train independently of each other.
    3. Fidelity is the relative error on held-out images: ||s(x) - t(x)|| / ||t(x) - x||; for an
       attention the denominator is ||t(x)||.

    Given:   candidates {"latent.0": (conv, scan1)} with initial weights, fidelity None
    Result:  the same candidates, trained, with fidelity

    Args:
        data: Folder of images or pairs; scikit-image's photographs by default.
        task: How clean images are degraded.
        steps: Training steps.
        batch: Images a step.
        patch: Edge of a training image, pixels.
        lr: Peak learning rate (AdamW, warm-up and cosine).
    """

    data: Path | None = None
    task: str = "denoise:sigma=25"
    steps: int = 1000
    batch: int = 8
    patch: int = 64
    lr: float = 1.2e-2

    after = (SynthesizeSurrogates,)

    def requires(self, net: Network) -> None:
        require(bool(net.candidates), "the network has no candidates", "SynthesizeSurrogates")
        check_scale(parse_task(self.task), net.scale)
        check_patch(net, self.patch)

    def run(self, net: Network, ctx: Context) -> PassResult:
        data = open_data(self.data, self.task, net.in_channels)
        pupils = Pupils(net)
        stage = ctx.work.stage("distill", self._key(net, data, ctx)) if ctx.work else None
        fidelity = pupils.load(stage) if stage else None
        if fidelity is None:
            state = RunState(stage / "state.pt" if stage else None)
            # Float32: bfloat16 would drown a small change in the rounding of a large input.
            teacher = copy.deepcopy(net.module).to(ctx.device).to(memory_format=torch.channels_last)
            self._train(teacher, pupils, data, state, ctx)
            fidelity = pupils.fidelity(teacher, data, 2 * self.patch, ctx.device)
            if stage:
                pupils.save(stage, fidelity)
            state.clear()
        candidates = pupils.graduates(fidelity)
        return PassResult(net.with_(candidates=candidates), True, summary(candidates))

    def ensures(self, net: Network) -> None:
        for name, candidates in net.candidates.items():
            if any(each.fidelity is None for each in candidates):
                raise PassError("a candidate was not distilled", where=name)

    def _key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        return {
            "teacher": weights_digest(net.module),
            "candidates": candidate_digests(net),
            "data": data.fingerprint,
            "options": [self.steps, self.batch, self.patch, self.lr],
            "seed": ctx.seed,
        }

    def _train(
        self,
        teacher: nn.Module,
        pupils: Pupils,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> None:
        pupils.train(ctx.device)
        optimizer = torch.optim.AdamW(
            pupils.modules.parameters(), self.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        first = 0
        parts: dict[str, Stateful] = {"modules": pupils.modules, "optimizer": optimizer}
        if saved := state.load(parts):
            first = saved["step"]
        with ctx.task("distill blocks", self.steps) as shown:
            clock = Clock(first, self.steps)
            for step in range(first, self.steps):
                set_rate(optimizer, cosine_rate(step / self.steps, self.lr))
                degraded, _ = data.batch(step, self.batch, self.patch, ctx.seed)
                images = degraded.to(ctx.device, memory_format=torch.channels_last)
                calls = record_calls(teacher, pupils.paths, images)
                optimizer.zero_grad()
                losses = []
                for pupil in pupils:
                    loss = pupil.loss(calls)
                    loss.backward()
                    clip_gradient(pupil.module, _CLIP)
                    losses.append(loss.detach())
                optimizer.step()
                done = step + 1
                shown.update(done, f"{_worst(pupils, losses)} {clock.left(done)}")
                state.save(parts, step=done)


def _worst(pupils: Pupils, losses: list[torch.Tensor]) -> str:
    """The pupil that is furthest from its teacher, and how far."""
    values = torch.stack(losses).tolist()  # one transfer from the device
    value, worst = max(zip(values, pupils, strict=True), key=lambda pair: pair[0])
    return f"block {worst.path} {worst.surrogate.label} loss {value:.3f}"
