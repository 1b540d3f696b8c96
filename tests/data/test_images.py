from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import skimage.data
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distillc.data.folders import Item, split
from distillc.data.images import RestorationData, open_data, open_test_set
from distillc.data.windows import Windows, spread
from distillc.errors import DataError, UsageError


def picture(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(12):
        picture(tmp_path / f"set{index % 2}" / f"{index:02d}.png", seed=index)
    (tmp_path / "notes.txt").write_text("not an image")
    picture(tmp_path / "set0" / ".hidden.png")
    return tmp_path


def test_batches_are_a_function_of_seed_and_step(folder: Path) -> None:
    first, second = (open_data(folder, "denoise:sigma=25") for _ in range(2))
    degraded, clean = first.batch(3, 4, 16, seed=1)
    first.batch(4, 4, 16, seed=1)
    again = second.batch(3, 4, 16, seed=1)
    assert degraded.shape == clean.shape == (4, 3, 16, 16)
    assert torch.equal(degraded, again[0])
    assert torch.equal(clean, again[1])
    assert not torch.equal(clean, second.batch(3, 4, 16, seed=2)[1])
    assert not torch.equal(clean, second.batch(4, 4, 16, seed=1)[1])


@pytest.mark.parametrize("count", [0, -1])
def test_no_images_at_all_are_refused(folder: Path, count: int) -> None:
    data = open_data(folder, "deblur")
    for ask in (
        lambda: data.held_out(count, 8),
        lambda: data.test_images(count),
        lambda: list(data.unseen((8, 8), count)),
    ):
        with pytest.raises(UsageError, match="nothing would be compared"):
            ask()


def test_a_tenth_is_held_out_of_the_batches(tmp_path: Path) -> None:
    for index in range(20):
        pixels = np.full((16, 16, 3), 10 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02d}.png")
    data = open_data(tmp_path, "deblur")
    assert len(data) == 13
    seen = {round(each.mean().item() * 25.5) for each in data.batch(0, 200, 8, 0)[1]}
    assert seen == set(range(13))
    held = [round(clean.mean().item() * 25.5) for _, clean in data.held_out(4, 8)]
    assert held == [13, 14, 13, 14]
    unseen = [round(each.pairs[0][1].mean().item() * 25.5) for each in data.unseen((8, 8))]
    assert unseen == [15, 16, 17, 18, 19]


def test_a_test_set_is_held_out_as_a_whole(folder: Path) -> None:
    data = open_test_set(folder, "denoise")
    assert len(data) == 0
    assert len(data.test_images()) == len(list(data.unseen((8, 8)))) == 12


def test_held_out_images_never_change(folder: Path) -> None:
    first, second = (open_data(folder, "denoise").held_out(3, 24) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one[0].shape == one[1].shape == (1, 3, 24, 24)
        assert torch.equal(one[0], other[0])
    assert not torch.equal(first[0][1], first[1][1])


def values(items: Iterable[Windows]) -> list[int]:
    """The gray of flat images, of which each window must show the same."""
    return [round(255 * min(clean.mean().item() for _, clean in each.pairs)) for each in items]


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 300), st.lists(st.integers(0, 300), max_size=4))
def test_the_three_parts_share_no_image_and_keep_the_order(count: int, cuts: list[int]) -> None:
    """`cuts` are where subfolders begin."""
    names = [f"{sum(index >= cut for cut in cuts)}/{index:03d}" for index in range(count)]
    items = [Item(name, Path(name)) for name in names]
    parts = split(items)
    assert [item for part in parts for item in part] == items
    train, held, test = (len(part) for part in parts)
    assert min(train, held, test) >= 1
    assert test >= count // 20  # a tenth, less what a border may move


def test_frames_of_a_film_stay_together() -> None:
    """Borders move to where a subfolder begins; of one in two parts nothing would be unseen."""
    names = [f"film{index // 8}/{index % 8}" for index in range(240)]
    train, held, test = split([Item(name, Path(name)) for name in names])
    films = [{item.name.split("/")[0] for item in part} for part in (train, held, test)]
    assert not films[0] & films[1]
    assert not films[1] & films[2]
    assert [len(part) for part in (train, held, test)] == [192, 24, 24]


