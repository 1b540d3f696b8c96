"""Images of any number of channels, in `.npy` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distillc.data.arrays import array_size, as_channels, read_array
from distillc.data.images import open_data, open_test_set
from distillc.errors import DataError, UsageError


def saved(folder: Path, array: Any, name: str = "x.npy") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)])
def test_channels_first_and_last(axes: tuple[int, ...], tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((4, 6, 8), np.float32)
    path = saved(tmp_path, image.transpose(axes))
    assert array_size(path) == (8, 6)
    np.testing.assert_array_equal(read_array(path, 4), image)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64"])
def test_types_of_numbers(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, np.arange(24).reshape(4, 6).astype(kind))
    found = read_array(path, 1)
    assert found.dtype == ("float32" if kind.startswith("float") else kind)
    np.testing.assert_array_equal(found, np.arange(24).reshape(1, 4, 6))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"float32 of shape \(2, 8, 8, 3\), which is not"),
        (np.zeros(8, np.float32), r"shape \(8,\)"),
        (np.zeros((8, 8, 4), np.int64), "int64 of shape"),
        (np.zeros((8, 8, 4), np.complex64), "complex64"),
        (np.full((8, 8, 4), np.nan, np.float32), "infinite or not a number"),
        (np.zeros((8, 8, 6), np.float32), "has 6 channels, 4 are needed"),
        (np.zeros((0, 8, 8), np.float32), "0 channels, 4 are needed|is empty"),
        (np.array([{"a": 1}], object), "cannot read x.npy"),
    ],
)
def test_what_is_not_an_image(array: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_array(saved(tmp_path, array), 4)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text", b"\x93NUMPY\x01\x00\x10\x00{'a'"])
def test_damaged_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read x\.npy"):
        array_size(tmp_path / "x.npy")


@given(st.integers(1, 3), st.integers(0, 99))
def test_gray_of_pictures(count: int, seed: int) -> None:
    images = torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    torch.testing.assert_close(as_channels(images, 1), (images * weights).sum(1, keepdim=True))
    assert as_channels(images, 3) is images


def pairs(folder: Path, given: int, made: int, scale: int) -> Path:
    for index in range(4):
        rng = np.random.default_rng(index)
        saved(folder, rng.random((12, 16, given), np.float32), f"input/{index}.npy")
        clean = rng.random((made, 12 * scale, 16 * scale), np.float32)
        saved(folder, clean, f"target/{index}.npy")
    return folder


def test_pairs_of_arrays_are_cut_together_and_not_turned(tmp_path: Path) -> None:
    folder = pairs(tmp_path, 4, 3, 2)
    data = open_data(folder, "demosaic", 4, 3)
    degraded, clean = data.batch(0, 6, 8, seed=0)
    assert (degraded.shape, clean.shape) == ((6, 4, 8, 8), (6, 3, 16, 16))
    files = [np.load(folder / f"input/{index}.npy").transpose(2, 0, 1) for index in range(4)]
    windows = [
        file[:, top : top + 8, left : left + 8]
        for file in files
        for top in range(5)
        for left in range(9)
    ]
    for patch in degraded.numpy():
        assert any(np.array_equal(patch, window) for window in windows)
    ((window, target),) = [each.pairs[0] for each in data.unseen((8, 8))]
    assert (window.shape, target.shape) == ((1, 4, 8, 8), (1, 3, 16, 16))
    assert data.fingerprint["mode"] == "4 to 3 channels"


def test_arrays_beside_pictures(tmp_path: Path) -> None:
    """A network of 6 channels that returns a picture may have its targets as pictures."""
    from PIL import Image

    for index in range(3):
        saved(tmp_path, np.zeros((8, 8, 6), np.uint16), f"input/{index}.npy")
        (tmp_path / "target").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / f"target/{index}.png")
    degraded, clean = open_data(tmp_path, "deblur", 6, 3).held_out(1, 8)[0]
    assert degraded.shape == (1, 6, 8, 8)
    assert clean.mean((0, 2, 3)).tolist() == [1, 0, 0]


def test_clean_arrays_take_a_task_of_pictures(tmp_path: Path) -> None:
    for index in range(3):
        saved(tmp_path, np.full((16, 16, 5), index * 1000, np.uint16), f"{index}.npy")
    data = open_test_set(tmp_path, "denoise:sigma=10", 5)
    degraded, clean = data.test_images()[2]
    assert clean.unique().tolist() == [torch.tensor(2000 / 65535).item()]
    assert 5 / 255 < (degraded - clean).std() < 15 / 255


def test_pictures_where_arrays_are_needed(tmp_path: Path) -> None:
    from PIL import Image

    for index in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    with pytest.raises(UsageError, match="takes 5 channels and returns 5") as caught:
        open_data(tmp_path, "denoise", 5)
    assert "input/ and target/ of .npy arrays" in str(caught.value)
    assert open_data(tmp_path, "raw", 4).held_out(1, 4)[0][0].shape == (1, 4, 4, 4)
    folder = pairs(tmp_path / "pairs", 4, 3, 1)
    with pytest.raises(DataError, match=r"\.npy has 4 channels, 6 are needed"):
        open_data(folder, "deblur", 6, 3).held_out(1, 8)
