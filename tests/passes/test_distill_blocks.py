from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import pytest
import torch

from distillc.errors import DataError, PassError, PreconditionError, StorageError, UsageError
from distillc.network import Network
from distillc.passes import training
from distillc.passes.distill_blocks import DistillBlocks
from distillc.pipeline import Context
from distillc.workdir import WorkDir, weights_digest

from .toy import Killed, KilledAt, Recorder, toy_network

DISTILL = DistillBlocks(steps=12, batch=2, patch=16, lr=1e-2)


def weights(net: Network) -> list[torch.Tensor]:
    return [
        tensor
        for candidates in net.candidates.values()
        for each in candidates
        for tensor in each.module.state_dict().values()
    ]


def same(one: Network, other: Network) -> bool:
    pairs = zip(weights(one), weights(other), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_trains_every_candidate_and_leaves_its_input_alone() -> None:
    net = toy_network()
    teacher = weights_digest(net.module)
    untrained = [tensor.clone() for tensor in weights(net)]
    result = DistillBlocks(steps=60, batch=4, patch=16, lr=2e-2)(net)
    for candidates in result.candidates.values():
        assert [each.label for each in candidates] == ["toy", "toy@attention"]
        for each in candidates:
            assert each.fidelity is not None
            assert each.fidelity < 0.7
            assert not each.module.training
            assert all(tensor.is_contiguous() for tensor in each.module.state_dict().values())
    # The attention is a convolution, which its surrogate can become: it ends nearer.
    assert all(each[1].fidelity < each[0].fidelity for each in result.candidates.values())
    assert weights_digest(net.module) == teacher
    assert all(torch.equal(*pair) for pair in zip(weights(net), untrained, strict=True))
    assert all(each.fidelity is None for each in net.candidates["blocks.0"])
    assert result.log[-1].name == "distill_blocks"
    assert re.match(r"blocks\.0: toy 0\.\d{3}, toy@attention 0\.\d{3}", result.log[-1].notes[0])


def test_fidelity_of_an_untrained_candidate_is_one() -> None:
    result = DistillBlocks(steps=0, batch=2, patch=16)(toy_network())
    for candidates in result.candidates.values():
        assert [each.fidelity for each in candidates] == [pytest.approx(1), pytest.approx(1)]


def test_the_seed_decides() -> None:
    net = toy_network()
    assert same(DISTILL(net, Context(seed=1)), DISTILL(net, Context(seed=1)))
    assert not same(DISTILL(net, Context(seed=1)), DISTILL(net, Context(seed=2)))


@pytest.mark.parametrize("killed_at", [1, 7])
def test_a_killed_run_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    net, work = toy_network(), WorkDir(tmp_path)
    with pytest.raises(Killed):
        DISTILL(net, KilledAt(work, killed_at))
    resumed = Recorder(work)
    result = DISTILL(net, resumed)
    assert resumed.lines[0][0] == killed_at + 1
    whole = DISTILL(net)
    assert same(result, whole)
    assert result.candidates["blocks.1"][0].fidelity == whole.candidates["blocks.1"][0].fidelity
    assert not list(tmp_path.rglob("state.pt"))


def test_a_finished_stage_is_read_back(tmp_path: Path) -> None:
    net, work = toy_network(), WorkDir(tmp_path)
    first = DISTILL(net, Context(work))
    again = Recorder(work)
    second = DISTILL(net, again)
    assert again.lines == []
    assert same(first, second)
    assert first.candidates["blocks.0"][1].fidelity == second.candidates["blocks.0"][1].fidelity


def test_another_option_or_teacher_starts_anew(tmp_path: Path) -> None:
    net, work = toy_network(), WorkDir(tmp_path)
    DISTILL(net, Context(work))
    other = toy_network()
    torch.nn.init.zeros_(other.module.tail.weight)
    for distill, each, ctx in (
        (DistillBlocks(steps=12, batch=2, patch=16, lr=2e-2), net, Recorder(work)),
        (DistillBlocks(None, "deblur", steps=12, batch=2, patch=16), net, Recorder(work)),
        (DISTILL, other, Recorder(work)),
        (DISTILL, net, Recorder(work, seed=5)),
    ):
        distill(each, ctx)
        assert len(ctx.lines) == 12


def test_progress_names_block_loss_and_time_left() -> None:
    ctx = Recorder()
    DISTILL(toy_network(), ctx)
    assert [done for done, _ in ctx.lines] == list(range(1, 13))
    assert re.fullmatch(
        r"block blocks\.[01](\.attn)? toy(@attention)? loss \d\.\d{3} \d+:\d\d left",
        ctx.lines[5][1],
    )


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(Path, "write_bytes", side_effect=full),
        pytest.raises(StorageError, match="the disk is full"),
    ):
        DISTILL(toy_network(), Context(WorkDir(tmp_path)))
    assert not list(tmp_path.rglob("state.pt*"))


def test_what_it_requires() -> None:
    net = toy_network()
    with pytest.raises(PreconditionError, match="no candidates"):
        DISTILL(net.with_(candidates={}))
    with pytest.raises(UsageError, match="try patch=16"):
        DistillBlocks(patch=15)(net)
    with pytest.raises(UsageError, match="enlarges images 2 times"):
        DistillBlocks(task="sr:scale=2", patch=16)(net)
    with pytest.raises(DataError, match="does not exist"):
        DistillBlocks(Path("/nowhere"), patch=16)(net)
    with pytest.raises(PassError, match="not distilled"):
        DISTILL.ensures(net)