def test_copies_of_seen_images_are_not_tested_on(tmp_path: Path) -> None:
    for index in range(20):
        pixels = np.full((16, 16, 3), 10 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02d}.png")
    shutil.copy(tmp_path / "03.png", tmp_path / "17.png")  # trained on
    shutil.copy(tmp_path / "14.png", tmp_path / "18.png")  # chosen by
    shutil.copy(tmp_path / "15.png", tmp_path / "19.png")  # tested on already
    assert values(open_data(tmp_path, "deblur").unseen((8, 8))) == [150, 160]
    assert values(open_test_set(tmp_path, "deblur").unseen((8, 8)))[-2:] == [150, 160]
    for index in (15, 16, 17, 18, 19):
        shutil.copy(tmp_path / "03.png", tmp_path / f"{index}.png")
    with pytest.raises(DataError, match="every test image is a copy"):
        list(open_data(tmp_path, "deblur").unseen((8, 8)))


def test_pairs_of_one_clean_image_are_all_tested_on(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "target" / f"{index}.png", seed=7)
        picture(tmp_path / "input" / f"{index}.png", seed=index)
    assert len(list(open_test_set(tmp_path, "derain").unseen((8, 8)))) == 3


def test_what_is_measured_of_many_images_is_spread(tmp_path: Path) -> None:
    for index in range(10):
        Image.fromarray(np.full((9, 9), index, np.uint8)).save(tmp_path / f"{index}.png")
    data = open_test_set(tmp_path, "deblur", channels=1)
    assert values(data.unseen((8, 8), most=4)) == [0, 2, 5, 7]
    assert values(data.unseen((8, 8), most=99)) == list(range(10))


def test_windows_of_a_test_image(tmp_path: Path) -> None:
    """Up to four, beside each other; noise is another in each; a small image is mirrored."""
    ramp = np.tile(np.arange(40, dtype=np.uint8), (20, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    data = open_test_set(tmp_path, "denoise", channels=1)
    (image,) = data.unseen((10, 10))
    assert image.name == "ramp.png"
    starts = [round(255 * clean[0, 0, 0, 0].item()) for _, clean in image.pairs]
    assert starts == [5, 25, 5, 25]
    noise = [degraded - clean for degraded, clean in image.pairs]
    assert not torch.equal(noise[0], noise[2])
    (again,) = data.unseen((10, 10))
    assert all(
        torch.equal(a, b)
        for one, two in zip(image.pairs, again.pairs, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    (large,) = data.unseen((24, 32))
    assert [pair[1].shape for pair in large.pairs] == [(1, 1, 24, 32)]
    assert torch.equal(large.pairs[0][1][0, 0, 19], large.pairs[0][1][0, 0, 20])


@given(st.integers(1, 99), st.integers(0, 300))
def test_windows_lie_inside_and_apart(edge: int, more: int) -> None:
    side = edge + more
    starts = spread(side, edge)
    assert starts[0] >= 0
    assert starts[-1] + edge <= side
    assert len(starts) == (2 if side >= 2 * edge else 1)
    assert all(later - earlier >= edge for earlier, later in pairwise(starts))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 50), st.sampled_from(["denoise", "sr:scale=2", "derain"]))
def test_images_smaller_than_the_patch_are_mirrored(patch: int, task: str) -> None:
    data = open_data(None, task)
    small = RestorationData(data._train[:2], data._held, data._test, data.task, 3, data.origin)
    for item in data._train[:2]:
        small._cache[item.clean, 3] = data._decode(item.clean, 3)[:, :9, :13]
    degraded, clean = small.batch(0, 2, patch, 0)
    assert degraded.shape == (2, 3, patch, patch)
    assert clean.shape == (2, 3, patch * data.task.scale, patch * data.task.scale)


def test_super_resolution_shapes(folder: Path) -> None:
    data = open_data(folder, "sr:scale=3")
    degraded, clean = data.held_out(1, 8)[0]
    assert (degraded.shape, clean.shape) == ((1, 3, 8, 8), (1, 3, 24, 24))
    degraded, clean = data.test_images(1, multiple=4)[0]
    assert (degraded.shape, clean.shape) == ((1, 3, 8, 12), (1, 3, 24, 36))


def test_gray_networks_get_gray_images(folder: Path) -> None:
    assert open_data(folder, "denoise", channels=1).batch(0, 2, 8, 0)[0].shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="takes 6 channels"):
        open_data(folder, "denoise", channels=6)


def test_all_bits_of_deep_images_are_used(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (8, 8, 3), np.uint16)
    for index in range(4):
        tifffile.imwrite(tmp_path / f"{index}.tif", deep, photometric="rgb")
    data = open_data(tmp_path, "denoise")
    clean = data.test_images()[0][1]
    np.testing.assert_array_equal(clean[0].permute(1, 2, 0), deep / np.float32(65535))
    assert all(each.dtype == np.uint16 for each in data._cache.values())
    gray = open_data(tmp_path, "denoise", channels=1).test_images()[0][1][0, 0].numpy()
    wanted = deep.astype(np.float64) @ (0.299, 0.587, 0.114) / 65535
    assert np.abs(gray - wanted).max() <= 0.5 / 65535 + 1e-7
    parts = data.batch(0, 1, 8, 0)[1].numpy()
    assert np.isin(parts, deep / np.float32(65535)).all()


def test_hidden_colours_do_not_show(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), (200, 30, 10, 255), np.uint8)
    pixels[:, 5:] = (0, 255, 0, 0)
    for index in range(4):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    clean = open_data(tmp_path, "denoise").test_images()[0][1]
    assert (255 * clean).round().flatten(2).unique(dim=2).squeeze().tolist() == [200, 30, 10]


