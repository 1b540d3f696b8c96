from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distillc.data.images import open_data
from distillc.errors import PreconditionError, UsageError
from distillc.network import Network
from distillc.passes import training
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids, Hybrid
from distillc.passes.pupils import Pupils
from distillc.passes.training import mean_psnr
from distillc.pipeline import Context
from distillc.workdir import WorkDir, weights_digest

from .toy import Killed, KilledAt, Recorder, toy_network

TOGETHER = DistillHybrids(steps=12, batch=2, patch=16)


def weights(net: Network) -> dict[str, torch.Tensor]:
    return dict(Pupils(net).modules.state_dict())


def same(one: Network, other: Network) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_hybrids_lose_less_and_the_input_stays() -> None:
    net = DistillBlocks(steps=10, batch=2, patch=16)(toy_network())
    teacher, before = weights_digest(net.module), weights(net)
    result = DistillHybrids(steps=80, batch=4, patch=16, lr=1e-2)(net)
    pairs = open_data(None, "denoise:sigma=25").held_out(4, 32)
    for label in ("toy", "toy@attention"):
        decisions = dict.fromkeys(("blocks.0", "blocks.1"), label)
        trained, alone = result.hybrid(decisions), net.hybrid(decisions)
        assert mean_psnr(trained, pairs) > mean_psnr(alone, pairs)
    assert weights_digest(net.module) == weights_digest(result.module) == teacher
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(net).items())
    for found in result.candidates.values():
        assert [each.label for each in found] == ["toy", "toy@attention"]
        assert all(each.fidelity is not None and not each.module.training for each in found)


def test_only_the_pupils_of_a_hybrid_get_gradients() -> None:
    net = toy_network()
    pupils = Pupils(net)
    pupils.train("cpu")
    hybrid = Hybrid(net.module, pupils)
    first, second = list(pupils)[:2]
    hybrid([first], torch.rand(1, 3, 16, 16)).sum().backward()
    assert all(each.grad is not None for each in first.module.parameters())
    assert all(each.grad is None for each in second.module.parameters())
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(hybrid([], images), net.module(images))


@given(st.integers())
def test_a_draw_replaces_at_least_one_block_and_none_twice(seed: int) -> None:
    chosen = Hybrid(toy_network().module, Pupils(toy_network())).draw(random.Random(seed))
    blocks = [each.surrogate.block for each in chosen]
    assert blocks
    assert len(set(blocks)) == len(blocks)


def test_the_seed_decides() -> None:
    net = toy_network()
    assert same(TOGETHER(net, Context(seed=1)), TOGETHER(net, Context(seed=1)))
    assert not same(TOGETHER(net, Context(seed=1)), TOGETHER(net, Context(seed=2)))


@pytest.mark.parametrize("killed_at", [1, 7])
def test_a_killed_run_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    net, work = toy_network(), WorkDir(tmp_path)
    with pytest.raises(Killed):
        TOGETHER(net, KilledAt(work, killed_at))
    resumed = Recorder(work)
    result = TOGETHER(net, resumed)
    assert resumed.lines[0][0] == killed_at + 1
    assert same(result, TOGETHER(net))
    assert not list(tmp_path.rglob("state.pt"))
    again = Recorder(work)
    assert same(TOGETHER(net, again), result)
    assert again.lines == []


def test_another_option_starts_anew(tmp_path: Path) -> None:
    net, work = toy_network(), WorkDir(tmp_path)
    TOGETHER(net, Context(work))
    for other in (
        DistillHybrids(steps=12, batch=2, patch=16, lr=1e-3),
        DistillHybrids(task="deblur", steps=12, batch=2, patch=16),
    ):
        ctx = Recorder(work)
        other(net, ctx)
        assert len(ctx.lines) == 12


def test_what_it_requires() -> None:
    net = toy_network()
    with pytest.raises(PreconditionError, match="no candidates"):
        TOGETHER(net.with_(candidates={}))
    with pytest.raises(UsageError, match="try patch=16"):
        DistillHybrids(patch=15)(net)
    with pytest.raises(UsageError, match="enlarges images 2 times"):
        DistillHybrids(task="sr:scale=2", patch=16)(net)
