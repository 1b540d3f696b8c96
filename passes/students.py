"""Surrogates in training: copies of a network's candidates, and what they have learnt."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from distillc.data.images import RestorationData, open_data
from distillc.forms import Tensors
from distillc.frontend.calls import Call, record_calls
from distillc.frontend.structure import module_digest
from distillc.network import Block, Network, Surrogate
from distillc.passes.training import RunState, TrainingPass, judging_edge
from distillc.pipeline import Context, PassResult, require
from distillc.stages import Stage
from distillc.surrogates.answering import Answering
from distillc.surrogates.branches import FEED_FORWARD, find_branches
from distillc.surrogates.stand_in import StandIn
from distillc.workdir import digest

_HELD_OUT = 8  # images that fidelity is measured on
_FIDELITY = "/fidelity"  # no weight has such a name


@dataclass
class Student:
    """A surrogate in training: a copy of the candidate's module.

    Attributes:
        surrogate: The candidate.
        path: The module that it imitates.
        attention: The attention inside that module, or the module itself.
        middle: The norm before the block's feed-forward and the layer after it, where known.
        module: The copy.
        fidelity: Its relative error, once it was judged.
    """

    surrogate: Surrogate
    path: str
    attention: str
    middle: tuple[str, ...]
    module: nn.Module
    fidelity: float = math.nan

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
        made = call.run(self.module)
        errors = [made[call.at] - call.result]
        errors += [made[number] - each for number, each in self._beside(call)]
        return _joined(errors)

    def target(self, calls: Mapping[str, Call]) -> torch.Tensor:
        """What has to be learnt: the change, and what is returned beside it."""
        beside = [each for _, each in self._beside(calls[self.path])]
        return _joined([self.change(calls), *beside])

    def _beside(self, call: Call) -> list[tuple[int, torch.Tensor]]:
        if not isinstance(self.module, Answering):
            return []
        return [(int(number), call.beside[int(number)]) for number in self.module.beside]

    def loss(self, calls: Mapping[str, Call]) -> torch.Tensor:
        """Norm of the error over the norm of the teacher's change; an idle student has 1.

        The norm converges a little faster than its square or an L1 norm.
        """
        return self.error(calls).norm() / self.target(calls).norm().clamp_min(1e-6)

    def calibrate(self, calls: Mapping[str, Call]) -> None:
        """Give the student what real input tells before training, see `StandIn.calibrate`."""
        given, mixed = calls[self.path].given, self.change(calls)
        inner = calls.get(self.attention) if self.attention != self.path else None
        if (between := self._between(calls)) is not None and between.shape == given.shape:
            mixed = between - given  # the attention itself may see windows
        elif inner is not None and inner.result.shape == given.shape:
            mixed = inner.result
        if isinstance(self.module, StandIn):
            self.module.calibrate(given, mixed)

    def _between(self, calls: Mapping[str, Call]) -> torch.Tensor | None:
        """Return what stands between the attention and the feed-forward."""
        if not self.middle or not set(self.middle) <= calls.keys():
            return None
        norm, layer = (calls[path] for path in self.middle)
        # Else the norm stands behind the feed-forward.
        return norm.given if torch.equal(norm.result, layer.given) else None


def _middle(net: Network, block: Block) -> tuple[str, ...]:
    """Return `Student.middle` of candidates for the whole block."""
    channels = block.shape[1] if block.layout == "image" else block.shape[-1]
    found = find_branches(net.module.get_submodule(block.name), channels, FEED_FORWARD)
    if found is None or found.norm is None:
        return ()
    return f"{block.name}.{found.norm}", f"{block.name}.{found.first}"


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([each.flatten() for each in tensors])


class Students:
    """Surrogates in training, in an order.

    Args:
        students: Those of `Students.of`, or some of them, which they share.

    Attributes:
        modules: Their modules, to train.
    """

    def __init__(self, students: Iterable[Student]) -> None:
        self._students = tuple(students)
        self.modules = nn.ModuleList(student.module for student in self)

    @classmethod
    def of(cls, net: Network) -> Students:
        """Copy all candidates of a network, in the order of its blocks."""
        students = []
        for name, candidates in net.candidates.items():
            block, middle = net.block(name), _middle(net, net.block(name))
            for each in candidates:
                whole = each.scope == "block"
                students.append(
                    Student(
                        each,
                        name if whole else block.attention,
                        block.attention,
                        middle if whole else (),
                        copy.deepcopy(each.module),
                    )
                )
        return cls(students)

    def __iter__(self) -> Iterator[Student]:
        return iter(self._students)

    @property
    def paths(self) -> list[str]:
        """The module that each one imitates."""
        return [student.path for student in self]

    def calibrate(self, teacher: nn.Module, images: torch.Tensor) -> None:
        """Let every student start from what its block does on these images."""
        paths = [path for each in self for path in (each.path, each.attention, *each.middle)]
        calls = record_calls(teacher, paths, images)
        for student in self:
            student.calibrate(calls)

    def train(self, device: str) -> None:
        """Make the modules ready for training, on a device."""
        self.modules.to(device).to(memory_format=torch.channels_last)
        self.modules.train().requires_grad_(True)

    @torch.no_grad()
    def judge(self, teacher: nn.Module, data: RestorationData, crop: int, device: str) -> None:
        """Give each its relative error over all held-out images, in float32."""
        errors = [0.0] * len(self._students)
        energies = [0.0] * len(self._students)
        self.modules.eval()
        for degraded, _ in data.held_out(_HELD_OUT, crop):
            calls = record_calls(teacher, self.paths, degraded.to(device))
            for index, student in enumerate(self):
                errors[index] += student.error(calls).square().sum().item()
                energies[index] += student.target(calls).square().sum().item()
        for student, error, energy in zip(self, errors, energies, strict=True):
            student.fidelity = (error / max(energy, 1e-12)) ** 0.5

    def trained(self) -> dict[str, tuple[Surrogate, ...]]:
        """Return the surrogates as they are now, by block."""
        found: dict[str, tuple[Surrogate, ...]] = {}
        for student in self:
            module = student.module.cpu().to(memory_format=torch.contiguous_format)
            module.eval().requires_grad_(False)
            trained = replace(student.surrogate, module=module, fidelity=student.fidelity)
            found[trained.block] = (*found.get(trained.block, ()), trained)
        return found

    def result(self) -> dict[str, torch.Tensor]:
        """Return what they have learnt: weights, and fidelities."""
        figures = torch.tensor([student.fidelity for student in self], dtype=torch.float64)
        return {**self.modules.state_dict(), _FIDELITY: figures}

    @property
    def form(self) -> Tensors:
        """The form of such a result, of weights as they are now."""
        result = copy.deepcopy(self.result())
        return Tensors({**result, _FIDELITY: torch.zeros_like(result[_FIDELITY])})

    def take(self, result: Mapping[str, torch.Tensor]) -> None:
        """Take what students like these have learnt."""
        weights = dict(result)
        for student, fidelity in zip(self, weights.pop(_FIDELITY).tolist(), strict=True):
            student.fidelity = fidelity
        self.modules.load_state_dict(weights)


@dataclass
class Distillation(TrainingPass):
    """What the passes that train candidates have in common: students, stage and result."""

    stage: ClassVar[str]
    """Where its results are kept in the work directory."""

    def requires(self, net: Network) -> None:
        require(bool(net.candidates), "the network has no candidates", "SynthesizeSurrogates")
        super().requires(net)

    def run(self, net: Network, ctx: Context) -> PassResult:
        data = open_data(self.data, self.task, *net.channels)
        students = Students.of(net)
        parts = self.parts(students)
        forms = {name: part.form for name, part in parts.items()}  # of finite weights, untrained
        with ctx.stage(self.stage, self.key(net, data, ctx)) as stage:
            for name, form in forms.items():
                if (result := stage.kept(name, form)) is not None:
                    parts.pop(name).take(result)
            if parts:
                self._learn(net, data, parts, stage, ctx)
                for name, part in parts.items():
                    stage.keep(name, forms[name], part.result())
                self._state(stage, parts).clear()
        candidates = students.trained()
        return PassResult(net.with_(candidates=candidates), True, _summary(candidates))

    def _learn(
        self,
        net: Network,
        data: RestorationData,
        parts: Mapping[str, Students],
        stage: Stage,
        ctx: Context,
    ) -> None:
        """Train and judge all students of some parts."""
        students = Students(each for part in parts.values() for each in part)
        teacher = copy.deepcopy(net.module).to(ctx.train_on)
        self.train(teacher, students, data, self._state(stage, parts), ctx)
        students.judge(teacher, data, judging_edge(net, self.patch), ctx.train_on)

    def _state(self, stage: Stage, parts: Iterable[str]) -> RunState:
        return RunState(stage, digest(sorted(parts)))

    @abstractmethod
    def parts(self, students: Students) -> dict[str, Students]:
        """Return the students that learn together, by the name under which they are kept."""

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
    return [surrogate_key(each) for candidates in net.candidates.values() for each in candidates]


def surrogate_key(surrogate: Surrogate) -> list[str]:
    """Return what a surrogate is, weights included, as JSON values."""
    return [surrogate.block, surrogate.label, module_digest(surrogate.module)]


def _summary(candidates: dict[str, tuple[Surrogate, ...]]) -> tuple[str, ...]:
    """Return one line per block: its candidates and their fidelities."""
    return tuple(
        f"{name}: " + ", ".join(f"{each.label} {each.fidelity:.3f}" for each in found)
        for name, found in candidates.items()
    )
