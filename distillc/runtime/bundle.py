"""The bundle: a folder with all that is needed to run a compiled network, and to check it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from distillc.errors import UsageError, VerificationError, reason
from distillc.runtime.benchmark import Stats, time_libraries
from distillc.runtime.devices import get_device
from distillc.runtime.devices.base import Device
from distillc.runtime.manifest import (
    AGAIN,
    FORMAT,
    LIBRARY,
    MANIFEST,
    Manifest,
    check_manifest,
    read_manifest,
)
from distillc.runtime.place import heal, put_in_place
from distillc.runtime.strict_json import plain_json
from distillc.workdir import file_digest, storage_errors, write_json

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
            VerificationError: A file is missing or was changed, or the manifest says what none
                says, or has another format.
        """
        path = Path(path)
        try:
            if not (path / MANIFEST).is_file():
                heal(path.resolve())
            if not (path / MANIFEST).is_file():
                raise UsageError(
                    "this is not a bundle" if path.exists() else "the bundle does not exist",
                    where=str(path),
                    hint=f"a bundle is a folder with {MANIFEST}, made by `distillc convert`",
                )
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise UsageError(f"this is not a bundle: {reason(error)}", where=str(path)) from error
        manifest = read_manifest(path / MANIFEST)
        _check_files(path, manifest["files"])
        return cls(path, manifest)

    @property
    def facts(self) -> Manifest:
        """The manifest by type.

        Raises:
            VerificationError: It was changed to what no manifest says.
        """
        return check_manifest(self.manifest, self.path / MANIFEST)

    def run(
        self,
        x: np.ndarray[Any, Any],
        device: str | None = None,
        threads: int = 2,
        overlap: int | None = None,
    ) -> np.ndarray[Any, Any]:
        """Run the network on an image of any size, or on several of one size.

        Larger images than the bundle's go through in overlapping tiles, smaller ones are mirrored
        at their edges: `distillc/runtime/native/tiles.c` says how.

        Args:
            x: (N, C, H, W) float32 in [0, 1].
            device: Name of the device that runs it; by default the first of the bundle's target.
            threads: Threads that compute, the caller's among them.
            overlap: Pixels that neighbouring tiles share; 32, or a quarter of a small tile, by
                default.

        Returns:
            (N, C', H * scale, W * scale) float32.

        Raises:
            UsageError: Wrong shape or type, unknown device, or tiles that cannot overlap so.
            DeviceError: The device is incomplete, or running fails.
        """
        facts = self.facts
        _, channels, *tile = facts.input_shape
        given: tuple[int, ...] = ()
        if isinstance(x, np.ndarray) and x.dtype == np.float32:
            given = x.shape
        if len(given) != 4 or given[1] != channels or not x.size:
            got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise UsageError(
                f"the bundle takes a float32 array of shape (N, {channels}, H, W), not {got}",
                where=str(self.path),
                hint="NCHW, values in [0, 1]",
            )
        chosen = get_device(device or self.default_device())
        if overlap is not None and not 0 <= overlap <= min(tile) // 2:
            raise UsageError(
                f"tiles of {tile[0]}x{tile[1]} cannot overlap by {overlap} pixels",
                hint=f"choose 0 to {min(tile) // 2}",
            )
        if threads < 1:
            raise UsageError(f"{threads} threads cannot run anything", hint="choose 1 or more")
        shape = (1, facts.output_shape[1], facts.scale * given[2], facts.scale * given[3])
        share = -1 if overlap is None else overlap
        output, _ = chosen.run([self.file_for(chosen)], x, shape, threads=threads, overlap=share)
        return output

    def benchmark(
        self, device: str = "host", threads: int = 2, runs: int = 20, warmup: int = 3
    ) -> Stats:
        """Time the network on random input.

        Args:
            device: Name of the device that runs it.
            threads: How many threads it runs with.
            runs: Timed runs.
            warmup: Runs before them that are not timed.

        Raises:
            UsageError: Unknown device, one that cannot run this bundle's target, or a count out of
                range.
            DeviceError: Running fails.
        """
        facts, chosen = self.facts, get_device(device)
        if not chosen.takes(facts.devices):
            raise UsageError(
                f"a bundle for {facts.target} does not run on {device}",
                where=str(self.path),
                hint="convert with --target host to time it here",
            )
        file, shape = self.file_for(chosen), facts.input_shape
        (stats,) = time_libraries([file], shape, facts.output_shape, device, threads, runs, warmup)
        return stats

    @property
    def library(self) -> Path:
        """The compiled network."""
        return self.path / LIBRARY

    def file_for(self, device: Device) -> Path:
        """Return what a device runs: the library, or the program."""
        return self.path / self.facts.bench if device.programs else self.library

    def default_device(self) -> str:
        """Return the first device of the bundle's target."""
        return self.facts.devices[0]

    def annotate(self, entries: Mapping[str, Any], files: Iterable[str] = ()) -> Bundle:
        """Return the bundle with further entries in its manifest, written to disk.

        Args:
            entries: JSON values; they replace those of the same names.
            files: Files in the folder that the bundle is to have too. Others stay strangers.

        Raises:
            VerificationError: A file is missing or was changed; nothing is written.
            UsageError: The entries are not what a manifest says; nothing is written.
            StorageError: The manifest cannot be written.
        """
        _check_files(self.path, self.manifest["files"])
        names = [*self.manifest["files"], *files]
        return create_bundle(self.path, {**self.manifest, **entries}, names)

    def unmark(self) -> None:
        """Take away the mark of a verified bundle, on disk too, whatever its files are now."""
        if self.manifest.get("verified"):
            self.manifest["verified"] = False
            write_json(self.path / MANIFEST, self.manifest)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Bundle:
        """Give the bundle its final name.

        What has the name now stays until the new bundle is whole and checked, then goes in one
        step. Only a bundle is overwritten, and only without strange files: see `check_place`.

        Args:
            path: The name; a link stays, and what it points at is written.
            overwrite: Whether a bundle that has the name may go.

        Raises:
            VerificationError: It was not verified, or a file was changed since.
            StorageError: The name is taken, or cannot be written.
        """
        path = Path(path)
        if not self.facts.verified:
            raise VerificationError(
                "the bundle was not verified, so it gets no name",
                where=str(self.path),
                hint="run distillc.runtime.verify.verify_bundle on it first",
            )
        put_in_place(path, overwrite, self.manifest["files"], self._copy_to)
        return Bundle(path, self.manifest)  # its copies were checked; others may write there by now

    def _copy_to(self, folder: Path) -> None:
        for name in self.manifest["files"]:
            shutil.copy2(self.path / name, folder)
        # In place, for a kill may leave no file there that the journal does not name.
        text = json.dumps(self.manifest, indent=2, sort_keys=True)
        (folder / MANIFEST).write_text(text + "\n")
        _check_files(folder, self.manifest["files"], self.path)


