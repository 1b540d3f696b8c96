"""What kind of file a checkpoint is, by its content: names lie."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from distillc.errors import CheckpointError

LONGEST_HEADER = 2**27
"""Bytes; the format allows 100 million."""

OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"<", "a web page", "download the file itself"),
    (b"\x89HDF", "an HDF5 file, as Keras writes", "export the network as .onnx (tf2onnx)"),
    (b"\x93NUMPY", "a numpy array", "save a dict of the network's tensors by torch.save"),
    (b"GGUF", "a GGUF file", "bring the weights from before the quantisation"),
    (b"\x1f\x8b", "a packed archive", "unpack it and name the checkpoint inside"),
    (b"7z\xbc\xaf", "a packed archive", "unpack it and name the checkpoint inside"),
    (b"Rar!", "a packed archive", "unpack it and name the checkpoint inside"),
)
"""First bytes of what people take for a checkpoint, what it is, and what to do."""


def kind_of(path: Path) -> str:
    """Return `"torch"`, `"torchscript"` or `"safetensors"`.

    Raises:
        CheckpointError: It is none of these; says what it is where that shows.
    """
    with path.open("rb") as stream:
        head = stream.read(32)
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    # Eight bytes of length, which may look like a pickle's, then JSON.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LONGEST_HEADER:
        return "safetensors"
    if head.startswith(b"\x80"):
        return "torch"
    if path.suffix.lower() == ".safetensors":
        return "safetensors"  # a damaged one: its reader says so
    for start, what, instead in OTHERS:
        if head.lstrip().startswith(start):
            raise CheckpointError(
                f"this is not a checkpoint, it is {what}", where=str(path), hint=instead
            )
    raise CheckpointError(
        "this is not a checkpoint: neither a torch file, nor safetensors, nor a .pt2 program",
        where=str(path),
        hint="a state dict saved by torch.save is what public checkpoints are",
    )


def _kind_of_archive(path: Path) -> str:
    names: list[str] = []
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # its reader says what is damaged
        names = archive.namelist()
    ends = {name.partition("/")[2] for name in names}
    if "constants.pkl" in ends and "data.pkl" in ends:
        return "torchscript"
    if any(end.startswith("models/") for end in ends):
        raise CheckpointError(
            "this is an exported program (torch.export)",
            where=str(path),
            hint=f"give it its ending: mv {path.name} {path.stem}.pt2",
        )
    if names and "data.pkl" not in ends:
        inside = [name for name in names if not name.endswith("/")]
        raise CheckpointError(
            f"this is not a checkpoint, it is an archive of other files: {', '.join(inside[:3])}",
            where=str(path),
            hint="unpack it and name the checkpoint inside",
        )
    return "torch"
