"""Ways in which a file of the work folder or the cache can be damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

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


def _replace(make: Callable[[Path], object]) -> Damage:
    def damage(path: Path, _: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def _grow(path: Path, _: random.Random) -> None:
    os.truncate(path, path.stat().st_size + (1 << 36))


def _swap(path: Path, source: random.Random) -> None:
    """Change places with another file of the folder."""
    others = [each for each in sorted(path.parent.iterdir()) if each.is_file() and each != path]
    other = source.choice(others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


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
    "swapped": _swap,
}
"""What can happen to any file."""


def _nan(path: Path, source: random.Random) -> None:
    tensors = load(path.read_bytes()[:-_FOOTER])
    chosen = source.choice(sorted(name for name, each in tensors.items() if each.numel()))
    tensors[chosen].view(-1)[0] = float("nan")
    path.write_bytes(save(tensors) + path.read_bytes()[-_FOOTER:])


TENSORS: dict[str, Damage] = {"NaN": _nan}
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