def _check_files(path: Path, files: Mapping[str, str], named: Path | None = None) -> None:
    """Compare a folder's files with their SHA-256; messages name the folder `named`."""
    for name, wanted in files.items():
        where = str((named or path) / name)
        if not (path / name).is_file():
            raise VerificationError("a file is missing", where=where, hint=AGAIN)
        try:
            found = file_digest(path / name)
        except OSError as error:
            raise VerificationError(
                f"a file cannot be read: {reason(error)}", where=where, hint=AGAIN
            ) from error
        if found != wanted:
            raise VerificationError(
                "a file was changed after the bundle was made", where=where, hint=AGAIN
            )


def create_bundle(path: Path, entries: Mapping[str, Any], files: Iterable[str]) -> Bundle:
    """Write the manifest of a folder and return the bundle.

    Args:
        path: The folder.
        entries: What the manifest says besides format, versions and hashes; numbers that are not
            finite become null.
        files: The files that belong to the bundle.

    Raises:
        UsageError: The entries are not what a manifest says.
        StorageError: A file cannot be read, or the manifest cannot be written.
    """
    with storage_errors(path):
        hashes = {name: file_digest(path / name) for name in sorted(set(files))}
    manifest = plain_json(
        {
            "format": FORMAT,
            "verified": False,
            "versions": {name: version(name) for name in PACKAGES} | {"python": _python()},
            **entries,
            "files": hashes,
        }
    )
    try:
        check_manifest(manifest, path / MANIFEST)
    except VerificationError as error:
        what = f"these entries would make a manifest that nothing reads: {error.what}"
        raise UsageError(what, where=str(path)) from error
    write_json(path / MANIFEST, manifest)
    return Bundle(path, manifest)


def _python() -> str:
    return platform.python_version()