def test_bundled_photographs_need_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("something was downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    data = open_data(None, "denoise:sigma=25")
    assert data.batch(0, 2, 32, 0)[0].shape == (2, 3, 32, 32)
    assert [clean.shape[2:] for _, clean in data.test_images()] == [(300, 451), (400, 600)]
    names = ["grace_hopper.jpg", "hubble_deep_field.jpg", "moon.png", "page.png", "retina.jpg"]
    assert [each.name for each in data.unseen((64, 64))] == [*names, "text.png"]


def test_scikit_image_without_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(skimage.data, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match="without photographs"):
        open_data(None, "denoise")


def test_fingerprint_follows_the_data(folder: Path) -> None:
    before = open_data(folder, "denoise").fingerprint
    assert before == open_data(folder, "denoise").fingerprint
    assert json.loads(json.dumps(before)) == before
    assert before != open_data(folder, "denoise:sigma=10").fingerprint
    os.utime(folder / "set0" / "00.png")  # as a fresh checkout does
    assert before == open_data(folder, "denoise").fingerprint
    picture(folder / "set0" / "00.png", size=(50, 50))
    assert before != open_data(folder, "denoise").fingerprint


@pytest.mark.parametrize("names", [("input", "target"), ("LQ", "GT")])
def test_pairs_are_cut_together(tmp_path: Path, names: tuple[str, str]) -> None:
    for index in range(3):
        picture(tmp_path / names[1] / "scene" / f"{index}.png", seed=index)
        clean = Image.open(tmp_path / names[1] / "scene" / f"{index}.png")
        (tmp_path / names[0] / "scene").mkdir(parents=True, exist_ok=True)
        clean.point(lambda value: 255 - value).save(tmp_path / names[0] / "scene" / f"{index}.png")
    data = open_data(tmp_path, "derain")
    for degraded, clean_patch in (data.batch(0, 3, 16, 0), *data.held_out(2, 16)):
        assert torch.allclose(degraded, 1 - clean_patch, atol=1e-6)


def test_pairs_of_a_scale(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / "target" / f"{index}.png", (64, 48))
        picture(tmp_path / "input" / f"{index}.jpg", (32, 24))
    degraded, clean = open_data(tmp_path, "sr:scale=2").batch(0, 2, 8, 0)
    assert (degraded.shape, clean.shape) == ((2, 3, 8, 8), (2, 3, 16, 16))
    with pytest.raises(DataError, match=r"3 pairs have sizes .* scale 1: 0 \(32x24 and 64x48\)"):
        open_data(tmp_path, "denoise")


def test_pairs_without_partner_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / "input" / f"{name}.png")
    picture(tmp_path / "target" / "b.png")
    with pytest.raises(DataError, match="2 images have no partner: a, c"):
        open_data(tmp_path, "derain")


def test_missing_empty_and_too_small_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_data(tmp_path / "nowhere", "denoise")
    with pytest.raises(DataError, match="holds no images"):
        open_data(tmp_path, "denoise")
    picture(tmp_path / "one.png")
    with pytest.raises(DataError, match="not a folder"):
        open_data(tmp_path / "one.png", "denoise")
    with pytest.raises(DataError, match="holds 1 image, at least three"):
        open_data(tmp_path, "denoise")
    picture(tmp_path / "two.png")
    with pytest.raises(DataError, match="holds 2 images, at least three"):
        open_data(tmp_path, "denoise")
    picture(tmp_path / "three.png")
    assert len(open_data(tmp_path, "denoise")) == 1


def test_a_damaged_image_is_named(folder: Path) -> None:
    whole = folder / "set0" / "00.png"
    whole.write_bytes(whole.read_bytes()[:400])  # header sound, pixels cut off
    data = open_data(folder, "denoise")
    with pytest.raises(DataError, match=r"cannot read 00\.png"):
        data.batch(0, 100, 8, 0)
    whole.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"cannot read 00\.png"):
        open_data(folder, "denoise")
