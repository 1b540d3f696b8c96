"""ProfileBlocks: every block and candidate gets a latency, equal ones are built once, all kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from distillc.codegen.tuning import time_modules
from distillc.errors import PreconditionError
from distillc.frontend.trace import image_shapes
from distillc.network import Block, Cost, Network
from distillc.passes import profile_blocks
from distillc.passes.find_attention import FindAttention
from distillc.passes.profile_blocks import ProfileBlocks
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pipeline
from distillc.runtime.benchmark import Stats
from distillc.stages import WorkDir
from distillc.targets.base import Target
from tests.benchmarks.kinds.finding_more import Reciprocal

from .toy import toy_network

PROFILE = ProfileBlocks(threads=1, rounds=3, runs=2)


class Machine:
    """In place of compiler and device: a module takes as many ms as it has parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[ExportedProgram] = []
        self.runs: list[int] = []
        monkeypatch.setattr(time_modules, "build_library", self.build)
        monkeypatch.setattr(time_modules, "time_libraries", self.time)

    def build(self, program: ExportedProgram, _: Target, path: Path, *rest: object) -> Any:
        self.built.append(program)
        path.write_text(str(sum(each.numel() for each in program.parameters())))
        path.chmod(0o755)
        return SimpleNamespace(output_shape=image_shapes(program)[1])

    def time(self, libraries: Sequence[Path], *_: object, **options: object) -> list[Stats]:
        self.runs.append(len(libraries))
        sizes = [float(path.read_text().split()[0]) for path in libraries]  # a checksum follows
        return [Stats(size, size, size, 1, 3, 1, "host", 1.0) for size in sizes]


def network() -> Network:
    net = toy_network()
    blocks = tuple(
        replace(block, cost=Cost(1, 100), attention_cost=Cost(1, 75)) for block in net.blocks
    )
    return net.with_(blocks=blocks)


def test_everything_gets_a_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    net = network()
    result = PROFILE(net)
    convolution = 6 * 6 * 9 + 6
    assert [block.latency_ms for block in result.blocks] == [convolution] * 2
    for found in result.candidates.values():
        whole, attention = found
        assert whole.latency_ms == convolution
        assert attention.latency_ms == pytest.approx(1.25 * convolution)  # and the block's rest
    profile = result.metrics["profile"]
    total = sum(each.numel() for each in net.module.parameters())
    assert profile["network_ms"] == total
    assert profile["rest_ms"] == total - 2 * convolution
    assert (profile["device"], profile["threads"]) == ("host", 1)
    assert net.blocks[0].latency_ms is None


