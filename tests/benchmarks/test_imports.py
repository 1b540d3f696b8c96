"""Benchmarks run by hand only; here they are at least imported."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_finds_what_it_imports(name: str) -> None:
    try:
        importlib.import_module(f"tests.benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("distillc", "tests"):
            raise
        pytest.skip(f"{error.name} is not installed: pip install -e '.[bench]'")
