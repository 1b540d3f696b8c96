"""Image files through a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from distillc.errors import DataError, StorageError
from distillc.runtime.bundle import Bundle
from distillc.runtime.restore import restore_file

PHOTO = Path(skimage.data.__file__).parent / "chelsea.png"


def test_photograph(verified: Bundle, tmp_path: Path) -> None:
    source, sink = tmp_path / "cat.png", tmp_path / "out.png"
    Image.open(PHOTO).crop((0, 0, 50, 37)).save(source)
    assert restore_file(verified, source, sink) == (50, 37)
    x = np.asarray(Image.open(source), np.float32).transpose(2, 0, 1)[None] / 255
    y = np.rint(verified.run(x)[0].clip(0, 1) * 255).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(sink)), y)


def test_gray_image_with_alpha_becomes_colour(verified: Bundle, tmp_path: Path) -> None:
    Image.open(PHOTO).crop((0, 0, 16, 16)).convert("LA").save(tmp_path / "gray.png")
    restore_file(verified, tmp_path / "gray.png", tmp_path / "out.bmp")
    assert Image.open(tmp_path / "out.bmp").mode == "RGB"


def test_what_cannot_be_read_or_written(verified: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"cannot read text\.png"):
        restore_file(verified, tmp_path / "text.png", tmp_path / "out.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    with pytest.raises(DataError, match=r"\.xyz is no image format"):
        restore_file(verified, tmp_path / "in.png", tmp_path / "out.xyz")
    with pytest.raises(StorageError):
        restore_file(verified, tmp_path / "in.png", tmp_path / "no" / "out.png")
