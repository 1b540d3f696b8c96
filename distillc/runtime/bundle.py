"""The bundle: a folder with all that is needed to run a compiled network, and to check it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distillc.errors import StorageError, UsageError, VerificationError
from distillc.runtime.benchmark import Stats, compare
from distillc.runtime.devices import get_device
from distillc.runtime.devices.base import Device
from distillc.workdir import file_digest, storage_errors, write_json

FORMAT = 3
"""Version of the bundle's layout; others are refused."""

LIBRARY = "model.so"
HEADER = "distillc.h"
MANIFEST = "manifest.json"
PARTS = (
    LIBRARY,
    HEADER,
    "hybrid.pt2",
    "weights.safetensors",
    "model.onnx",
    "reference.safetensors",
)
"""What every bundle has, besides the program that the manifest calls `bench`.

A report and a plot may come on top, for a phone also the library that the manifest calls `android`.
"""

PACKAGES = ("distillc", "torch", "apache-tvm", "onnx", "onnxruntime")


class Bundle:
    """A compiled network on disk; `Bundle.open` checks it, `create_bundle` makes it.

    Attributes:
        path: The folder.
        manifest: What is in it: name, target, size, input_shape, output_shape, files (SHA-256 of
            each), versions, decisions, options, metrics, verified.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = dict(manifest)

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle and check every file's hash.

        Raises:
            UsageError: There is no bundle.
            VerificationError: A file is missing, was changed or lies outside the folder, or the
                bundle is too new.
        """
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise UsageError(
                "this is not a bundle" if path.exists() else "the bundle does not exist",
                where=str(path),
                hint=f"a bundle is a folder with {MANIFEST}, made by `distillc convert`",
            )
        try:
            manifest = json.loads((path / MANIFEST).read_text())
            files = dict(manifest["files"])
            form = int(manifest["format"])
            complete = form != FORMAT or (
                all(name in files for name in PARTS)
                and all(manifest[key] for key in ("target", "devices", "bench", "scale", *_SHAPES))
            )
        except (ValueError, KeyError, TypeError) as error:
            raise VerificationError(
                "the bundle's manifest is damaged", where=str(path / MANIFEST), hint=_AGAIN
            ) from error
        if form != FORMAT:
            raise VerificationError(
                f"the bundle has format {form}, this distillc reads {FORMAT}",
                where=str(path),
                hint="upgrade distillc" if form > FORMAT else _AGAIN,
            )
        if not complete:
            raise VerificationError(
                "the bundle's manifest is not complete", where=str(path / MANIFEST), hint=_AGAIN
            )
        _check_files(path, files)
        return cls(path, manifest)

    def run(
        self,
        x: np.ndarray[Any, Any],
        device: str | None = None,
        threads: int = 2,
        overlap: int | None = None,
    ) -> np.ndarray[Any, Any]:
        """Run the network on an image of any size.

        Larger images than the bundle's go through in overlapping tiles, smaller ones are mirrored
        at their edges: `distillc/runtime/native/tiles.c` says how.

        Args:
            x: (1, C, H, W) float32 in [0, 1].
            device: Where; by default the first device of the bundle's target.
            threads: Threads.
            overlap: Pixels that neighbouring tiles share; 32, or a quarter of a small tile, by
                default.

        Returns:
            (1, C', H * scale, W * scale) float32.

        Raises:
            UsageError: Wrong shape or type, unknown device, or tiles that cannot overlap so.
            DeviceError: The device is incomplete, or running fails.
        """
        _, channels, *tile = self.manifest["input_shape"]
        given: tuple[int, ...] = ()
        if isinstance(x, np.ndarray) and x.dtype == np.float32:
            given = x.shape
        if len(given) != 4 or given[:2] != (1, channels) or not x.size:
            got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise UsageError(
                f"the bundle takes a float32 array of shape (1, {channels}, H, W), not {got}",
                where=str(self.path),
                hint="NCHW, values in [0, 1]",
            )
        chosen = get_device(device or self.default_device())
        if overlap is not None and not 0 <= overlap <= min(tile) // 2:
            raise UsageError(
                f"tiles of {tile[0]}x{tile[1]} cannot overlap by {overlap} pixels",
                hint=f"choose 0 to {min(tile) // 2}",
            )
        scale = self.manifest["scale"]
        shape = (1, self.manifest["output_shape"][1], scale * given[2], scale * given[3])
        share = -1 if overlap is None else overlap
        output, _ = chosen.run([self.file_for(chosen)], x, shape, threads=threads, overlap=share)
        return output

    def benchmark(
        self, device: str = "host", threads: int = 2, runs: int = 20, warmup: int = 3
    ) -> Stats:
        """Time the network on random input.

        Raises:
            UsageError: Unknown device, or one that cannot run this bundle's target.
            DeviceError: Running fails.
        """
        return compare([self], device, threads, runs, warmup)[0]

    @property
    def library(self) -> Path:
        """The compiled network."""
        return self.path / LIBRARY

    def file_for(self, device: Device) -> Path:
        """Return what a device runs: the library, or the program."""
        return self.path / self.manifest["bench"] if device.programs else self.library

    def default_device(self) -> str:
        """Return the first device of the bundle's target."""
        return str(self.manifest["devices"][0])

    def annotate(self, entries: Mapping[str, Any]) -> Bundle:
        """Return the bundle with further entries in its manifest, written to disk.

        Files that are new in the folder are taken in.

        Raises:
            VerificationError: A file is missing or was changed; nothing is written.
            StorageError: The manifest cannot be written.
        """
        _check_files(self.path, self.manifest["files"])
        return create_bundle(self.path, {**self.manifest, **entries})

    def unmark(self) -> None:
        """Take away the mark of a verified bundle, on disk too, whatever its files are now."""
        if self.manifest.get("verified"):
            self.manifest["verified"] = False
            write_json(self.path / MANIFEST, self.manifest)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Bundle:
        """Move the bundle to its final name.

        Raises:
            VerificationError: It was not verified, or a file was changed since.
            StorageError: The name is taken, or cannot be written.

        What has the name now stays until the new bundle is whole and checked.
        """
        path = Path(path)
        if not self.manifest.get("verified"):
            raise VerificationError(
                "the bundle was not verified, so it gets no name",
                where=str(self.path),
                hint="run distillc.runtime.verify.verify_bundle on it first",
            )
        if path.exists() and not overwrite:
            raise StorageError(
                "the bundle exists already",
                where=str(path),
                hint="choose another name, or allow overwriting",
            )
        if path.exists() and not (path / MANIFEST).is_file():
            raise StorageError(
                "what would be overwritten is no bundle",
                where=str(path),
                hint="choose another name",
            )
        partial, former = (path.with_name(path.name + end) for end in (".partial", ".former"))
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in (partial, former):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            try:
                partial.mkdir()
                for name in self.manifest["files"]:
                    shutil.copy2(self.path / name, partial)
                write_json(partial / MANIFEST, self.manifest)
                _check_files(partial, self.manifest["files"], self.path)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if path.exists():
                path.rename(former)
            partial.rename(path)
            shutil.rmtree(former, ignore_errors=True)
        return Bundle.open(path)


