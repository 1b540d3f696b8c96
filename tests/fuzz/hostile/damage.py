"""Damage that needs no knowledge of a format."""

from __future__ import annotations

import json
from random import Random

NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))
"""Where counts and sizes overflow."""

NAMES = (
    "\x1b]0;title\x07", "\x1b[31m[red]", "\u202egnp.exe", "a\nnext:  run evil.sh", "n" * 2**20,
    "../../etc/passwd", "", ".", "x" * 300, "nul\0", "__class__", "1.2.3", "a.99999999.weight",
)  # fmt: skip
"""What a name in a file can be."""


DEEP = "lists in lists"
"""Stands for them in JSON that `dumped` writes."""


def dumped(value: object) -> bytes:
    """Return JSON, in places deeper than a reader that calls itself can follow."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode()


def damaged(content: bytes, rng: Random) -> bytes:
    """Return bytes that are cut, flipped, swapped, doubled or filled in some places."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        if not data:
            break
        at, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64))
        way = rng.randrange(7)
        if way == 0:
            del data[at:]
        elif way == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 2:
            data[at : at + length] = rng.randbytes(length)
        elif way == 3:
            data[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        elif way == 4:
            data[at:at] = data[at : at + rng.randrange(1, 2000)]
        elif way == 5:
            del data[at : at + length]
        else:
            number = rng.choice(NUMBERS) % 2**64
            data[at : at + 8] = number.to_bytes(8, rng.choice(("little", "big")))
    return bytes(data)


def altered(value: object, rng: Random) -> object:
    """Return JSON with one value somewhere replaced by another, of the same kind or not."""
    places: list[tuple[object, object]] = []
    stack = [value]
    while stack:
        each = stack.pop()
        items = each.items() if isinstance(each, dict) else enumerate(each)  # type: ignore[arg-type]
        for key, inner in items:
            places.append((each, key))
            if isinstance(inner, dict | list):
                stack.append(inner)
    if places:
        holder, key = rng.choice(places)
        holder[key] = other(holder[key], rng)  # type: ignore[index]
    return value


def other(value: object, rng: Random) -> object:
    """Return a value that a careless reader would not expect in a place."""
    if isinstance(value, bool) or rng.random() < 0.3:
        return rng.choice((None, [], {}, "", "x", -1, 0, 1e308, float("nan"), True, DEEP))
    if isinstance(value, int):
        return rng.choice(NUMBERS)
    if isinstance(value, str):
        return rng.choice(NAMES)
    return rng.choice((None, [], {}, 7, "x", [value], [value] * 3))
