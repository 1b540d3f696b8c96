"""Classes of aarch64 instructions, from their bits (Arm ARM, C4.1: top-level encodings)."""

from __future__ import annotations

from collections.abc import Iterable

MULTIPLY_ADD = "vector multiply-add"
VECTOR = "other vector"
SCALAR_FLOAT = "scalar float"
LOAD = "load"
STORE = "store"
BRANCH = "branch"
INTEGER = "integer"
CLASSES = (MULTIPLY_ADD, VECTOR, SCALAR_FLOAT, LOAD, STORE, BRANCH, INTEGER)

FMLA_FORMS = (
    # (mask, value): fmla and fmls of float32 or float64 vectors, by vector and by element.
    (0xBF20FC00, 0x0E20CC00),
    (0xBF80B400, 0x0F801000),
    # The same of float16.
    (0xBF60FC00, 0x0E400C00),
    (0xBFC0B400, 0x0F001000),
)
SCALAR_LOAD_STORE = (0x3B000000, 0x39000000), (0x3B200000, 0x38000000), (0x3B200C00, 0x38200800)
"""Loads and stores of one register: unsigned offset, other immediates, register offset."""


def by_class(code: Iterable[tuple[bytes, int]]) -> dict[str, int]:
    """Add up executed instructions by class.

    Args:
        code: (the four bytes of an instruction, executions).
    """
    totals = dict.fromkeys(CLASSES, 0)
    for word, count in code:
        totals[classify(int.from_bytes(word, "little"))] += count
    return totals


def classify(word: int) -> str:
    """Return the class of one 32-bit instruction."""
    group = word >> 25 & 15
    if group & 0b0101 == 0b0100:
        return LOAD if _loads(word) else STORE
    if group == 0b0111:  # Advanced SIMD, vectors
        return MULTIPLY_ADD if _matches(word, FMLA_FORMS) else VECTOR
    if group == 0b1111:
        return SCALAR_FLOAT
    return BRANCH if group & 0b1110 == 0b1010 else INTEGER


def _loads(word: int) -> bool:
    if word & 0x3B000000 == 0x18000000:  # a literal
        return True
    integer = not word >> 26 & 1
    if integer and _matches(word, SCALAR_LOAD_STORE):
        return word >> 22 & 3 != 0  # sign-extending loads leave bit 22 clear
    return bool(word >> 22 & 1)


def _matches(word: int, forms: Iterable[tuple[int, int]]) -> bool:
    return any(word & mask == value for mask, value in forms)
