"""Every mode and depth that Pillow and tifffile write, in and out of `restore_file`.

Each comes back within half a step of its own depth, or the word is checked that says why not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from distillc.data.picture import Picture
from distillc.errors import DataError
from distillc.runtime.restore import restore_file
from tests.runtime.copies import Copy

H, W = 40, 50  # more than a tile: bands are blended
Array = np.ndarray[Any, Any]
random = np.random.default_rng(0)
BYTES = random.integers(0, 256, (H, W, 4), np.uint8)
BYTES[..., 3] |= 64  # nothing is fully transparent
WORDS = random.integers(0, 1 << 16, (H, W, 4), np.uint16)
WORDS[..., 3] |= 1 << 14
FLOATS = random.random((H, W, 4), np.float32)

ROUNDING = 2.0**-22
"""Of floats: where tiles are blended, weights are rounded too."""


def restored(path: Path, sink: Path, channels: int) -> tuple[Picture, Array]:
    """Copy a picture by a network; return what was said, and what a plain reader finds then."""
    made = restore_file(Copy(channels), path, sink)
    found = tifffile.imread(sink) if sink.suffix == ".tif" else decode_png(sink)
    return made, found.reshape(*found.shape[:2], -1)


def decode_png(path: Path) -> Array:
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def shares(values: Array) -> Array:
    """As shares of the full scale, in double precision."""
    full = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
    return np.asarray(values.astype(np.float64) / full)


def check(found: Array, wanted: Array, levels: float) -> None:
    assert found.shape == wanted.shape
    assert np.abs(shares(found) - wanted).max() <= 0.5 / levels + 1e-12


# What Pillow writes --------------------------------------------------------------------------

MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"),
    *("HSV", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"),
)
SAID = {
    "1": "1 bit a pixel",
    "CMYK": "CMYK is converted",
    "YCbCr": "YCbCr is converted",
    "I": "32-bit whole numbers",
}
"""What is said of pictures whose mode on reading is one of these."""


def drawn(mode: str) -> Image.Image:
    if mode.startswith("I;16"):
        order = ">u2" if mode.endswith("B") else "<u2"
        return Image.frombytes(mode, (W, H), WORDS[..., 0].astype(order).tobytes())
    if mode == "I":
        return Image.fromarray(WORDS[..., 0].astype(np.int32) << 15)
    if mode == "F":
        return Image.fromarray(FLOATS[..., 0])
    if mode == "LAB":
        return Image.frombytes("LAB", (W, H), BYTES[..., :3].tobytes())
    image = Image.fromarray(BYTES)
    if mode == "La":
        return image.convert("LA").convert("La")
    if mode == "PA":
        return image.convert("RGB").convert("P").convert("PA")
    return image.convert("RGB" if mode in ("1", "P", "CMYK", "YCbCr", "HSV") else mode).convert(
        mode
    )


def written(form: str, path: Path) -> Iterator[str]:
    """Write a file in every mode that Pillow writes in a format; yield the mode after each."""
    for mode in MODES[1:4] if form == "ICNS" else MODES:  # of megapixels
        try:
            with path.open("wb") as file:
                drawn(mode).save(file, form)
        except Exception:  # what Pillow does not write
            continue
        yield mode


def by_pillow(path: Path) -> tuple[str, Array]:
    """The mode that Pillow finds, and shares of full scale."""
    with Image.open(path) as image:
        image.load()
        mode = image.mode
    if mode in ("P", "PA", "YCbCr", "CMYK"):
        clear = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if clear else "RGB")
    values = np.asarray(image)
    if values.dtype == bool:
        return mode, values[..., None].astype(np.float64)
    if mode == "I" and image.format == "PPM":
        return "I;16", values[..., None] / 65535
    return mode, shares(values.reshape(*values.shape[:2], -1))


Image.init()
NEEDS_MORE = {"BUFR", "GRIB", "HDF5", "WMF"}  # a handler of the user's


@pytest.mark.parametrize("ending", [".tif", ".png"])
@pytest.mark.parametrize("form", sorted(set(Image.SAVE) - NEEDS_MORE))
def test_what_pillow_writes(form: str, ending: str, tmp_path: Path) -> None:
    path, sink = tmp_path / "in.picture", tmp_path / f"out{ending}"
    modes = 0
    for mode in written(form, path):
        in_and_out(path, sink, f"{form} {mode}")
        modes += 1
    assert modes


def in_and_out(path: Path, sink: Path, what: str) -> None:
    try:
        found_mode, wanted = by_pillow(path)
    except Exception:  # Pillow only writes it
        if what == "TIFF YCbCr":  # which tifffile reads; Pillow does from version 13 on
            return
        with pytest.raises(DataError, match=r"cannot read in\.picture"):
            restore_file(Copy(), path, sink)
        return
    if found_mode == "LAB":
        with pytest.raises(DataError, match=r"colours of kind .*LAB"):
            restore_file(Copy(), path, sink)
        return
    said, found = restored(path, sink, 3 if wanted.shape[2] > 2 else 1)
    notes = "; ".join(said.notes)
    if found_mode in SAID:
        assert SAID[found_mode] in notes
    if found_mode in ("I", "F") and sink.suffix == ".png":
        assert ".tif keeps" in notes
        check(found, wanted.clip(0, 1), 65535)
    elif found_mode == "I":  # 24 of 31 bits, as was said
        check(found, wanted, 1 << 23)
    elif found_mode == "F":
        np.testing.assert_allclose(found, wanted, rtol=ROUNDING)
    elif what == "TIFF RGBX":
        assert notes == "a further channel of unknown meaning is left out"
        check(found, wanted, 255)
    else:
        assert found_mode in SAID or not said.notes, what
        check(found, wanted, 65535 if found_mode.startswith("I;16") else 255)


# What tifffile writes ------------------------------------------------------------------------


def kinds() -> dict[str, tuple[Array, dict[str, Any]]]:
    rgb: dict[str, Any] = {"photometric": "rgb"}
    gray: dict[str, Any] = {"photometric": "minisblack"}
    alpha: dict[str, Any] = {"extrasamples": ["unassalpha"], "planarconfig": "contig"}
    deep, whole = WORDS[..., :3], BYTES[..., :3]
    one = deep[..., 0]
    planes = np.moveaxis(deep, 2, 0)
    numbers = {
        "uint8": whole,
        "uint16": deep,
        "uint32": deep.astype(np.uint32) << 16,
        "int8": (whole >> 1).astype(np.int8),
        "int16": (deep >> 1).astype(np.int16),
        "negative": deep.astype(np.int16),
        "int32": deep.astype(np.int32) << 15,
        "float16": FLOATS[..., :3].astype(np.float16),
        "float32": FLOATS[..., :3] * 4 - 1,
        "float64": FLOATS[..., :3].astype(np.float64),
    }
    packings = {
        "planar": (planes, {**rgb, "planarconfig": "separate"}),
        "big-endian": (deep, {**rgb, "byteorder": ">"}),
        "big-endian float": (FLOATS[..., :3], {**rgb, "byteorder": ">"}),
        "bigtiff": (deep, {**rgb, "bigtiff": True}),
        "tiled": (deep, {**rgb, "tile": (16, 16)}),
        "tiled planes": (planes, {**rgb, "tile": (16, 16), "planarconfig": "separate"}),
        "strips": (deep, {**rgb, "rowsperstrip": 7}),
        **{
            name: (deep, {**rgb, "compression": name, "predictor": predictor})
            for name in ("lzw", "zlib", "zstd", "lzma", "packbits")
            for predictor in (False,)
        },
        "lzw, differences": (deep, {**rgb, "compression": "lzw", "predictor": True}),
        "float, differences": (FLOATS[..., :3], {**rgb, "compression": "zlib", "predictor": True}),
    }
    return {
        **{f"{name} {c}": (a[..., :c].squeeze(), k) for name, a in numbers.items()
           for c, k in ((1, gray), (3, rgb))},
        **packings,
        "gray, alpha": (WORDS[..., 2:], {**gray, **alpha}),
        "colour, alpha": (WORDS, {**rgb, **alpha}),
        "float, alpha": (FLOATS.clip(0.01, 1), {**rgb, **alpha}),
        **{
            f"{bits} bits {c}": (deep[..., :c].squeeze() >> 16 - bits, k | {"bitspersample": bits})
            for bits in (10, 12, 14)
            for c, k in ((1, gray), (3, rgb))
        },
        "4 bits": (BYTES[..., 0] >> 4, {**gray, "bitspersample": 4}),
        "2 bits": (BYTES[..., 0] >> 6, {**gray, "bitspersample": 2}),
        "1 bit": (BYTES[..., 0] > 100, gray),
        "white is 0": (one, {"photometric": "miniswhite"}),
        "palette": (BYTES[..., 0], {"photometric": "palette",
                                    "colormap": WORDS.reshape(-1)[:768].reshape(3, 256)}),
    }  # fmt: skip


SAID_OF_TIFF = {
    "uint32": "32-bit whole numbers",
    "int32": "32-bit whole numbers",
    "float64": "64-bit floats are rounded",
    "float32": "above white",
    "1 bit": "1 bit a pixel",
    **{f"{bits} bits": f"{bits} bits a value become" for bits in (2, 4, 10, 12, 14)},
    "white is 0": "white was 0",
}


@pytest.mark.parametrize("ending", [".tif", ".png"])
@pytest.mark.parametrize("name", kinds())
def test_what_tifffile_writes(name: str, ending: str, tmp_path: Path) -> None:
    array, options = kinds()[name]
    try:
        tifffile.imwrite(tmp_path / "in.tif", array, **options)
    except NotImplementedError as error:
        pytest.skip(f"this imagecodecs packs no {name}: {error}")
    if options.get("planarconfig") == "separate":
        array = np.moveaxis(array, 0, 2)
    wanted, levels = expected(name, array.reshape(H, W, -1), options)
    said, found = restored(
        tmp_path / "in.tif", tmp_path / f"out{ending}", 3 if wanted.shape[2] > 2 else 1
    )
    notes = "; ".join(said.notes)
    for start, words in SAID_OF_TIFF.items():
        if name.startswith(start):
            assert words in notes
    if ending == ".tif" and array.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=max(ROUNDING, 0.5 / levels))
    elif ending == ".tif":
        check(found, wanted, levels)
    else:
        assert found.dtype in (np.uint8, np.uint16)
        assert (".tif keeps" in notes or ".png and .tif keep" in notes) == (
            array.dtype.kind == "f" or array.dtype.itemsize == 4 or array.dtype.kind == "i"
        )
        check(found, wanted.clip(0, 1), min(levels, 65535 if found.dtype == np.uint16 else 255))


def expected(name: str, array: Array, options: dict[str, Any]) -> tuple[Array, float]:
    """Shares of full scale, and the levels of the file."""
    if name == "palette":
        return shares(options["colormap"].T[array[..., 0]]), 65535
    if name == "1 bit":
        return array.astype(np.float64), 1
    if name == "white is 0":
        return 1 - shares(array), 65535
    if bits := options.get("bitspersample"):
        return array / ((1 << bits) - 1), (1 << bits) - 1
    wanted = shares(array)
    if array.dtype.kind == "f":
        return wanted, 1 << (11 if array.dtype == np.float16 else 24)
    return wanted, min(np.iinfo(array.dtype).max, 1 << 23)


REFUSED: dict[str, tuple[Array, dict[str, Any], str]] = {
    "complex": (FLOATS[..., 0] + 1j * FLOATS[..., 1], {}, "numbers of type complex64"),
    "int64": (WORDS[..., 0].astype(np.int64), {}, "numbers of type int64"),
    "uint64": (WORDS[..., 0].astype(np.uint64), {}, "numbers of type uint64"),
    "five": (
        np.dstack([BYTES, BYTES[..., 0]]),
        {"photometric": "minisblack", "planarconfig": "contig"},
        "5 channels",
    ),
    "lab": (BYTES[..., :3], {"photometric": "cielab"}, "CIELAB"),
    "raw": (WORDS[..., 0], {"photometric": "cfa"}, "raw sensor data"),
    "16-bit CMYK": (WORDS, {"photometric": "separated"}, "SEPARATED with numbers of type uint16"),
    "volume": (np.repeat(BYTES[None, :32, :48, 0], 5, 0), {"volumetric": True, "tile": (1, 16, 16)},
               "axes ZYX"),
    "not a number": (np.full((H, W), np.nan, np.float32), {}, "not a number"),
    "infinite": (np.full((H, W), np.inf, np.float32), {}, "infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    array, options, message = REFUSED[name]
    tifffile.imwrite(tmp_path / "in.tif", array, **{"photometric": "minisblack", **options})
    with pytest.raises(DataError, match=message):
        restore_file(Copy(1), tmp_path / "in.tif", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_several_pictures_in_a_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.stack([WORDS[..., 0], WORDS[..., 1]]),
                     photometric="minisblack")  # fmt: skip
    said, found = restored(tmp_path / "in.tif", tmp_path / "out.tif", 1)
    np.testing.assert_array_equal(found[..., 0], WORDS[..., 0])
    assert said.notes == ("only the first of 2 pictures in the file is used",)
    frames = [Image.fromarray(BYTES[..., i]) for i in range(3)]
    for ending in ("gif", "png", "webp"):
        path = tmp_path / f"in.{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        said, _ = restored(path, tmp_path / "out.png", 1 if ending == "png" else 3)
        assert "only the first of 3 pictures in the file is used" in said.notes
