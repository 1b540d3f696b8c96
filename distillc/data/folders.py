"""Where images lie: plain folders, folders of pairs, and what our dependencies ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillc.checks import check_name
from distillc.data.arrays import array_size
from distillc.data.files import image_size, unreadable
from distillc.data.tasks import Task, check_channels
from distillc.errors import DataError

ARRAY = ".npy"
SUFFIXES = frozenset({ARRAY, ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
DEGRADED_FOLDERS = ("input", "lq")
CLEAN_FOLDERS = ("target", "gt")

BUNDLED = (
    *("astronaut.png", "brick.png", "camera.png", "coins.png", "grass.png", "gravel.png"),
    *("ihc.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"),
)
BUNDLED_HELD_OUT = ("chelsea.png", "coffee.png")
BUNDLED_TEST = (
    *("grace_hopper.jpg", "hubble_deep_field.jpg", "moon.png", "page.png", "retina.jpg"),
    "text.png",
)
"""The first is matplotlib's, the others scikit-image's."""

HELD_OUT = 0.1
"""Share of a folder that is held out, and least share that is tested on."""

SMALL_TEST = 5
"""Up to so many images of a small folder are tested on, but no more than a quarter of it."""


@dataclass(frozen=True)
class Item:
    """A clean image, and its degraded partner in a folder of pairs."""

    name: str
    clean: Path
    degraded: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files: (clean,) or (degraded, clean)."""
        return (self.clean,) if self.degraded is None else (self.degraded, self.clean)


def bundled(names: Sequence[str]) -> list[Item]:
    """Those photographs that are on disk; skimage.data's own functions could download others.

    Raises:
        DataError: None is.
    """
    import matplotlib  # whoever brings images of their own does not wait for these two
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    folders = (folder, Path(matplotlib.get_data_path()) / "sample_data")
    places = ((name, each / name) for name in names for each in folders)
    items = [Item(name, path) for name, path in places if path.is_file()]
    if not items:
        raise DataError(
            "this scikit-image comes without photographs",
            where=str(folder),
            hint="pass a folder of clean images with --data",
        )
    return items


def check_folder(source: Path | None) -> None:
    """Check that there is a folder, or None.

    Raises:
        UsageError: No folder can have this name.
        DataError: There is none.
    """
    if source is None:
        return
    check_name(source)
    if not source.is_dir():
        raise DataError(
            "the image folder does not exist" if not source.exists() else "not a folder of images",
            where=str(source),
            hint="pass a folder with --data, or leave it out to use scikit-image's photographs",
        )


def folder_items(source: Path, task: Task, channels: int, made: int) -> list[Item]:
    """Return the images or pairs of a folder, at least one.

    Raises:
        UsageError: The task makes no images of these channels, and there are no pairs of arrays.
        DataError: As of `check_folder`, `paired_folder` and `plain_folder`; or there are none.
    """
    check_folder(source)
    items = paired_folder(source, task.scale) or plain_folder(source)
    if any(item.degraded is None for item in items) and not (
        channels == made and all(item.clean.suffix.lower() == ARRAY for item in items)
    ):
        check_channels(task, channels, made)
    if not items:
        raise DataError(
            "the image folder holds no images",
            where=str(source),
            hint=f"images end in {', '.join(sorted(SUFFIXES))}",
        )
    return items


def _image_files(folder: Path) -> dict[str, Path]:
    """Images below a folder by relative path, sorted; hidden files are not images."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return {
        path.relative_to(folder).as_posix(): path
        for path in files
        if path.is_file() and not path.name.startswith(".")
    }


def plain_folder(source: Path) -> list[Item]:
    """The images of a folder, all of them clean.

    Raises:
        DataError: A file is not an image.
    """
    items = [Item(name, path) for name, path in _image_files(source).items()]
    for item in items:
        _size(item.clean)
    return items


def _size(path: Path) -> tuple[int, int]:
    """Return (W, H) of the image in a file."""
    return array_size(path) if path.suffix.lower() == ARRAY else image_size(path)


def paired_folder(source: Path, scale: int) -> list[Item]:
    """The pairs of a folder; none when it has no subfolders of those names.

    Raises:
        DataError: A file is not an image, lacks a partner, or the sizes do not fit `scale`.
    """
    try:
        folders = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    except OSError as error:
        raise unreadable(source, error) from error
    degraded = next((folders[name] for name in DEGRADED_FOLDERS if name in folders), None)
    clean = next((folders[name] for name in CLEAN_FOLDERS if name in folders), None)
    if degraded is None or clean is None:
        return []
    inputs, targets = (
        {str(Path(name).with_suffix("")): path for name, path in _image_files(folder).items()}
        for folder in (degraded, clean)
    )
    if lonely := sorted(set(inputs) ^ set(targets)):
        raise DataError(
            f"{len(lonely)} images have no partner: {_some(lonely)}",
            where=f"{degraded} and {clean}",
            hint="both folders must hold images of the same names",
        )
    items = [Item(name, targets[name], path) for name, path in inputs.items()]
    wrong = []
    for item in items:
        small, large = _size(inputs[item.name]), _size(item.clean)
        if (small[0] * scale, small[1] * scale) != large:
            wrong.append(f"{item.name} ({small[0]}x{small[1]} and {large[0]}x{large[1]})")
    if wrong:
        raise DataError(
            f"{len(wrong)} pairs have sizes that do not fit scale {scale}: {_some(wrong)}",
            where=str(source),
            hint="a clean image must be exactly scale times the size of its degraded one",
        )
    return items


def split(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item], Sequence[Item]]:
    """Split sorted images into training, held-out and test images, in this order.

    Names that follow each other, say frames of a film, stay together but at the two borders. A
    border moves to where a subfolder ends, if one does less than half the held-out part away.

    Args:
        items: At least three.
    """
    count = len(items)
    held = max(1, round(count * HELD_OUT))
    test = max(held, min(SMALL_TEST, count // 4))
    last = _border(items, count - test, (held - 1) // 2)
    first = _border(items, count - test - held, (held - 1) // 2)
    return items[:first], items[first:last], items[last:]


def _border(items: Sequence[Item], wanted: int, reach: int) -> int:
    """Return the index nearest to `wanted` at which a subfolder begins, if one is in reach."""
    folders = [item.name.rpartition("/")[0] for item in items]
    begins = [
        index
        for index in range(wanted - reach, wanted + reach + 1)
        if 0 < index < len(items) and folders[index] != folders[index - 1]
    ]
    return min(begins, key=lambda index: abs(index - wanted), default=wanted)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
