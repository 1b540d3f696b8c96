"""Image files through a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from distillc.errors import DataError, StorageError, UsageError
from distillc.runtime.bundle import Bundle
from distillc.runtime.restore import restore_file
from tests.runtime.copies import Copy

PHOTO = Path(skimage.data.__file__).parent / "chelsea.png"


def test_photograph(verified: Bundle, tmp_path: Path) -> None:
    source, sink = tmp_path / "cat.png", tmp_path / "out.png"
    Image.open(PHOTO).crop((0, 0, 50, 37)).save(source)
    assert restore_file(verified, source, sink).size == (50, 37)
    x = np.asarray(Image.open(source), np.float32).transpose(2, 0, 1)[None] / 255
    y = np.rint(verified.run(x)[0].clip(0, 1) * 255).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(sink)), y)


def test_what_cannot_be_read_or_written(verified: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"cannot read text\.png"):
        restore_file(verified, tmp_path / "text.png", tmp_path / "out.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "in.png")
    with pytest.raises(DataError, match=r"\.xyz is not an image format"):
        restore_file(verified, tmp_path / "in.png", tmp_path / "out.xyz")
    with pytest.raises(StorageError):
        restore_file(verified, tmp_path / "in.png", tmp_path / "no" / "out.png")


def save_rgba(path: Path, size: tuple[int, int] = (60, 70)) -> np.ndarray:
    """A red shape on transparency whose hidden colour is green; return its pixels."""
    pixels = np.zeros((*size, 4), np.uint8)
    pixels[:] = (0, 255, 0, 0)
    pixels[20:50, 10:40] = (200, 30, 10, 255)
    pixels[20:50, 10] = (200, 30, 10, 128)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_stays_and_grows(tmp_path: Path, scale: int, channels: int) -> None:
    pixels = save_rgba(tmp_path / "in.png")
    copy = Copy(channels, scale=scale)
    made = restore_file(copy, tmp_path / "in.png", tmp_path / "out.png")
    found = np.asarray(Image.open(tmp_path / "out.png"))
    assert found.shape == (60 * scale, 70 * scale, 4)
    visible = found[found[..., 3] > 0]
    assert np.abs(visible[:, :3].astype(int) - (200, 30, 10)).max() <= 1
    assert abs(int(found[35 * scale, 10 * scale, 3]) - 128) <= (0 if scale == 1 else 60)
    if scale == 1:
        np.testing.assert_array_equal(found[..., 3], pixels[..., 3])
    hidden = 255 * np.stack([x for seen in copy.seen for x in seen])
    assert (hidden[:, min(1, channels - 1)] < 240).all()  # the network saw no green
    assert any("fully transparent" in note for note in made.notes)


def test_transparency_in_formats_without(tmp_path: Path) -> None:
    save_rgba(tmp_path / "in.png")
    made = restore_file(Copy(), tmp_path / "in.png", tmp_path / "out.bmp")
    found = np.asarray(Image.open(tmp_path / "out.bmp"))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[30, 30].tolist() == [200, 30, 10]
    assert np.abs(found[30, 10].astype(int) - (227, 142, 132)).max() <= 1
    assert ".bmp holds no transparency: laid on white; .png and .tif keep it" in made.notes


@pytest.mark.parametrize("scale", [1, 3])
def test_gray_network_restores_luma_and_carries_chroma(tmp_path: Path, scale: int) -> None:
    photo = np.asarray(Image.open(PHOTO))[:70, :60]
    Image.fromarray(photo).save(tmp_path / "in.png")

    class Darker(Copy):
        def run(self, x: Any, *_: Any, **__: Any) -> Any:
            return 0.5 * super().run(x)

    bundle = Darker(1, scale=scale)
    made = restore_file(bundle, tmp_path / "in.png", tmp_path / "out.png")
    assert "the network is for gray: the luma is restored, the chroma carried" in made.notes
    ycc = np.asarray(Image.open(tmp_path / "out.png").convert("YCbCr")).astype(float)
    wanted = np.asarray(Image.fromarray(photo).convert("YCbCr")).astype(float)
    found = ycc[::scale, ::scale] if scale == 1 else ycc[1::scale, 1::scale]
    clipped = (np.asarray(Image.open(tmp_path / "out.png")) % 255 == 0).any(axis=2)
    inside = ~(clipped if scale == 1 else clipped[1::scale, 1::scale])
    assert inside.mean() > 0.5
    assert np.abs(found - wanted * (0.5, 1, 1))[inside].max() <= (1.5 if scale == 1 else 3)


def test_gray_stays_gray(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (40, 50), np.uint16)
    Image.fromarray(deep).save(tmp_path / "in.png")
    restore_file(Copy(3), tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), deep)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("turn", [1, 3, 6, 7])
def test_profile_exif_and_resolution(tmp_path: Path, ending: str, turn: int) -> None:
    notes = Image.Exif()
    notes[ExifTags.Base.Make] = "A camera"
    notes[ExifTags.Base.Orientation] = turn
    notes.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 800
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.open(PHOTO).crop((0, 0, 50, 37)).save(
        tmp_path / "in.jpg", exif=notes, icc_profile=profile, dpi=(300, 150), quality=95
    )
    made = restore_file(Copy(), tmp_path / "in.jpg", tmp_path / f"out.{ending}")
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "in.jpg"))
    with Image.open(tmp_path / f"out.{ending}") as found:
        assert found.size == upright.size
        assert found.info["icc_profile"] == profile
        kept = found.getexif()
        assert ExifTags.Base.Orientation not in kept or kept[ExifTags.Base.Orientation] == 1
        if ending != "webp":
            dpi = (150, 300) if turn > 4 else (300, 150)
            assert found.info["dpi"] == pytest.approx(dpi, abs=0.1)
        if ending == "tif":
            assert ".tif is written without Exif: .png and .jpg keep it" in made.notes
        else:
            assert kept[ExifTags.Base.Make] == "A camera"
            assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 800
        error = np.asarray(found).astype(int) - np.asarray(upright)
        assert np.abs(error).max() <= (12 if ending == "jpg" else 0)


def test_profile_of_other_colours_is_left_out(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.open(PHOTO).crop((0, 0, 20, 20)).save(tmp_path / "in.png", icc_profile=profile)
    made = restore_file(Copy(), tmp_path / "in.png", tmp_path / "out.png")
    assert "icc_profile" not in Image.open(tmp_path / "out.png").info
    assert any("colour profile is for other colours" in note for note in made.notes)


def test_white_of_sensors(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 4096, (20, 20, 3), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", raw, photometric="rgb")
    copy = Copy()
    made = restore_file(copy, tmp_path / "in.tif", tmp_path / "out.tif")
    assert any("pass --white 4095" in note for note in made.notes)
    made = restore_file(copy, tmp_path / "in.tif", tmp_path / "out.tif", white=4095)
    assert made.notes == ()
    assert copy.seen[1].max() == pytest.approx(raw.max() / 4095)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), raw)
    restore_file(copy, tmp_path / "in.tif", tmp_path / "out.jpg", white=4095)
    found = np.asarray(Image.open(tmp_path / "out.jpg")).mean()
    assert found == pytest.approx(raw.mean() / 4095 * 255, abs=3)


def test_values_above_white_are_kept_in_floats(tmp_path: Path) -> None:
    bright = np.linspace(-0.5, 9, 400, dtype=np.float32).reshape(20, 20)
    tifffile.imwrite(tmp_path / "in.tif", bright, photometric="minisblack")
    made = restore_file(Copy(1), tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), bright)
    assert any("values up to 9 are above white (1)" in note for note in made.notes)
    made = restore_file(Copy(1), tmp_path / "in.tif", tmp_path / "out.png", white=9)
    found = np.asarray(Image.open(tmp_path / "out.png")) / 65535
    assert np.abs(found - bright.clip(0) / 9).max() <= 0.501 / 65535
    assert any(".png holds no floats" in note for note in made.notes)


def test_deep_pictures_in_shallow_formats(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 20, 3), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", deep, photometric="rgb")
    made = restore_file(Copy(), tmp_path / "in.tif", tmp_path / "out.webp")
    assert ".webp holds 8 bits a value, the picture has 16: .png and .tif keep them" in made.notes
    found = np.asarray(Image.open(tmp_path / "out.webp")).astype(float)
    assert np.abs(found / 255 - deep / 65535).max() <= 0.5001 / 255


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    save_rgba(tmp_path / "in.png")
    copy = Copy()
    (tmp_path / "folder.png").mkdir()
    for place in ("no/out.png", "folder.png"):
        with pytest.raises(StorageError):
            restore_file(copy, tmp_path / "in.png", tmp_path / place)
    for place in ("out.psd", "out", "out.gif", "out.pdf"):
        with pytest.raises(DataError, match="not an image format that can be written"):
            restore_file(copy, tmp_path / "in.png", tmp_path / place)
    assert not copy.seen


def test_a_result_that_its_format_cannot_hold(tmp_path: Path) -> None:
    Image.new("L", (17000, 1)).save(tmp_path / "in.png")
    (tmp_path / "out.webp").write_bytes(b"of the user")
    with pytest.raises(DataError, match=r"\.webp cannot hold a picture of 17000x1"):
        restore_file(Copy(1), tmp_path / "in.png", tmp_path / "out.webp")
    assert (tmp_path / "out.webp").read_bytes() == b"of the user"


def test_networks_of_other_channels_are_refused(tmp_path: Path) -> None:
    for copy, message in ((Copy(4), "takes 4 channels"), (Copy(3, made=2), "gives 2 channels")):
        with pytest.raises(UsageError, match=message):
            restore_file(copy, PHOTO, tmp_path / "out.png")
