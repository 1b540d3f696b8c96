"""Surrogates in training: copies of a network's candidates, and what they have learnt."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.forms import Tensors
from distillc.frontend.calls import Call, record_calls
from distillc.frontend.structure import module_digest
from distillc.network import Network, Surrogate
from distillc.passes.training import RunState, TrainingPass, judging_edge
from distillc.pipeline import Context, PassResult, require
from distillc.stages import Stage
from distillc.surrogates.stand_in import StandIn

_HELD_OUT = 8  # images that fidelity is measured on
_FIDELITY = "/fidelity"  # no weight has such a name


@dataclass
class Student:
    """A surrogate in training: a copy of the candidate's module.

    Attributes:
        surrogate: The candidate.
        path: The module that it imitates.
        attention: The attention inside that module, or the module itself.
        module: The copy.
    """

    surrogate: Surrogate
    path: str
    attention: str
    module: nn.Module

    @property
    def residual(self) -> bool:
        """A block is x + f(x), and f is what has to be learnt; an attention is f itself."""
        return self.surrogate.scope == "block"

    def change(self, calls: Mapping[str, Call]) -> torch.Tensor:
        """What the teacher's module adds to its input (block), or returns (attention)."""
        call = calls[self.path]
        return call.result - call.given if self.residual else call.result

    def error(self, calls: Mapping[str, Call]) -> torch.Tensor:
        """What the student returns in the same call, less what the teacher's module did."""
        call = calls[self.path]
        return call.repeat(self.module) - call.result

    def loss(self, calls: Mapping[str, Call]) -> torch.Tensor:
        """Norm of the error over the norm of the teacher's change; an idle student has 1.

        The norm converges a little faster than its square or an L1 norm.
        """
        return self.error(calls).norm() / self.change(calls).norm().clamp_min(1e-6)

    def calibrate(self, calls: Mapping[str, Call]) -> None:
        """Give the student what real input tells before training, see `StandIn.calibrate`."""
        given, mixed = calls[self.path].given, self.change(calls)
        if self.attention in calls and calls[self.attention].result.shape == given.shape:
            mixed = calls[self.attention].result
        if isinstance(self.module, StandIn):
            self.module.calibrate(given, mixed)


class Students:
    """Copies of all candidates of a network, in the order of its blocks.

    Attributes:
        modules: Their modules, to train.
    """

    def __init__(self, net: Network) -> None:
        self._net = net
        self._students = []
        for name, candidates in net.candidates.items():
            block = net.block(name)
            for each in candidates:
                path = block.name if each.scope == "block" else block.attention
                module = copy.deepcopy(each.module)
                self._students.append(Student(each, path, block.attention, module))
        self.modules = nn.ModuleList(student.module for student in self)

    def __iter__(self) -> Iterator[Student]:
        return iter(self._students)

    @property
    def paths(self) -> list[str]:
        """The module that each one imitates."""
        return [student.path for student in self]

    def calibrate(self, teacher: nn.Module, images: torch.Tensor) -> None:
        """Let every student start from what its block does on these images."""
        paths = [path for each in self for path in (each.path, each.attention)]
        calls = record_calls(teacher, paths, images)
        for student in self:
            student.calibrate(calls)

    def train(self, device: str) -> None:
        """Make the modules ready for training, on a device."""
        self.modules.to(device).to(memory_format=torch.channels_last)
        self.modules.train().requires_grad_(True)

    @torch.no_grad()
    def fidelity(
        self, teacher: nn.Module, data: RestorationData, crop: int, device: str
    ) -> list[float]:
        """Relative error of each over all held-out images, in float32."""
        errors = [0.0] * len(self._students)
        energies = [0.0] * len(self._students)
        self.modules.eval()
        for degraded, _ in data.held_out(_HELD_OUT, crop):
            calls = record_calls(teacher, self.paths, degraded.to(device))
            for index, student in enumerate(self):
                errors[index] += student.error(calls).square().sum().item()
                energies[index] += student.change(calls).square().sum().item()
        return [
            (error / max(energy, 1e-12)) ** 0.5
            for error, energy in zip(errors, energies, strict=True)
        ]

    def trained(self, fidelity: list[float]) -> dict[str, tuple[Surrogate, ...]]:
        """Return the candidates as they are now, by block."""
        candidates: dict[str, tuple[Surrogate, ...]] = dict.fromkeys(self._net.candidates, ())
        for student, value in zip(self, fidelity, strict=True):
            module = student.module.cpu().to(memory_format=torch.contiguous_format)
            module.eval().requires_grad_(False)
            trained = replace(student.surrogate, module=module, fidelity=value)
            candidates[trained.block] += (trained,)
        return candidates

    def result(self, fidelity: list[float]) -> dict[str, torch.Tensor]:
        """Return what a finished run has learnt: weights, and fidelities."""
        figures = torch.tensor(fidelity, dtype=torch.float64)
        return {**self.modules.state_dict(), _FIDELITY: figures}

    def take(self, result: Mapping[str, torch.Tensor]) -> list[float]:
        """Take the weights of a finished run; return its fidelities."""
        weights = dict(result)
        fidelity: list[float] = weights.pop(_FIDELITY).tolist()
        self.modules.load_state_dict(weights)
        return fidelity


@dataclass
class Distillation(TrainingPass):
    """What the passes that train candidates have in common: students, stage and result."""

    stage: ClassVar[str]
    """Where its results are kept in the work directory."""

    def requires(self, net: Network) -> None:
        require(bool(net.candidates), "the network has no candidates", "SynthesizeSurrogates")
        super().requires(net)

    def key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        return {**super().key(net, data, ctx), "candidates": candidate_digests(net)}

    def run(self, net: Network, ctx: Context) -> PassResult:
        data = open_data(self.data, self.task, net.in_channels)
        students = Students(net)

        def learn(stage: Stage) -> Mapping[str, torch.Tensor]:
            teacher = copy.deepcopy(net.module).to(ctx.train_on)
            self.train(teacher, students, data, RunState(stage), ctx)
            edge = judging_edge(net, self.patch)
            return students.result(students.fidelity(teacher, data, edge, ctx.train_on))

        form = Tensors(copy.deepcopy(students.result([0.0] * len(students.paths))))
        with ctx.stage(self.stage, self.key(net, data, ctx)) as stage:
            result = stage.once("surrogates.sealed", form, lambda: learn(stage))
            RunState(stage).clear()
        candidates = students.trained(students.take(result))
        return PassResult(net.with_(candidates=candidates), True, _summary(candidates))

    @abstractmethod
    def train(
        self,
        teacher: nn.Module,
        students: Students,
        data: RestorationData,
        state: RunState,
        ctx: Context,
    ) -> None:
        """Train the students; `state` brings back what an earlier run has done."""


def candidate_digests(net: Network) -> list[Any]:
    """Return what the candidates are, weights included, as JSON values for a stage's key."""
    return [
        [each.block, each.label, module_digest(each.module)]
        for candidates in net.candidates.values()
        for each in candidates
    ]


def _summary(candidates: dict[str, tuple[Surrogate, ...]]) -> tuple[str, ...]:
    """Return one line per block: its candidates and their fidelities."""
    return tuple(
        f"{name}: " + ", ".join(f"{each.label} {each.fidelity:.3f}" for each in found)
        for name, found in candidates.items()
    )
