"""Tasks for networks that take raw planes or two views."""

from __future__ import annotations

import pytest
import torch

from distillc.data.degradations.dual_pixel import half_disc
from distillc.data.degradations.mosaic import linear, pack
from distillc.data.images import open_data
from distillc.data.tasks import check_channels, check_scale, parse_task, tasks_for
from distillc.errors import UsageError

KINDS = [("demosaic", 4, 3, 2), ("raw", 4, 4, 1), ("dual-pixel", 6, 3, 1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "given", "made", "scale"), KINDS)
def test_shapes_and_that_they_are_found(name: str, given: int, made: int, scale: int) -> None:
    task = parse_task(name)
    assert task.scale == scale
    check_scale(task, scale, given, made)
    check_channels(task, given, made)
    assert tasks_for(scale, given, made) == [str(task)]
    data = open_data(None, task, given, made)
    for degraded, clean in (data.batch(0, 2, 8, 0), *data.held_out(1, 8)):
        assert degraded.shape[1:] == (given, 8, 8)
        assert clean.shape[1:] == (made, 8 * scale, 8 * scale)
        assert degraded.dtype == clean.dtype == torch.float32
    degraded, clean = data.test_images(1, multiple=8)[0]
    assert clean.shape[2] == degraded.shape[2] * scale


def test_the_sites_of_a_bayer_filter() -> None:
    image = torch.arange(3 * 4 * 6.0).reshape(1, 3, 4, 6)
    planes = pack(image)[0]
    assert planes.shape == (4, 2, 3)
    for plane, (channel, row, column) in zip(
        planes, [(0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)], strict=True
    ):
        assert torch.equal(plane, image[0, channel, row::2, column::2])


def test_light_of_srgb() -> None:
    numbers = torch.tensor([0.0, 0.04045, 0.5, 1.0])
    assert linear(numbers).tolist() == pytest.approx([0, 0.0031308, 0.2140411, 1], abs=1e-6)


def test_demosaicking_starts_from_the_photograph_itself() -> None:
    clean = torch.rand(2, 3, 64, 64, generator=seeded())
    task = parse_task("demosaic:sigma=0")
    assert torch.equal(task.degrade(clean, seeded()), pack(clean))
    assert task.restored(clean) is clean
    noise = parse_task("demosaic:sigma=20").degrade(clean, seeded()) - pack(clean)
    assert noise.std().item() == pytest.approx(20 / 255, rel=0.03)


def test_raw_noise_grows_with_the_light() -> None:
    clean = torch.cat([torch.zeros(1, 3, 128, 128), torch.ones(1, 3, 128, 128)])
    task = parse_task("raw:shot=0.04,read=0.05")
    noise = task.degrade(clean, seeded()) - task.restored(clean)
    assert noise[0].std().item() == pytest.approx(0.05, rel=0.03)
    assert noise[1].std().item() == pytest.approx((0.04 + 0.05**2) ** 0.5, rel=0.03)
    assert torch.equal(task.restored(clean), pack(linear(clean)))


@pytest.mark.parametrize("radius", [1, 2.5, 8])
def test_half_discs_make_a_disc(radius: float) -> None:
    left, right = half_disc(radius, -1), half_disc(radius, 1)
    assert left.sum().item() == pytest.approx(1)
    assert torch.allclose(left, right.flip(1))
    axis = torch.arange(len(left)) - len(left) // 2
    assert (left.sum(0) * axis).sum() < 0 < (right.sum(0) * axis).sum()
    disc = (left + right) / 2
    assert torch.allclose(disc, disc.T, atol=1e-6)


def test_two_views_shift_apart_both_ways() -> None:
    clean = torch.zeros(8, 3, 64, 64)
    clean[..., 32, 32] = 1
    views = parse_task("dual-pixel").degrade(clean, seeded())
    centres = (views.sum(2) * torch.arange(64.0)).sum(2) / views.sum((2, 3))
    apart = centres[:, 3] - centres[:, 0]
    assert (apart.abs() > 0.4).all()
    assert {bool(each) for each in apart > 0} == {True, False}
    torch.testing.assert_close(views.sum((2, 3)), torch.ones(8, 6))


@pytest.mark.parametrize(
    ("task", "scale", "given", "made", "said"),
    [
        ("denoise", 1, 4, 4, "--task raw:read=0.02,shot=0.01 or --data"),
        ("denoise", 1, 6, 3, "--task dual-pixel:radius=8 or --data"),
        ("sr:scale=2", 2, 4, 3, "--task demosaic:sigma=5 or --data"),
        ("raw", 1, 3, 3, "--task denoise:sigma=25, derain or deblur"),
        ("demosaic", 2, 1, 3, "--task sr:scale=2"),
        ("denoise", 1, 9, 3, "such a network takes --data"),
    ],
)
def test_channels_that_do_not_fit(task: str, scale: int, given: int, made: int, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_channels(parse_task(task), given, made)
    assert said in str(caught.value)
    if parse_task(task).scale == scale:
        check_scale(parse_task(task), scale, given, made)


def test_gray_in_and_colour_out() -> None:
    """A network that returns the luma of a picture, or colours one, gets both."""
    for given, made in ((3, 1), (1, 3)):
        degraded, clean = open_data(None, "deblur", given, made).held_out(1, 16)[0]
        assert (degraded.shape, clean.shape) == ((1, given, 16, 16), (1, made, 16, 16))