_AGAIN = "convert again: `distillc convert` goes on from its work directory"
_SHAPES = ("size", "input_shape", "output_shape")


def _check_files(path: Path, files: Mapping[str, str], named: Path | None = None) -> None:
    """Compare a folder's files with their SHA-256; messages name the folder `named`."""
    for name, wanted in files.items():
        where = str((named or path) / name)
        # A manifest may come from anywhere; what it names is hashed, copied and run.
        if name != Path(name).name:
            raise VerificationError("a file lies outside the bundle", where=where, hint=_AGAIN)
        if not (path / name).is_file():
            raise VerificationError("a file is missing", where=where, hint=_AGAIN)
        if file_digest(path / name) != wanted:
            raise VerificationError(
                "a file was changed after the bundle was made", where=where, hint=_AGAIN
            )


def create_bundle(path: Path, entries: Mapping[str, Any]) -> Bundle:
    """Write the manifest of a folder of files, with their hashes, and return the bundle."""
    files = {
        each.name: file_digest(each)
        for each in sorted(path.iterdir())
        if each.is_file() and each.name != MANIFEST
    }
    manifest = {
        "format": FORMAT,
        "verified": False,
        "versions": {name: version(name) for name in PACKAGES} | {"python": _python()},
        **entries,
        "files": files,
    }
    write_json(path / MANIFEST, manifest)
    return Bundle(path, json.loads((path / MANIFEST).read_text()))


def _python() -> str:
    return platform.python_version()
