"""What both passes that train candidates promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

import distillc
from distillc.errors import DataError, PassError, PreconditionError, StorageError, UsageError
from distillc.frontend.calls import record_calls
from distillc.passes import FindAttention, SynthesizeSurrogates, Trace, training
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.passes.students import Distillation, Students
from distillc.pipeline import Context, Pipeline
from distillc.stages import WorkDir

from .toy import Killed, KilledAt, Recorder, same_candidates, toy_network


@pytest.fixture(params=[DistillBlocks, DistillHybrids], ids=lambda each: each.__name__)
def distill(request: pytest.FixtureRequest) -> Distillation:
    made: Distillation = request.param(steps=12, batch=2, patch=16, lr=1e-2)
    return made


def test_the_seed_decides(distill: Distillation) -> None:
    net = toy_network()
    first = distill(net, Context(seed=1))
    assert same_candidates(first, distill(net, Context(seed=1)))
    assert not same_candidates(first, distill(net, Context(seed=2)))


@pytest.mark.parametrize("killed_at", [1, 7])
def test_a_killed_run_goes_on_to_the_same_result(
    distill: Distillation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    net, work = toy_network(), WorkDir(tmp_path)
    with pytest.raises(Killed):
        distill(net, KilledAt(work, killed_at))
    resumed = Recorder(work)
    result = distill(net, resumed)
    assert resumed.lines[0][0] == killed_at + 1
    whole = distill(net)
    assert same_candidates(result, whole)
    assert result.candidates["blocks.1"][0].fidelity == whole.candidates["blocks.1"][0].fidelity
    assert not list(tmp_path.rglob("*.pt"))


def test_a_finished_stage_is_read_back(distill: Distillation, tmp_path: Path) -> None:
    net, work = toy_network(), WorkDir(tmp_path)
    first = distill(net, Context(work))
    again = Recorder(work)
    second = distill(net, again)
    assert again.lines == []
    assert same_candidates(first, second)
    assert first.candidates["blocks.0"][1].fidelity == second.candidates["blocks.0"][1].fidelity


def test_another_option_or_teacher_starts_anew(distill: Distillation, tmp_path: Path) -> None:
    net, work = toy_network(), WorkDir(tmp_path)
    distill(net, Context(work))
    other = toy_network()
    torch.nn.init.zeros_(other.module.tail.weight)
    for changed, each, ctx in (
        (replace(distill, lr=2e-2), net, Recorder(work)),
        (replace(distill, task="deblur"), net, Recorder(work)),
        (distill, other, Recorder(work)),
        (distill, net, Recorder(work, seed=5)),
    ):
        changed(each, ctx)
        assert len(ctx.lines) == 12


def test_a_full_disk_is_a_storage_error(
    distill: Distillation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    full = OSError(28, "No space left on device")
    with (
        mock.patch.object(Path, "write_bytes", side_effect=full),
        pytest.raises(StorageError, match="the disk is full"),
    ):
        distill(toy_network(), Context(WorkDir(tmp_path)))
    assert not list(tmp_path.rglob("*.pt*"))


def test_what_learnt_nonsense_is_not_kept(distill: Distillation, tmp_path: Path) -> None:
    def spoil(self: Distillation, teacher: object, students: Students, *_: object) -> None:
        torch.nn.init.constant_(next(students.modules.parameters()), torch.nan)

    with (
        mock.patch.object(type(distill), "train", spoil),
        pytest.raises(PassError, match="not finite"),
    ):
        distill(toy_network(), Context(WorkDir(tmp_path)))
    again = Recorder(WorkDir(tmp_path))
    assert same_candidates(distill(toy_network(), again), distill(toy_network()))
    assert again.lines


def test_what_it_requires(distill: Distillation) -> None:
    net = toy_network()
    with pytest.raises(PreconditionError, match="no candidates"):
        distill(net.with_(candidates={}))
    with pytest.raises(UsageError, match="try patch=16"):
        replace(distill, patch=15)(net)
    with pytest.raises(UsageError, match="enlarges images 2 times"):
        replace(distill, task="sr:scale=2")(net)
    with pytest.raises(DataError, match="does not exist"):
        replace(distill, data=Path("/nowhere"))(net)


class WindowBlock(nn.Module):
    """x + attention in windows of 4x4, y + feed-forward(norm(y)), on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = Windowed()
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        tokens = self.norm1(x).view(batch, height // 4, 4, width // 4, 4, channels)
        mixed = self.attn(tokens.transpose(2, 3).reshape(-1, 16, channels))
        mixed = mixed.view(batch, height // 4, width // 4, 4, 4, channels).transpose(2, 3)
        y = x + mixed.reshape(x.shape)
        return y + self.mlp(self.norm2(y))


class Windowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj((q @ k.transpose(1, 2)).softmax(-1) @ v)


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.block = nn.Conv2d(3, 8, 3, padding=1), WindowBlock()
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(self.head(x).permute(0, 2, 3, 1))
        return x + self.tail(y.permute(0, 3, 1, 2))


def test_students_start_from_what_attention_in_windows_adds() -> None:
    torch.manual_seed(0)
    passes = [Trace(), FindAttention(), SynthesizeSurrogates(["ssd"])]
    net = Pipeline(passes).run(distillc.trace(Windows().eval(), torch.rand(1, 3, 16, 16)))
    students, images = Students.of(net), torch.rand(4, 3, 16, 16)
    (student,) = students
    assert student.middle == ("block.norm2", "block.mlp.0")
    students.calibrate(net.module, images)
    calls = record_calls(net.module, ["block", "block.norm2"], images)
    given, middle = calls["block"].given, calls["block.norm2"].given
    ssd = student.module.surrogate
    ssd.feed_forward = nn.Identity()
    error = student.module(given) - middle
    assert error.mean((0, 1, 2)).abs().max() < 1e-3  # as least squares with a constant leaves it
    assert error.norm() < 0.9 * (middle - given).norm()
