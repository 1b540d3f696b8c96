"""Foreign text on the terminal: nothing acts, nothing floods, nothing looks like ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillc.errors import CheckpointError
from distillc.printable import LONGEST_TEXT, LONGEST_WORD, escaped, printable

HOSTILE = {
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m": r"\x9b31m",
    "a\rb": r"a\rb",
    "a\x08b": r"a\x08b",
    "txt.\u202egnp": r"txt.\u202egnp",
    "zero\u200bwidth": r"zero\u200bwidth",
    "a\u2028b": r"a\u2028b",
    "\udcff.pth": r"\udcff.pth",
    "nul\0": r"nul\x00",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_acts_on_is_escaped(text: str) -> None:
    assert printable(text) == escaped(text) == HOSTILE[text]


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_becomes_printable_and_stays_so(text: str) -> None:
    once = printable(text)
    assert once.replace("\n", "").isprintable()
    assert printable(once) == once
    once.encode()


@given(st.text("abcäöü日本🖼 ./-_", max_size=LONGEST_WORD))
def test_ordinary_names_stay(text: str) -> None:
    assert printable(text) == text


def test_a_key_of_a_megabyte_is_shortened() -> None:
    said = str(CheckpointError(f"missing: {'k' * 2**20}", where="w" * 2**20))
    assert len(said) < 4 * LONGEST_WORD
    assert "(1048576 characters)" in said
    assert len(printable("many words " * 2**17)) < LONGEST_TEXT + 100


def test_a_name_cannot_look_like_our_advice() -> None:
    error = CheckpointError("unknown name x\n  next:  run evil.sh", hint="export it again")
    lines = str(error).splitlines()
    assert lines == ["unknown name x", "      next:  run evil.sh", "  next:  export it again"]
