"""Checkpoints: torch's two layouts and safetensors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.fuzz.hostile.damage import NAMES, NUMBERS, altered, damaged, dumped

NET = f"{Path(__file__).parent / 'small.py'}:Small"


def command(path: Path, rng: Random) -> list[str]:
    """Return a command that reads a checkpoint, by our architecture or by what is recognised."""
    own = ["--arch", NET] if rng.random() < 0.5 else []
    if rng.random() < 0.5:
        return ["inspect", str(path), "--size", "16", *own]
    return [
        "convert",
        str(path),
        "--size",
        "16",
        "--budget",
        "smoke",
        "--stop-after",
        "trace",
        *own,
    ]


def state() -> dict[str, torch.Tensor]:
    """Return the weights of the small network."""
    from tests.fuzz.hostile.small import Small

    torch.manual_seed(0)
    return dict(Small().state_dict())


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def torch_bytes(rng: Random, folder: Path) -> list[str]:
    """A file of torch in either layout, damaged anywhere."""
    content = saved({"params": state()}, _use_new_zipfile_serialization=rng.random() < 0.6)
    path = folder / rng.choice(("a.pth", "a.pt", "a.ckpt"))
    path.write_bytes(damaged(content, rng))
    return command(path, rng)


class Storage:
    """Pickles as torch's persistent id of a storage that has whatever size."""

    def __init__(self, count: int) -> None:
        self.id = ("storage", torch.FloatStorage, "0", "cpu", count)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, Storage) else None


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, Storage(count), offset, shape, strides, False, OrderedDict())


def doubled(times: int) -> Any:
    """Return a list of two equal lists of two equal lists, and so on."""
    value: Any = []
    for _ in range(times):
        value = [value, value]
    return value


def eternal(times: int) -> bytes:
    """Return a pickle whose key is hashed 2 ** times times: pairs of the same pair."""
    return b"\x80\x02})q\x00" + b"h\x00\x86q\x00" * times + b"K\x01s."


def pickles(rng: Random, folder: Path) -> list[str]:
    """A pickle that is whole and lies: sizes, views, names, memo, and members of the archive."""
    wild = lambda: rng.choice(NUMBERS)  # noqa: E731
    content: Any = {
        rng.choice(NAMES) + str(i): tensor(
            rng.choice(((2**31, 2**9), (wild(),), (4, wild()), (2**40, 0), (4,), (64, 64), ())),
            rng.choice(((0, 0), (1,), (wild(), 1), (1, 1), ())),
            rng.choice((0, 0, wild())),
            rng.choice((16, 16, 0, wild())),
        )
        for i in range(rng.choice((1, 3)))
    }
    way = rng.randrange(5)
    if way == 1:
        content = {"params": doubled(60), "x": content}
    elif way == 2:
        content = Call(rng.choice((bytearray, Path, print, eval, torch.load)), "1")
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(content)
    table = eternal(rng.choice((20, 60))) if way == 0 else buffer.getvalue()
    members = {"data.pkl": table, "version": b"3\n", "data/0": bytes(64)}
    packed = zipfile.ZIP_STORED
    if rng.random() < 0.3:
        packed = zipfile.ZIP_DEFLATED
        members[rng.choice(("data/0", "data.pkl", "data/1"))] = bytes(2**26)
    path = folder / "p.pth"
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, each in members.items():
            archive.writestr(f"archive/{name}", each)
    return command(path, rng)


def names(rng: Random, folder: Path) -> list[str]:
    """A state dict that torch would load, whose names count far, act on terminals, or are long."""
    weights = state()
    for _ in range(rng.choice((1, 5))):
        weights[rng.choice(NAMES)] = rng.choice(
            (torch.zeros(0), torch.zeros(2, 2), torch.full((3,), float("nan")), torch.zeros(0, 9))
        )
    for pattern in rng.sample(RECOGNISED, 2):
        count = rng.choice((3, 2000, 10**8))
        weights[pattern.format(count)] = torch.zeros(4, 4, 1, 1)
    path = folder / "n.pth"
    torch.save(rng.choice((weights, {"params": weights}, {"model": weights, "epoch": 3})), path)
    return command(path, rng)


RECOGNISED = (
    "encoder_level1.{}.norm1.body.weight",
    "latent.{}.attn.temperature",
    "model.1.sub.{}.conv.0.weight",
    "layers.{}.residual_group.blocks.0.norm1.weight",
    "body.{}.weight",
    "RDB{}.weight",
)
"""Names by which architectures are recognised, and their layers counted."""


def safetensors(rng: Random, folder: Path) -> list[str]:
    """A safetensors file, damaged anywhere or with a header that lies."""
    from safetensors.torch import save

    content = save(state())
    if rng.random() < 0.4:
        content = damaged(content, rng)
    else:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        for _ in range(rng.choice((1, 3))):
            header = altered(header, rng)
        text = dumped(header)
        claimed = rng.choice((len(text),) * 5 + (2**63, 2**27, 0))
        content = struct.pack("<Q", claimed) + text + content[8 + length :]
    path = folder / "s.safetensors"
    path.write_bytes(content)
    return command(path, rng)
