"""Restoration data: folders of images, or the photographs that scikit-image ships."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillc.data.files import Mode, read_image
from distillc.data.folders import (
    BUNDLED,
    BUNDLED_HELD_OUT,
    SUFFIXES,
    Item,
    bundled,
    paired_folder,
    plain_folder,
)
from distillc.data.tasks import Task, parse_task
from distillc.errors import DataError, UsageError
from distillc.workdir import file_digest

Pair = tuple[torch.Tensor, torch.Tensor]
"""Degraded (B, C, H, W) and clean (B, C, H * scale, W * scale), float32."""

_CACHE_BYTES = 1 << 30  # decoded pixels kept in memory; what does not fit is decoded every time


class RestorationData:
    """Degraded and clean images of one task, split into training and held-out images.

    Args:
        train: Images that batches are cut from.
        held: Images that batches never use.
        task: How clean images are degraded; a pair brings its own degraded image.
        channels: 1 (gray) or 3 (RGB).
    """

    def __init__(
        self, train: Sequence[Item], held: Sequence[Item], task: Task, channels: int
    ) -> None:
        self.task = task
        self._train = tuple(train)
        self._held = tuple(held)
        self._mode: Mode = "L" if channels == 1 else "RGB"
        self._cache: dict[Path, torch.Tensor] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        """Number of training images."""
        return len(self._train)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the data depend on, as JSON values: task, and every file's name and content.

        Not the time of its last change, which a fresh checkout sets anew.
        """
        sha = hashlib.sha256()
        for item in (*self._train, *self._held):
            for path in filter(None, (item.clean, item.degraded)):
                sha.update(f"{item.name}:{path.name}:{file_digest(path)}\n".encode())
        return {
            "task": str(self.task),
            "mode": self._mode,
            "images": [len(self._train), len(self._held)],
            "files": sha.hexdigest()[:16],
        }

    def batch(self, step: int, batch: int, patch: int, seed: int) -> Pair:
        """Cut a training batch: a function of its arguments alone, so training can resume.

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
        generator = _generator("batch", seed, step)
        cuts = []
        for _ in range(batch):
            index = int(torch.randint(len(self._train), (), generator=generator))
            turns = int(torch.randint(8, (), generator=generator))
            cuts.append([_turn(each, turns) for each in self._cut(index, patch, generator)])
        clean = _to_float(torch.stack([cut[-1] for cut in cuts]))
        if len(cuts[0]) == 2:
            return _to_float(torch.stack([cut[0] for cut in cuts])), clean
        return self.task.degrade(clean, generator), clean

    def held_out(self, count: int, crop: int) -> list[Pair]:
        """Return fixed crops of the held-out images, in turn: always the same, in every run.

        Args:
            count: Number of crops; an image gives several when there are fewer images.
            crop: Edge of the degraded crop, pixels.

        Returns:
            `count` pairs, degraded (1, C, crop, crop) and clean (1, C, crop * scale, ...).

        Raises:
            DataError: An image cannot be decoded.
        """
        pairs = []
        for index in range(count):
            generator = _generator("held out", crop, index)
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
            DataError: An image cannot be decoded.
        """
        pairs = []
        for index, item in enumerate(self._held[:count]):
            images = self._images(item)
            height, width = (
                side // self._scale(images) // multiple * multiple for side in images[-1].shape[1:]
            )
            cut = self._window(images, 0, 0, height, width)
            pairs.append(self._pair(cut, _generator("test", index)))
        return pairs

    def _pair(self, images: list[torch.Tensor], generator: torch.Generator) -> Pair:
        clean = _to_float(images[-1][None])
        if len(images) == 2:
            return _to_float(images[0][None]), clean
        return self.task.degrade(clean, generator), clean

    def _cut(self, index: int, edge: int, generator: torch.Generator) -> list[torch.Tensor]:
        """Cut a random window out of an image (or both images of a pair), uint8."""
        images = self._images((*self._train, *self._held)[index])
        scale = self._scale(images)
        images = [
            _mirror_to(image, edge * (scale if image is images[-1] else 1)) for image in images
        ]
        top, left = (
            int(torch.randint(side // scale - edge + 1, (), generator=generator))
            for side in images[-1].shape[1:]
        )
        return self._window(images, top, left, edge, edge)

    def _scale(self, images: list[torch.Tensor]) -> int:
        """Clean size / degraded size."""
        return self.task.scale if len(images) == 1 else images[1].shape[1] // images[0].shape[1]

    def _window(
        self, images: list[torch.Tensor], top: int, left: int, height: int, width: int
    ) -> list[torch.Tensor]:
        """Cut the same window, in degraded pixels, out of both images."""
        factors = [1] * (len(images) - 1) + [self._scale(images)]
        return [
            image[:, top * s : (top + height) * s, left * s : (left + width) * s]
            for image, s in zip(images, factors, strict=True)
        ]

    def _images(self, item: Item) -> list[torch.Tensor]:
        """The item's images as (C, H, W) uint8: [clean] or [degraded, clean]."""
        paths = [item.clean] if item.degraded is None else [item.degraded, item.clean]
        return [self._decode(path) for path in paths]

    def _decode(self, path: Path) -> torch.Tensor:
        if path in self._cache:
            return self._cache[path]
        decoded = torch.from_numpy(read_image(path, self._mode)).permute(2, 0, 1).contiguous()
        if self._cached_bytes + decoded.nbytes <= _CACHE_BYTES:
            self._cache[path] = decoded
            self._cached_bytes += decoded.nbytes
        return decoded


def open_data(
    source: Path | None, task: Task | str, channels: int = 3, held_out: float = 0.1
) -> RestorationData:
    """Open restoration data.

    Args:
        source: A folder of clean images, searched recursively; or a folder of pairs, with the
            subfolders `input` (or `lq`) and `target` (or `gt`) that hold images of the same
            names; None for the photographs that scikit-image ships.
        task: How clean images are degraded; of pairs, only its scale matters.
        channels: Channels of the network's input, 1 or 3.
        held_out: The share of a folder that is held out, the last of the sorted names and at
            least one; 1.0 makes it a test set, which gives no batches.

    Raises:
        UsageError: Unknown task, or a network with other channels.
        DataError: No images, an unreadable image, or pairs that do not match.
    """
    task = parse_task(task)
    if channels not in (1, 3):
        raise UsageError(
            f"the network takes {channels} channels, images have 1 or 3",
            hint="only gray and colour networks can be distilled from image folders",
        )
    if source is None:
        return RestorationData(bundled(BUNDLED), bundled(BUNDLED_HELD_OUT), task, channels)
    if not source.is_dir():
        raise DataError(
            "the image folder does not exist" if not source.exists() else "not a folder of images",
            where=str(source),
            hint="pass a folder with --data, or leave it out to use scikit-image's photographs",
        )
    items = paired_folder(source, task.scale) or plain_folder(source)
    held = max(1, round(len(items) * held_out))
    if not items or (held == len(items) and held_out < 1):
        raise DataError(
            "the image folder holds one image, at least two are needed (one is held out)"
            if items
            else "the image folder holds no images",
            where=str(source),
            hint=f"images end in {', '.join(sorted(SUFFIXES))}",
        )
    return RestorationData(items[:-held], items[-held:], task, channels)


def _generator(*key: object) -> torch.Generator:
    """A generator seeded by a key, so that neighbouring keys give unrelated streams."""
    sha = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(sha[:8], "little", signed=True))


def _mirror_to(image: torch.Tensor, edge: int) -> torch.Tensor:
    """Mirror (C, H, W) at its lower and right edges until both sides reach `edge`."""
    missing = [max(0, edge - side) for side in image.shape[1:]]
    if not any(missing):
        return image
    padded = np.pad(image.numpy(), [(0, 0), *((0, each) for each in missing)], mode="symmetric")
    return torch.from_numpy(padded)


def _turn(image: torch.Tensor, turns: int) -> torch.Tensor:
    """One of the eight symmetries of the square, applied to (C, H, W)."""
    return torch.rot90(image.flip(2) if turns >= 4 else image, turns % 4, (1, 2))


def _to_float(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 255
