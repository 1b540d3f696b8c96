"""What an error says, in one line of a message of ours."""

from __future__ import annotations

import errno
import os

import pytest

from distillc.errors import named_reason, reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\n\n two \n"), "one"),
        (ValueError("  "), "ValueError"),
        (KeyError(), "KeyError"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), "No space left on device"),
        (OSError("no number"), "no number"),
        (OSError(), "OSError"),
    ],
    ids=repr,
)
def test_one_line_of_an_error(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_which_line_and_how_long() -> None:
    error = ValueError("first\nlast of them\n")
    assert reason(error, -1) == "last of them"
    assert reason(error, -1, longest=4) == "last"


def test_an_unforeseen_error_says_its_kind() -> None:
    assert named_reason(TypeError("one\ntwo")) == "TypeError: one"
