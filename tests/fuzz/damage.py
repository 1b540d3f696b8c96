"""Ways in which a file of the work folder or the cache can be damaged."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load, save

from distillc.sealed import _FOOTER

Damage = Callable[[Path, random.Random], object]


def _edit(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Damage:
    def damage(path: Path, source: random.Random) -> None:
        path.write_bytes(change(bytearray(path.read_bytes()), source))

    return damage


def _flip(data: bytearray, source: random.Random) -> bytearray:
    data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return data


def _hole(data: bytearray, source: random.Random) -> bytearray:
    start = source.randrange(len(data))
    end = min(len(data), start + 1 + source.randrange(4096))
    return data[:start] + bytes(b and 0 for b in data[start:end]) + data[end:]


def _insert(data: bytearray, source: random.Random) -> bytearray:
    place = source.randrange(len(data))
    return data[:place] + b"\xff\xfe\x80" + data[place:]


def _exchange(data: bytearray, _: random.Random) -> bytearray:
    middle = len(data) // 2
    return data[middle:] + data[:middle]


def _reverse_words(data: bytearray, _: random.Random) -> bytes:
    return b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))


def _windows(data: bytearray, _: random.Random) -> bytes:
    return bytes(data).replace(b"\n", b"\r\n") if b"\n" in data else bytes(data) + b"\r\n"


def _replace(make: Callable[[Path], object]) -> Damage:
    def damage(path: Path, _: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def _grow(path: Path, _: random.Random) -> None:
    os.truncate(path, path.stat().st_size + (1 << 36))


def _neighbour(path: Path, source: random.Random) -> Path:
    """Return another file of the folder that holds something else."""
    files = [each for each in sorted(path.parent.iterdir()) if each.is_file()]
    return source.choice([e for e in files if e.read_bytes() not in (b"", path.read_bytes())])


def _swap(path: Path, source: random.Random) -> None:
    other = _neighbour(path, source)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def _copy(path: Path, source: random.Random) -> None:
    shutil.copyfile(_neighbour(path, source), path)


def _link(path: Path, source: random.Random) -> None:
    other = _neighbour(path, source)
    path.unlink()
    path.symlink_to(other.name)


def _socket(path: Path) -> None:
    """Bind a socket: by its short name, a path may be too long."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.fchdir(before)
    os.close(before)


EVERY: dict[str, Damage] = {
    "flipped bit": _edit(_flip),
    "hole": _edit(_hole),
    "zeros": _edit(lambda data, _: bytes(len(data))),
    "cut": _edit(lambda data, source: data[: source.randrange(1, len(data))]),
    "last byte gone": _edit(lambda data, _: data[:-1]),
    "empty": _edit(lambda data, _: b""),
    "bytes that are no text": _edit(_insert),
    "other JSON": _edit(lambda data, _: b'{"a": [1, 2, 3]}\n'),
    "a page of a proxy": _edit(lambda data, _: b"<html>502</html>\n"),
    "twice": _edit(lambda data, _: data + data),
    "huge line": _edit(lambda data, _: data + b"x" * (1 << 24)),
    "grown by a hole": _grow,
    "missing": _replace(lambda path: None),
    "folder": _replace(lambda path: path.mkdir()),
    "full folder": _replace(lambda path: (path / "sub").mkdir(parents=True)),
    "pipe": _replace(lambda path: os.mkfifo(path)),
    "link to nowhere": _replace(lambda path: path.symlink_to("nowhere")),
    "link to itself": _replace(lambda path: path.symlink_to(path)),
    "link to zeros without end": _replace(lambda path: path.symlink_to("/dev/zero")),
    "link to a neighbour": _link,
    "socket": _replace(_socket),
    "swapped": _swap,
    "copy of a neighbour": _copy,
    "halves exchanged": _edit(_exchange),
    "other order of bytes": _edit(_reverse_words),
    "lines of Windows": _edit(_windows),
    "mark of byte order": _edit(lambda data, _: b"\xef\xbb\xbf" + data),
    "compressed": _edit(lambda data, _: gzip.compress(bytes(data), mtime=0)),
}
"""What can happen to any file."""


def _tensors(change: Callable[[dict[str, torch.Tensor], str], object]) -> Damage:
    """Change a named tensor, the file's end being as it was."""

    def damage(path: Path, source: random.Random) -> None:
        data = path.read_bytes()
        tensors = load(data[:-_FOOTER])
        change(tensors, source.choice(sorted(n for n, each in tensors.items() if each.numel())))
        path.write_bytes(save(tensors) + data[-_FOOTER:])

    return damage


TENSORS: dict[str, Damage] = {
    "NaN": _tensors(lambda tensors, name: tensors[name].view(-1)[:1].fill_(float("nan"))),
    "infinity": _tensors(lambda tensors, name: tensors[name].view(-1)[:1].fill_(float("inf"))),
    "half precision": _tensors(lambda tensors, name: tensors.update({name: tensors[name].half()})),
    "other shape": _tensors(lambda tensors, name: tensors.update({name: tensors[name][None]})),
    "tensor less": _tensors(lambda tensors, name: tensors.pop(name)),
}
"""What can happen to tensors, the header being right."""


def _line(change: Callable[[dict[str, object]], object]) -> Damage:
    """Change the values of a line, which is still JSON."""

    def damage(path: Path, source: random.Random) -> None:
        lines = path.read_text().splitlines()
        place = source.randrange(len(lines))
        entry = json.loads(lines[place])
        change(entry)
        lines[place] = json.dumps(entry)
        path.write_text("\n".join(lines) + "\n")

    return damage


def _lines(change: Callable[[list[str], random.Random], list[str]]) -> Damage:
    def damage(path: Path, source: random.Random) -> None:
        path.write_text("".join(change(path.read_text().splitlines(keepends=True), source)))

    return damage


def _without(lines: list[str], source: random.Random) -> list[str]:
    del lines[source.randrange(len(lines))]
    return lines


JOURNALS: dict[str, Damage] = {
    "NaN in a line": _line(lambda entry: entry.update(psnr=float("nan"))),
    "too good a line": _line(lambda entry: entry.update(psnr=99.0)),
    "line without a checksum": _line(lambda entry: entry.pop("check")),
    "line of another time": _line(lambda entry: entry.update(latency_ms=1e-9)),
    "line with more": _line(lambda entry: entry.update(more=[])),
    "line of other names": _line(lambda entry: entry.update(decisions={"a": "b"})),
    "line less": _lines(_without),
    "lines in another order": _lines(lambda lines, _: lines[::-1]),
    "lines twice": _lines(lambda lines, _: lines + lines),
    "deep line": _lines(lambda lines, _: [*lines, "[" * 100_000 + "\n"]),
}
"""What can happen to a file of lines."""


def no_longer_executable(path: Path, _: random.Random) -> None:
    path.chmod(0o600)


def another_program(path: Path, _: random.Random) -> None:
    shutil.copy("/bin/true", path)


PROGRAMS: dict[str, Damage] = {
    "not executable": no_longer_executable,
    "another program": another_program,
}
"""What can happen to a program or a library."""
