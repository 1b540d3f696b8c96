"""Train every surrogate on the features of the block it stands in for."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import PassError
from distillc.network import Network, Surrogate
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.training import (
    WEIGHT_DECAY,
    Clock,
    Features,
    RunState,
    Stateful,
    check_patch,
    clip_gradient,
    cosine_rate,
    set_rate,
    teacher_features,
)
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.workdir import read_tensors, weights_digest, write_json, write_tensors

_CLIP = 0.2  # gradient norm of one surrogate: the first steps are the roughest
_HELD_OUT = 8  # images that fidelity is measured on


@dataclass
class _Pupil:
    """A surrogate in training: a copy of the candidate's module, and the module it imitates."""

    surrogate: Surrogate
    path: str
    module: nn.Module

    @property
    def residual(self) -> bool:
        """A block is x + f(x), and f is what has to be learnt; an attention is f itself."""
        return self.surrogate.scope == "block"

    def change(self, features: Features) -> torch.Tensor:
        """What the teacher's module adds to its input (block), or returns (attention)."""
        given, wanted = features[self.path]
        return wanted - given if self.residual else wanted

    def loss(self, features: Features) -> torch.Tensor:
        """Norm of the error over the norm of the teacher's change; an idle pupil has 1.

        The norm converges a little faster than its square or an L1 norm.
        """
        given, wanted = features[self.path]
        return (self.module(given) - wanted).norm() / self.change(features).norm().clamp_min(1e-6)


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
        pupils = _enrol(net)
        stage = ctx.work.stage("distill", self._key(net, data, ctx)) if ctx.work else None
        result = stage / "fidelity.json" if stage else None
        if stage and result and result.exists():
            _load(pupils, stage / "surrogates.safetensors")
            fidelity = json.loads(result.read_text())
        else:
            state = RunState(stage / "state.pt" if stage else None)
            # Float32: bfloat16 would drown a small change in the rounding of a large input.
            teacher = copy.deepcopy(net.module).to(ctx.device).to(memory_format=torch.channels_last)
            self._train(teacher, pupils, data, state, ctx)
            fidelity = _fidelity(teacher, pupils, data, 2 * self.patch, ctx.device)
            if stage and result:
                write_tensors(stage / "surrogates.safetensors", _tensors(pupils))
                write_json(result, fidelity)
            state.clear()
        return _result(net, pupils, fidelity)

    def ensures(self, net: Network) -> None:
        for name, candidates in net.candidates.items():
            if any(each.fidelity is None for each in candidates):
                raise PassError("a candidate was not distilled", where=name)

    def _key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        return {
            "teacher": weights_digest(net.module),
            "candidates": [
                [each.block, each.label, weights_digest(each.module)]
                for candidates in net.candidates.values()
                for each in candidates
            ],
            "data": data.fingerprint,
            "options": [self.steps, self.batch, self.patch, self.lr],
            "seed": ctx.seed,
        }

    def _train(
        self,
        teacher: nn.Module,
        pupils: list[_Pupil],
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> None:
        for pupil in pupils:
            pupil.module.to(ctx.device).to(memory_format=torch.channels_last)
            pupil.module.train().requires_grad_(True)
        modules = nn.ModuleList(pupil.module for pupil in pupils)
        optimizer = torch.optim.AdamW(
            modules.parameters(), self.lr, weight_decay=WEIGHT_DECAY, fused=True
        )
        first = 0
        parts: dict[str, Stateful] = {"modules": modules, "optimizer": optimizer}
        if saved := state.load(parts):
            first = saved["step"]
        paths = [pupil.path for pupil in pupils]
        with ctx.task("distill blocks", self.steps) as shown:
            clock = Clock(first, self.steps)
            for step in range(first, self.steps):
                set_rate(optimizer, cosine_rate(step / self.steps, self.lr))
                degraded, _ = data.batch(step, self.batch, self.patch, ctx.seed)
                images = degraded.to(ctx.device, memory_format=torch.channels_last)
                features = teacher_features(teacher, paths, images)
                optimizer.zero_grad()
                losses = []
                for pupil in pupils:
                    loss = pupil.loss(features)
                    loss.backward()
                    clip_gradient(pupil.module, _CLIP)
                    losses.append(loss.detach())
                optimizer.step()
                done = step + 1
                shown.update(done, f"{_worst(pupils, losses)} {clock.left(done)}")
                state.save(parts, step=done)


def _enrol(net: Network) -> list[_Pupil]:
    pupils = []
    for name, candidates in net.candidates.items():
        block = net.block(name)
        for each in candidates:
            path = block.name if each.scope == "block" else block.attention
            pupils.append(_Pupil(each, path, copy.deepcopy(each.module)))
    return pupils


@torch.no_grad()
def _fidelity(
    teacher: nn.Module, pupils: list[_Pupil], data: RestorationData, crop: int, device: str
) -> list[float]:
    """Relative error of each pupil over all held-out images, in float32."""
    errors = [0.0] * len(pupils)
    energies = [0.0] * len(pupils)
    for pupil in pupils:
        pupil.module.eval()
    for degraded, _ in data.held_out(_HELD_OUT, crop):
        features = teacher_features(teacher, [each.path for each in pupils], degraded.to(device))
        for index, pupil in enumerate(pupils):
            given, wanted = features[pupil.path]
            errors[index] += (pupil.module(given) - wanted).square().sum().item()
            energies[index] += pupil.change(features).square().sum().item()
    return [
        (error / max(energy, 1e-12)) ** 0.5 for error, energy in zip(errors, energies, strict=True)
    ]


def _worst(pupils: list[_Pupil], losses: list[torch.Tensor]) -> str:
    """The pupil that is furthest from its teacher, and how far."""
    values = torch.stack(losses).tolist()  # one transfer from the device
    index = max(range(len(values)), key=values.__getitem__)
    return f"block {pupils[index].path} {pupils[index].surrogate.label} loss {values[index]:.3f}"


def _tensors(pupils: list[_Pupil]) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": tensor
        for index, pupil in enumerate(pupils)
        for name, tensor in pupil.module.state_dict().items()
    }


def _load(pupils: list[_Pupil], path: Path) -> None:
    tensors = read_tensors(path)
    for index, pupil in enumerate(pupils):
        own = pupil.module.state_dict()
        pupil.module.load_state_dict({name: tensors[f"{index}.{name}"] for name in own})


def _result(net: Network, pupils: list[_Pupil], fidelity: list[float]) -> PassResult:
    candidates: dict[str, tuple[Surrogate, ...]] = dict.fromkeys(net.candidates, ())
    for pupil, value in zip(pupils, fidelity, strict=True):
        module = pupil.module.cpu().to(memory_format=torch.contiguous_format)
        module.eval().requires_grad_(False)
        trained = replace(pupil.surrogate, module=module, fidelity=value)
        candidates[trained.block] += (trained,)
    notes = tuple(f"{name}: {_summary(each)}" for name, each in candidates.items())
    return PassResult(net.with_(candidates=candidates), True, notes)


def _summary(candidates: tuple[Surrogate, ...]) -> str:
    return ", ".join(f"{each.label} {each.fidelity:.3f}" for each in candidates)
