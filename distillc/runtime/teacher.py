"""The checkpoint that a bundle was made from, to compare the hybrid with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from distillc.errors import DistillcError, UsageError
from distillc.frontend.constants import described_inputs, read_inputs
from distillc.frontend.formats import is_onnx, require_file
from distillc.frontend.load import load
from distillc.frontend.padding import Padded
from distillc.runtime.bundle import Bundle
from distillc.workdir import file_digest


class NoTeacher(Exception):
    """There is none to compare with; the message says why, and what would help."""


def load_teacher(bundle: Bundle, given: Path | None, loading: Mapping[str, Any]) -> nn.Module:
    """Load the checkpoint that a bundle was made from.

    The manifest says its name and SHA-256. A file of that name beside the bundle or in the current
    folder is taken if it is the same. What the manifest says makes no code run: the user's own
    network needs its `arch` again.

    Args:
        bundle: An open bundle.
        given: The checkpoint, where the user says which it is.
        loading: Arguments of `distillc.load`: `arch`, `arch_args`, `output`, `inputs`,
            `weights_key`, `trust_pickle`.

    Returns:
        The teacher for images of the bundle's size, (1, C, H, W) -> (1, C', H * scale, W * scale).

    Raises:
        NoTeacher: None was given, and none was found or could be loaded.
        UsageError: What was given is another file than the bundle was made from.
        DistillcError: What was given cannot be loaded; see `distillc.load`.
    """
    source = bundle.facts.source
    name, sha256 = Path(source.path).name, source.sha256
    if sha256 is None:
        raise NoTeacher("the bundle was made of a module, not of a checkpoint")
    if given is not None:
        require_file(given)
        if file_digest(given) != sha256:
            raise UsageError(
                "this is not the checkpoint that the bundle was made from",
                where=str(given),
                hint=f"the bundle was made from {name}, whose SHA-256 is {sha256}",
            )
        return _load(bundle, given, loading)
    if is_onnx(name):
        raise NoTeacher("the bundle was made of an ONNX file: nothing was distilled")
    places = (bundle.path.resolve().parent / name, Path(name))
    found = next((path for path in places if _is_file_of(path, sha256)), None)
    if found is None:
        raise NoTeacher(
            f"{name} is neither beside the bundle nor in this folder: name it with --teacher"
        )
    if source.arch_args is not None and not loading["arch"]:
        raise NoTeacher(f"{found} is of your own network: give --arch again to run its code")
    try:
        return _load(bundle, found, loading)
    except DistillcError as error:
        raise NoTeacher(f"{found} cannot be loaded: {error.what}") from error


def _is_file_of(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and file_digest(path) == sha256
    except OSError:  # a name that no system takes, a file that may not be read
        return False


def _load(bundle: Bundle, path: Path, loading: Mapping[str, Any]) -> nn.Module:
    source = bundle.facts.source
    recorded = {
        "arch_args": source.arch_args,
        "output": source.output,
        "weights_key": source.weights_key,
    }
    given = {name: value for name, value in loading.items() if value is not None}
    if source.inputs:
        given["inputs"] = _inputs(source.inputs, given.get("inputs", {}))
    size = bundle.facts.size
    net = load(path, size=size, **{**recorded, **given})
    fitting = net.fitting(size)
    return net.module if fitting == size else Padded(net.module, fitting, net.scale)


def _inputs(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constants of further inputs: values as the manifest has them, tensors as given.

    Raises:
        UsageError: A tensor is not given, or something else than the bundle was made with.
    """
    values = {name: value for name, value in recorded.items() if not isinstance(value, dict)}
    found = read_inputs({**values, **given})
    if other := [name for name in recorded if name not in found]:
        raise UsageError(
            f"input {other[0]!r} of the teacher was a file",
            where="--input",
            hint=f"give it again: --input {other[0]}=FILE",
        )
    if described_inputs(found) != recorded:
        raise UsageError("the bundle was made with other inputs", where="--input")
    return found
