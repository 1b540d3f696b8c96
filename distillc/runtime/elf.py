"""The symbols of an ELF library, and the functions by where their code stands in the file."""

from __future__ import annotations

import bisect
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from distillc.errors import DeviceError

FUNCTION = 2
"""Symbol type STT_FUNC."""
SYMBOL_TABLES = (2, 11)
"""Section types SHT_SYMTAB and SHT_DYNSYM; the former holds local functions too."""


@dataclass(frozen=True)
class Symbol:
    """A symbol of a library: its name, where it stands in the file in bytes (None: elsewhere)."""

    name: str
    offset: int | None
    function: bool


def read_functions(library: Path) -> list[tuple[int, str]]:
    """Return (offset in the file in bytes, kernel) of the functions of a 64-bit library, in order.

    TVM's own additions to a kernel's name are left out, so that a kernel's entry and its parallel
    body share one name.

    Raises:
        DeviceError: It is not a 64-bit little-endian ELF file.
    """
    found = {
        symbol.offset: kernel_name(symbol.name)
        for symbol in read_symbols(library)
        if symbol.function and symbol.offset
    }
    return sorted(found.items())


def read_symbols(library: Path) -> list[Symbol]:
    """Return the symbols of a 64-bit library, local ones too unless it was stripped.

    Raises:
        DeviceError: It is not a 64-bit little-endian ELF file.
    """
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise DeviceError("not a 64-bit little-endian ELF library", where=str(library))
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    # Each section: name, type, flags, address, offset, size, link, info, alignment, entry size.
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    found = []
    for section in sections:
        if section[1] not in SYMBOL_TABLES:
            continue
        strings = sections[section[6]][4]
        for entry in range(section[4], section[4] + section[5], section[9]):
            name, info, _, index, value, _ = struct.unpack_from("<IBBHQQ", data, entry)
            start = strings + name
            text = data[start : data.index(b"\0", start)].decode(errors="replace")
            home = sections[index] if 0 < index < count else None
            offset = value - home[3] + home[4] if home else None
            found.append(Symbol(text, offset, info & 15 == FUNCTION))
    return found


def function_at(functions: list[tuple[int, str]], offset: int) -> str:
    """Return the name of the function that holds an offset, empty where none stands before it."""
    index = bisect.bisect_right(functions, offset, key=lambda each: each[0])
    return functions[index - 1][1] if index else ""


def kernel_name(symbol: str) -> str:
    """Return the kernel that a symbol belongs to, say `conv2d1` for `__tvm_ffi_conv2d1`."""
    return re.sub(r"^__tvm_ffi_|_compute_(\.\d+)?$", "", symbol)
