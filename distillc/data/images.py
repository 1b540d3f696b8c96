"""Restoration data: folders of images, or the photographs that our dependencies ship."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillc.checks import check_name
from distillc.data.files import read_picture
from distillc.data.folders import (
    BUNDLED,
    BUNDLED_HELD_OUT,
    BUNDLED_TEST,
    SUFFIXES,
    Item,
    bundled,
    paired_folder,
    plain_folder,
    split,
)
from distillc.data.picture import Array, full_scale
from distillc.data.tasks import Task, parse_task
from distillc.data.windows import Pair, Windows, mirror_to, seeded, spread, turn
from distillc.errors import DataError, UsageError
from distillc.workdir import file_digest

_CACHE_BYTES = 1 << 30  # decoded pixels kept in memory; what does not fit is decoded every time
_MODES = {1: "L", 3: "RGB"}


class RestorationData:
    """Degraded and clean images of one task: to train on, to choose by, and to test on.

    Args:
        train: Images that batches are cut from.
        held: Images that batches never use, by which a search and healing are judged.
        test: Images that nothing uses but the last measurement.
        task: How clean images are degraded; a pair brings its own degraded image.
        channels: 1 (gray) or 3 (RGB).
        origin: Whose images they are, in words.
    """

    def __init__(
        self,
        train: Sequence[Item],
        held: Sequence[Item],
        test: Sequence[Item],
        task: Task,
        channels: int,
        origin: str,
    ) -> None:
        self.task = task
        self.origin = origin
        self._train = tuple(train)
        self._held = tuple(held)
        self._test = tuple(test)
        self._channels = channels
        self._cache: dict[Path, Array] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        """Number of training images."""
        return len(self._train)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What training and choosing depend on, as JSON values: task, files' names and contents.

        Not the time of its last change, which a fresh checkout sets anew.
        """
        sha = hashlib.sha256()
        for item in (*self._train, *self._held):
            for path in reversed(item.paths):
                sha.update(f"{item.name}:{path.name}:{file_digest(path)}\n".encode())
        return {
            "task": str(self.task),
            "mode": _MODES[self._channels],
            "images": [len(self._train), len(self._held)],
            "files": sha.hexdigest()[:16],
        }

    def batch(self, step: int, batch: int, patch: int, seed: int) -> Pair:
        """Cut a training batch: it depends only on its arguments, so training can resume.

        Patches are flipped and turned at random.

        Args:
            step: Training step.
            batch: Number of patches, each from an image drawn at random.
            patch: Edge of the degraded patch, pixels; smaller images are mirrored to fill it.
            seed: Seed of the run.

        Returns:
            Degraded (B, C, patch, patch) and clean (B, C, patch * scale, patch * scale).

        Raises:
            DataError: An image cannot be decoded.
        """
        generator = seeded("batch", seed, step)
        cuts = []
        for _ in range(batch):
            index = int(torch.randint(len(self._train), (), generator=generator))
            turns = int(torch.randint(8, (), generator=generator))
            cuts.append([turn(each, turns) for each in self._cut(index, patch, generator)])
        clean = torch.stack([cut[-1] for cut in cuts])
        if len(cuts[0]) == 2:
            return torch.stack([cut[0] for cut in cuts]), clean
        return self.task.degrade(clean, generator), clean

    def held_out(self, count: int, crop: int) -> list[Pair]:
        """Return fixed crops of the held-out images, in turn: always the same, in every run.

        Args:
            count: Number of crops; an image gives several when there are fewer images.
            crop: Edge of the degraded crop, pixels.

        Returns:
            `count` pairs, degraded (1, C, crop, crop) and clean (1, C, crop * scale, ...).

        Raises:
            UsageError: The count is below 1: nothing would be compared.
            DataError: An image cannot be decoded.
        """
        _check_count(count)
        pairs = []
        for index in range(count):
            generator = seeded("held out", crop, index)
            chosen = len(self._train) + index % len(self._held)
            pairs.append(self._pair(self._cut(chosen, crop, generator), generator))
        return pairs

    def test_images(self, count: int | None = None, multiple: int = 1) -> list[Pair]:
        """Return whole held-out images, the first `count` or all.

        Args:
            count: At most so many.
            multiple: H and W of the degraded image are cut to multiples of this.

        Returns:
            Pairs, degraded (1, C, H, W) and clean (1, C, H * scale, W * scale).

        Raises:
            UsageError: The count is below 1: nothing would be compared.
            DataError: An image cannot be decoded.
        """
        if count is not None:
            _check_count(count)
        pairs = []
        for index, item in enumerate(self._held[:count]):
            images = self._images(item)
            height, width = (side // multiple * multiple for side in self._degraded_size(images))
            cut = self._window(images, 0, 0, height, width)
            pairs.append(self._pair(cut, seeded("test", index)))
        return pairs

    def unseen(self, size: tuple[int, int], most: int | None = None) -> Iterator[Windows]:
        """Yield windows of the test images, always the same: up to four of each, spread over it.

        A test image that is a copy of a training or held-out image, or of another test image, is
        left out.

        Args:
            size: (H, W) of a degraded window, pixels; smaller images are mirrored to fill it.
            most: At most so many images, spread evenly over the sorted names.

        Raises:
            DataError: An image cannot be decoded, or each is a copy of one that was seen.
        """
        items, count = self._originals, self.unseen_count(most)
        for index in range(count):
            item = items[index * len(items) // count]
            images = self._filled(item, size)
            rows, columns = (
                spread(side, edge)
                for side, edge in zip(self._degraded_size(images), size, strict=True)
            )
            generator = seeded("unseen", item.name)
            yield Windows(
                item.name,
                tuple(
                    self._pair(self._window(images, top, left, *size), generator)
                    for top in rows
                    for left in columns
                ),
            )

    def unseen_count(self, most: int | None = None) -> int:
        """Return how many images `unseen` yields.

        Raises:
            UsageError: `most` is below 1: nothing would be compared.
        """
        if most is not None:
            _check_count(most)
        return len(self._originals) if most is None else min(most, len(self._originals))

    @cached_property
    def _originals(self) -> tuple[Item, ...]:
        """The test images that are not copies of others."""
        others = {*self._train, *self._held} - {*self._test}  # all of a test set is for testing
        seen = {file_digest(item.clean) for item in others}
        found: dict[tuple[str, ...], Item] = {}
        for item in self._test:
            digests = [file_digest(path) for path in item.paths]
            if digests[-1] not in seen:
                found.setdefault(tuple(digests), item)
        if not found:
            raise DataError(
                "every test image is a copy of one that was trained on or chosen by",
                where=self.origin,
                hint="add other images to the folder",
            )
        return tuple(found.values())

    def _pair(self, images: list[torch.Tensor], generator: torch.Generator) -> Pair:
        clean = images[-1][None]
        if len(images) == 2:
            return images[0][None], clean
        return self.task.degrade(clean, generator), clean

    def _cut(self, index: int, edge: int, generator: torch.Generator) -> list[torch.Tensor]:
        """Cut a random window out of an image (or both images of a pair)."""
        images = self._filled((*self._train, *self._held)[index], (edge, edge))
        top, left = (
            int(torch.randint(side - edge + 1, (), generator=generator))
            for side in self._degraded_size(images)
        )
        return self._window(images, top, left, edge, edge)

    def _filled(self, item: Item, size: tuple[int, int]) -> list[Array]:
        """The item's images, mirrored until the degraded one holds (H, W)."""
        images = self._images(item)
        factors = [1] * (len(images) - 1) + [self._scale(images)]
        return [
            mirror_to(image, (size[0] * s, size[1] * s))
            for image, s in zip(images, factors, strict=True)
        ]

    def _degraded_size(self, images: list[Array]) -> tuple[int, int]:
        scale = self._scale(images)
        return images[-1].shape[1] // scale, images[-1].shape[2] // scale

    def _scale(self, images: list[Array]) -> int:
        """Clean size / degraded size."""
        return self.task.scale if len(images) == 1 else images[1].shape[1] // images[0].shape[1]

    def _window(
        self, images: list[Array], top: int, left: int, height: int, width: int
    ) -> list[torch.Tensor]:
        """Cut the same window, in degraded pixels, out of both images."""
        factors = [1] * (len(images) - 1) + [self._scale(images)]
        return [
            _to_float(image[:, top * s : (top + height) * s, left * s : (left + width) * s])
            for image, s in zip(images, factors, strict=True)
        ]

    def _images(self, item: Item) -> list[Array]:
        """The item's images as (C, H, W), as files hold them: [clean] or [degraded, clean]."""
        return [self._decode(path) for path in item.paths]

    def _decode(self, path: Path) -> Array:
        if path in self._cache:
            return self._cache[path]
        pixels = read_picture(path).shown().as_channels(self._channels)
        decoded = pixels.transpose(2, 0, 1)
        if self._cached_bytes + pixels.nbytes <= _CACHE_BYTES:
            self._cache[path] = decoded
            self._cached_bytes += pixels.nbytes
        return decoded


def _check_count(count: int) -> None:
    if count < 1:
        raise UsageError(f"{count} images: nothing would be compared", hint="ask for 1 or more")


def open_data(source: Path | None, task: Task | str, channels: int = 3) -> RestorationData:
    """Open the data of a conversion.

    Of a folder's sorted names the last are for testing, those before them are held out, and the
    rest is for training (`distillc.data.folders.split`).

    Args:
        source: A folder of clean images, searched recursively; or a folder of pairs, with the
            subfolders `input` (or `lq`) and `target` (or `gt`) that hold images of the same
            names; None for the photographs that scikit-image and matplotlib ship.
        task: How clean images are degraded; of pairs, only its scale matters.
        channels: Channels of the network's input, 1 or 3.

    Raises:
        UsageError: Unknown task, or a network with other channels.
        DataError: Fewer than three images, an unreadable image, or pairs that do not match.
    """
    task = _accept(task, channels)
    if source is None:
        train, held, test = map(bundled, (BUNDLED, BUNDLED_HELD_OUT, BUNDLED_TEST))
        origin = "photographs of scikit-image and matplotlib"
        return RestorationData(train, held, test, task, channels, origin)
    items = _items(source, task)
    if len(items) < 3:
        raise DataError(
            f"the image folder holds {len(items)} image{'s' * (len(items) > 1)}, at least three "
            "are needed: to train on, to choose by, and to test on",
            where=str(source),
            hint="add images, or leave out --data to use scikit-image's photographs",
        )
    return RestorationData(*split(items), task, channels, f"images of {source.resolve().name}")


def open_test_set(source: Path, task: Task | str, channels: int = 3) -> RestorationData:
    """Open a folder whose images are all for testing; it gives no batches.

    Args: see `open_data`.

    Raises:
        UsageError: Unknown task, or a network with other channels.
        DataError: No images, an unreadable image, or pairs that do not match.
    """
    task = _accept(task, channels)
    items = _items(source, task)
    origin = f"images of {source.resolve().name}"
    return RestorationData((), items, items, task, channels, origin)


def _accept(task: Task | str, channels: int) -> Task:
    if channels not in (1, 3):
        raise UsageError(
            f"the network takes {channels} channels, images have 1 or 3",
            hint="images are needed to distil and verify; `distillc.compile` in Python needs none",
        )
    return parse_task(task)


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


def _items(source: Path, task: Task) -> list[Item]:
    """Return the images or pairs of a folder, at least one."""
    check_folder(source)
    items = paired_folder(source, task.scale) or plain_folder(source)
    if not items:
        raise DataError(
            "the image folder holds no images",
            where=str(source),
            hint=f"images end in {', '.join(sorted(SUFFIXES))}",
        )
    return items


def _to_float(image: Array) -> torch.Tensor:
    """Numbers of a picture, white is 1."""
    values = np.array(image, np.float32, order="C")
    return torch.from_numpy(values) / full_scale(image.dtype)
