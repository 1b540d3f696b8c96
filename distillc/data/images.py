"""Restoration data: folders of images, or the photographs that our dependencies ship."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillc.data.arrays import as_channels, read_array
from distillc.data.files import read_picture
from distillc.data.folders import (
    ARRAY,
    BUNDLED,
    BUNDLED_HELD_OUT,
    BUNDLED_TEST,
    Item,
    bundled,
    folder_items,
    split,
)
from distillc.data.picture import Array, full_scale
from distillc.data.tasks import PICTURES, Task, check_channels, parse_task
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
        channels: Of the degraded images: 1 (gray), 3 (RGB), or what task or arrays have.
        origin: Whose images they are, in words.
        made: Channels of the clean images; by default as many.
    """

    def __init__(
        self,
        train: Sequence[Item],
        held: Sequence[Item],
        test: Sequence[Item],
        task: Task,
        channels: int,
        origin: str,
        made: int | None = None,
    ) -> None:
        self.task = task
        self.origin = origin
        self._train = tuple(train)
        self._held = tuple(held)
        self._test = tuple(test)
        self._channels = channels
        self._made = channels if made is None else made
        self._cache: dict[tuple[Path, int], Array] = {}
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
            "mode": self._mode,
            "images": [len(self._train), len(self._held)],
            "files": sha.hexdigest()[:16],
        }

    @property
    def _mode(self) -> str:
        if self._channels == self._made and self._channels in _MODES:
            return _MODES[self._channels]
        return f"{self._channels} to {self._made} channels"

    def batch(self, step: int, batch: int, patch: int, seed: int) -> Pair:
        """Cut a training batch: it depends only on its arguments, so training can resume.

        Patches of pictures are flipped and turned at random. Pairs of other channels are not: a
        turned Bayer pattern is another one, and left and right views would be exchanged.

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
            cut = self._cut(index, patch, generator)
            plain = {each.shape[0] for each in cut} <= PICTURES
            cuts.append([turn(each, turns) for each in cut] if plain else cut)
        return self._degraded(
            [torch.stack(images) for images in zip(*cuts, strict=True)], generator
        )

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
        return self._degraded([each[None] for each in images], generator)

    def _degraded(self, images: list[torch.Tensor], generator: torch.Generator) -> Pair:
        """Degrade clean images, (B, C, H, W); pairs are degraded already."""
        if len(images) == 2:
            return images[0], images[1]
        clean, planes = images[0], self.task.planes
        source = clean if planes else as_channels(clean, self._channels)
        target = clean if planes else as_channels(clean, self._made)
        return self.task.degrade(source, generator), self.task.restored(target)

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
        return self.task.shrink if len(images) == 1 else images[1].shape[1] // images[0].shape[1]

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
        if item.degraded is None:
            one = 3 if self.task.planes else max(self._channels, self._made)
            return [self._decode(item.clean, one)]
        return [self._decode(item.degraded, self._channels), self._decode(item.clean, self._made)]

    def _decode(self, path: Path, channels: int) -> Array:
        """Return (C, H, W) as the file holds it."""
        if (path, channels) in self._cache:
            return self._cache[path, channels]
        if path.suffix.lower() == ARRAY:
            decoded = read_array(path, channels)
        else:
            if channels not in PICTURES:
                raise DataError(
                    f"{path.name} is a picture, {channels} channels are needed",
                    where=str(path),
                    hint=f"give arrays that end in {ARRAY}, (H, W, {channels}) or "
                    f"({channels}, H, W)",
                )
            decoded = read_picture(path).shown().as_channels(channels).transpose(2, 0, 1)
        if self._cached_bytes + decoded.nbytes <= _CACHE_BYTES:
            self._cache[path, channels] = decoded
            self._cached_bytes += decoded.nbytes
        return decoded


def _check_count(count: int) -> None:
    if count < 1:
        raise UsageError(f"{count} images: nothing would be compared", hint="ask for 1 or more")


def open_data(
    source: Path | None, task: Task | str, channels: int = 3, made: int | None = None
) -> RestorationData:
    """Open the data of a conversion.

    Of a folder's sorted names the last are for testing, those before them are held out, and the
    rest is for training (`distillc.data.folders.split`).

    Args:
        source: A folder of clean images, searched recursively; or a folder of pairs, with the
            subfolders `input` (or `lq`) and `target` (or `gt`) that hold images of the same
            names; None for the photographs that scikit-image and matplotlib ship. Beside pictures
            a folder may hold arrays (`.npy`), which have any number of channels.
        task: How clean images are degraded; of pairs, only its scale matters.
        channels: Channels of the network's input.
        made: Channels of its output; by default as many.

    Raises:
        UsageError: Unknown task, or one that makes images of other channels.
        DataError: Fewer than three images, an unreadable image, or pairs that do not match.
    """
    task, made = parse_task(task), channels if made is None else made
    if source is None:
        check_channels(task, channels, made)
        train, held, test = map(bundled, (BUNDLED, BUNDLED_HELD_OUT, BUNDLED_TEST))
        origin = "photographs of scikit-image and matplotlib"
        return RestorationData(train, held, test, task, channels, origin, made)
    items = folder_items(source, task, channels, made)
    if len(items) < 3:
        raise DataError(
            f"the image folder holds {len(items)} image{'s' * (len(items) > 1)}, at least three "
            "are needed: to train on, to choose by, and to test on",
            where=str(source),
            hint="add images, or leave out --data to use scikit-image's photographs",
        )
    origin = f"images of {source.resolve().name}"
    return RestorationData(*split(items), task, channels, origin, made)


def open_test_set(
    source: Path, task: Task | str, channels: int = 3, made: int | None = None
) -> RestorationData:
    """Open a folder whose images are all for testing; it gives no batches.

    Args: see `open_data`.

    Raises:
        UsageError: Unknown task, or one that makes images of other channels.
        DataError: No images, an unreadable image, or pairs that do not match.
    """
    task, made = parse_task(task), channels if made is None else made
    items = folder_items(source, task, channels, made)
    origin = f"images of {source.resolve().name}"
    return RestorationData((), items, items, task, channels, origin, made)


def _to_float(image: Array) -> torch.Tensor:
    """Numbers of a picture, white is 1."""
    values = np.array(image, np.float32, order="C")
    return torch.from_numpy(values) / full_scale(image.dtype)
