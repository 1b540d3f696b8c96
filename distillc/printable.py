"""Foreign text for the terminal: names in files are chosen by whoever made the file.

Control characters set a window's title or its colours, overrides of direction show one name as
another, and a name may have a million letters.
"""

from __future__ import annotations

import re

LONGEST_WORD = 400
"""Letters without a space; paths and names of real files stay below."""

LONGEST_TEXT = 8000
"""Letters of a whole message."""

BREAK = re.compile(r"\n(?! {4})")


def printable(text: str) -> str:
    """Return text without anything that a terminal acts on, words of 400 letters shortened.

    Every line but the first is set in by four spaces: none looks like the next part of a message.
    """
    text = escaped(BREAK.sub("\n    ", text))
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _shortened(word[0]), text)
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} ... ({len(text)} characters)"
    return text


def escaped(text: str) -> str:
    """Return text with what a terminal acts on as escapes; lines and lengths stay."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable() or letter == "\n":
        return letter
    return letter.encode("unicode_escape").decode()


def _shortened(word: str) -> str:
    return f"{word[: LONGEST_WORD // 2]}...({len(word)} characters)"
