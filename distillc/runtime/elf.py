"""The function names of an ELF library, by where their code stands in the file."""

from __future__ import annotations

import bisect
import re
import struct
from pathlib import Path

from distillc.errors import DeviceError

FUNCTION = 2
"""Symbol type STT_FUNC."""
SYMBOL_TABLES = (2, 11)
"""Section types SHT_SYMTAB and SHT_DYNSYM; the former holds local functions too."""


def read_functions(library: Path) -> list[tuple[int, str]]:
    """Return (offset in the file in bytes, name) of the functions of a 64-bit library, in order.

    TVM's own additions to a kernel's name are left out, so that a kernel's entry and its parallel
    body share one name.

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
    found: dict[int, str] = {}
    for section in sections:
        if section[1] not in SYMBOL_TABLES:
            continue
        strings = sections[section[6]][4]
        for entry in range(section[4], section[4] + section[5], section[9]):
            name, info, _, index, value, _ = struct.unpack_from("<IBBHQQ", data, entry)
            if info & 15 == FUNCTION and 0 < index < count:
                start = strings + name
                home = sections[index]
                text = data[start : data.index(b"\0", start)].decode(errors="replace")
                found[value - home[3] + home[4]] = kernel_name(text)
    return sorted(found.items())


def function_at(functions: list[tuple[int, str]], offset: int) -> str:
    """Return the name of the function that holds an offset, empty where none stands before it."""
    index = bisect.bisect_right(functions, offset, key=lambda each: each[0])
    return functions[index - 1][1] if index else ""


def kernel_name(symbol: str) -> str:
    """Return the kernel that a symbol belongs to, say `conv2d1` for `__tvm_ffi_conv2d1`."""
    return re.sub(r"^__tvm_ffi_|_compute_(\.\d+)?$", "", symbol)