class Shifted(nn.Module):
    """A block that is given more than its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor, by: torch.Tensor, times: int) -> torch.Tensor:
        return x + by * times * self.weight.sum()


class Shifting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shifted = Shifted()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.shifted(x, x.mean(), times=2)
        return output


def test_a_block_that_is_given_more_is_timed_as_it_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Machine(monkeypatch)
    shape, cost = (1, 3, 8, 8), Cost(1, 100)
    block = Block("shifted", "shifted", "global", shape, shape, cost, cost)
    result = PROFILE(Network(Shifting().eval(), (8, 8), blocks=(block,)))
    assert result.blocks[0].latency_ms == 5


def test_candidates_that_return_several_values_are_timed_as_they_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Machine(monkeypatch)
    net = Pipeline([Trace(), FindAttention(), SynthesizeSurrogates(["conv"])])(
        Network(Reciprocal().eval(), (32, 32))
    )
    result = PROFILE(net)
    scale = result.metrics["profile"]["scale"]
    for (timed,) in result.candidates.values():
        assert timed.latency_ms == scale * sum(each.numel() for each in timed.module.parameters())


def test_equal_structures_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    PROFILE(network())
    # The network with and without blocks, one block of two, one of two candidates of each scope;
    # for each shape nothing.
    assert len(machine.built) == 7
    assert machine.runs in ([3, 4] * 3, [4, 3] * 3)  # every round runs every shape


def test_modules_that_differ_without_weights_are_built_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    net = network()
    (first, *_) = net.candidates["blocks.0"]
    pools = tuple(
        replace(first, spec=f"pool{size}", module=nn.AvgPool2d(size, 1, size // 2))
        for size in (3, 5)
    )
    PROFILE(net.with_(candidates={"blocks.0": pools}))
    assert sum("avg_pool2d" in program.graph_module.code for program in machine.built) == 2


class Scaled(nn.Module):
    """A surrogate whose options are in a list and in a type; its parameters tell its cost."""

    def __init__(self, factors: list[float], dtype: torch.dtype) -> None:
        super().__init__()
        self.factors, self.dtype = factors, dtype
        self.weight = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for factor in self.factors:
            x = x * factor * self.weight
        return x.to(self.dtype).float()


@pytest.mark.parametrize("spec", [("scaled:a=1", "scaled:a=2"), ("scaled", "scaled")])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Scaled([1.0], torch.float32), Scaled([1.0, 2.0], torch.float32)),
        (Scaled([1.0], torch.float32), Scaled([1.0], torch.float16)),
    ],
    ids=["list", "dtype"],
)
def test_options_in_lists_and_types_get_costs_of_their_own(
    one: Scaled, other: Scaled, spec: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Costly(Machine):
        """A product takes 10 ms, what names float16 one more (a cast and its check)."""

        def build(self, program: ExportedProgram, _: Target, path: Path, *rest: object) -> Any:
            built = super().build(program, _, path, *rest)
            code = program.graph_module.code
            path.write_text(str(10 * code.count("aten.mul") + code.count("torch.float16")))
            return built

    Costly(monkeypatch)
    net = network()
    (first, *_) = net.candidates["blocks.0"]
    pair = zip(spec, (one, other), strict=True)
    found = tuple(replace(first, spec=each, module=module) for each, module in pair)
    result = PROFILE(net.with_(candidates={"blocks.0": found}))
    costs = [each.latency_ms for each in result.candidates["blocks.0"]]
    assert costs == ([20, 40] if len(other.factors) > 1 else [20, 22])


def test_equal_modules_of_two_specs_are_built_each(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    net = network()
    (first, *_) = net.candidates["blocks.0"]
    PROFILE(net.with_(candidates={"blocks.0": (first,)}))
    alone, machine.built = len(machine.built), []
    other = replace(first, spec="toy:option=1")
    PROFILE(net.with_(candidates={"blocks.0": (first, other)}))
    assert len(machine.built) == alone + 1


def test_blocks_and_rest_sum_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = 6 * 6 * 9 + 6

    class Fusing(Machine):
        """Two blocks take a quarter less between their neighbours."""

        def build(self, program: ExportedProgram, _: Target, path: Path, *rest: object) -> Any:
            built = super().build(program, _, path, *rest)
            if "blocks.0.attn.weight" in program.state_dict:
                path.write_text(str(float(path.read_text()) - convolution / 2))
            return built

    Fusing(monkeypatch)
    result = PROFILE(network())
    profile = result.metrics["profile"]
    assert profile["scale"] == 0.75
    assert profile["rest_ms"] == sum(
        each.numel() for name, each in network().module.named_parameters() if "blocks" not in name
    )
    assert profile["network_ms"] == profile["rest_ms"] + 2 * 0.75 * convolution
    costs = [block.latency_ms for block in result.blocks]
    costs += [found[0].latency_ms for found in result.candidates.values()]
    assert costs == [0.75 * convolution] * 4


def test_what_handing_over_an_image_takes_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Machine):
        def time(self, libraries: Sequence[Path], *rest: object, **options: object) -> list[Stats]:
            stats = super().time(libraries, *rest, **options)
            return [replace(each, median_ms=each.median_ms + 7) for each in stats]

    Machine(monkeypatch)
    wanted = PROFILE(network())
    Slow(monkeypatch)
    found = PROFILE(network())
    assert found.blocks == wanted.blocks
    assert found.metrics == wanted.metrics
    left_out = [replace(each, module=nn.Identity()) for each in network().candidates["blocks.0"]]
    net = PROFILE(network().with_(candidates={"blocks.0": (left_out[0],)}))
    assert net.candidates["blocks.0"][0].latency_ms == 0


def test_other_weights_are_not_timed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, ctx = Machine(monkeypatch), Context(WorkDir(tmp_path))
    first = PROFILE(network(), ctx)
    count = len(machine.built)
    other = network()
    with torch.no_grad():
        next(other.module.parameters()).add_(1)
    second = PROFILE(other, ctx)
    assert len(machine.built) == count
    assert first.metrics == second.metrics
    assert [each.latency_ms for each in first.blocks] == [each.latency_ms for each in second.blocks]
    replace(PROFILE, threads=2)(network(), ctx)
    assert len(machine.built) == 2 * count


def test_other_candidates_are_timed_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Machine(monkeypatch)
    ctx, net = Context(WorkDir(tmp_path)), network()
    PROFILE(net, ctx)
    (first, *_) = net.candidates["blocks.0"]
    other = replace(first, module=nn.Conv2d(6, 6, 1))
    result = PROFILE(net.with_(candidates={"blocks.0": (other,)}), ctx)
    assert result.candidates["blocks.0"][0].latency_ms == 6 * 6 + 6


@pytest.mark.parametrize("at", range(4))
def test_killed_build_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int) -> None:
    machine, ctx = Machine(monkeypatch), Context(WorkDir(tmp_path))

    def killed(*arguments: Any) -> Any:
        if len(machine.built) == at:
            raise KeyboardInterrupt
        return machine.build(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(time_modules, "build_library", killed)
        with pytest.raises(KeyboardInterrupt):
            PROFILE(network(), ctx)
    PROFILE(network(), ctx)
    assert (len(machine.built), len(machine.runs)) == (7, 6)


def test_killed_round_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine, ctx = Machine(monkeypatch), Context(WorkDir(tmp_path))

    def killed(*arguments: Any, **options: Any) -> list[Stats]:
        if len(machine.runs) == 3:
            raise KeyboardInterrupt
        return machine.time(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(time_modules, "time_libraries", killed)
        with pytest.raises(KeyboardInterrupt):
            PROFILE(network(), ctx)
    PROFILE(network(), ctx)
    assert (len(machine.built), len(machine.runs)) == (7, 6)
    assert not list(tmp_path.glob("*/*.so"))


def test_median_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)

    def loaded(*arguments: Any, **options: Any) -> list[Stats]:
        factor = 9 if len(machine.runs) < 2 else 1  # something else ran during the first round
        stats = machine.time(*arguments, **options)
        return [replace(each, median_ms=factor * each.median_ms) for each in stats]

    monkeypatch.setattr(time_modules, "time_libraries", loaded)
    assert PROFILE(network()).blocks[0].latency_ms == 6 * 6 * 9 + 6


def test_other_code_generator_is_timed_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine, ctx = Machine(monkeypatch), Context(WorkDir(tmp_path))
    PROFILE(network(), ctx)
    monkeypatch.setattr(profile_blocks, "generator_digest", lambda: "other")
    PROFILE(network(), ctx)
    assert len(machine.built) == 14


def test_real_times() -> None:
    result = PROFILE(network())
    assert all(0 < (block.latency_ms or 0) < 1000 for block in result.blocks)
    assert all(
        0 < (each.latency_ms or 0) < 1000 for found in result.candidates.values() for each in found
    )
    assert result.metrics["profile"]["network_ms"] > 0
    assert "timed on host, 1 threads" in result.log[-1].notes[0]


def test_what_it_requires() -> None:
    with pytest.raises(PreconditionError, match="no blocks are known"):
        PROFILE(network().with_(blocks=(), candidates={}))
