from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.data.tasks import Task, check_scale, known_tasks, parse_task
from distillc.errors import UsageError

TASKS = ("denoise:sigma=25", "derain", "deblur", "sr:scale=2")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.sampled_from(["sr:scale=", "denoise:sigma="]), st.integers(2, 8))
def test_canonical_form_reads_back(start: str, value: int) -> None:
    task = parse_task(f"{start}{value}")
    assert str(task) == f"{start}{value}"
    assert parse_task(str(task)) == task


def test_defaults_and_scale() -> None:
    pictures = ["deblur", "denoise:sigma=25", "derain", "sr:scale=2"]
    planes = ["demosaic:sigma=5", "dual-pixel:radius=8", "raw:read=0.02,shot=0.01"]
    assert known_tasks() == sorted([*pictures, *planes])
    assert str(parse_task("denoise")) == "denoise:sigma=25"
    assert [parse_task(text).scale for text in TASKS] == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dehaze", "known tasks: deblur, demosaic:sigma=5, denoise:sigma=25, derain"),
        ("denoise:level=3", "options of denoise: sigma"),
        ("derain:sigma=3", "options of derain: none"),
        ("denoise:sigma=loud", "'loud' is not a number from 0.1 to 255"),
        ("denoise:sigma=-1", "is not a number from"),
        ("denoise:sigma=nan", "is not a number from"),
        ("sr:scale=2.5", "'2.5' is not a whole number from 2 to 8"),
        ("sr:scale", "is not a whole number"),
    ],
)
def test_wrong_task_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        parse_task(text)


def test_scale_must_fit_the_network() -> None:
    check_scale(parse_task("sr:scale=2"), 2)
    with pytest.raises(UsageError, match="network 4 times") as raised:
        check_scale(parse_task("denoise"), 4)
    assert "--task sr:scale=4" in str(raised.value)
    with pytest.raises(UsageError, match="denoise:sigma=25, derain or deblur"):
        check_scale(parse_task("sr:scale=2"), 1)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(TASKS),
    st.sampled_from([1, 3]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 99),
)
def test_degradation_keeps_its_contract(
    text: str, channels: int, rows: int, columns: int, seed: int
) -> None:
    task = parse_task(text)
    clean = torch.rand(2, channels, 2 * rows, 2 * columns, generator=seeded(seed))
    before = clean.clone()
    degraded = task.degrade(clean, seeded(seed))
    assert torch.equal(clean, before)
    assert degraded.dtype == torch.float32
    assert degraded.shape == (2, channels, 2 * rows // task.scale, 2 * columns // task.scale)
    assert torch.equal(degraded, task.degrade(clean, seeded(seed)))
    assert task.degrade(clean[0], seeded(seed)).shape == degraded.shape[1:]
    if task.name != "denoise":
        assert degraded.min() >= -1e-6
        assert degraded.max() <= 1 + 1e-6


def test_noise_has_its_sigma_and_is_not_clipped() -> None:
    clean = torch.ones(1, 3, 128, 128)
    noise = parse_task("denoise:sigma=50").degrade(clean, seeded()) - clean
    assert noise.std().item() == pytest.approx(50 / 255, rel=0.02)
    assert noise.max() > 0.1


@pytest.mark.parametrize("text", ["derain", "deblur"])
def test_each_image_is_degraded_its_own_way(text: str) -> None:
    clean = torch.rand(1, 3, 48, 48, generator=seeded()).expand(2, -1, -1, -1)
    first, second = parse_task(text).degrade(clean, seeded())
    assert not torch.allclose(first, second, atol=1e-2)


def test_rain_only_brightens_and_leaves_most_pixels() -> None:
    clean = torch.full((4, 3, 64, 64), 0.3)
    change = parse_task("derain").degrade(clean, seeded()) - clean
    assert change.min() >= 0
    assert 0.01 < (change > 0.1).float().mean() < 0.5


def test_blur_keeps_flat_areas_and_smooths_detail() -> None:
    flat = torch.full((1, 3, 40, 40), 0.6)
    blur: Task = parse_task("deblur")
    assert torch.allclose(blur.degrade(flat, seeded()), flat, atol=1e-5)
    noise = torch.rand(1, 3, 64, 64, generator=seeded(1))
    assert blur.degrade(noise, seeded()).std() < 0.6 * noise.std()
