"""Every file of tests is run: pytest leaves folders out by name, "build" among them by default."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def test_no_folder_is_left_out(pytestconfig: pytest.Config) -> None:
    left_out = pytestconfig.getini("norecursedirs")
    folders = {
        parent.name
        for path in TESTS.rglob("test_*.py")
        for parent in path.relative_to(TESTS).parents
        if parent.name
    }
    assert "build" in folders
    assert not [each for each in folders if any(fnmatch(each, pattern) for pattern in left_out)]
