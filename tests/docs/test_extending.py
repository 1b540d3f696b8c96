"""Each recipe of docs/guide/extending*.md works in a package of its own, as it stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.recipes import Recipe, recipes

RECIPES = list(recipes())
PACKAGES = [each for each in RECIPES if not each.changes_distillc]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder of a package, as a user would who has installed it."""
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_page_has_its_recipes() -> None:
    assert {each.name for each in RECIPES} >= {
        *("A pass", "A target", "A surrogate family", "A device", "A degradation", "A metric"),
        *("A torch operator", "A schedule rule"),
    }
    assert all(each.entry_points() for each in PACKAGES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_its_own_tests_pass(recipe: Recipe, tmp_path: Path) -> None:
    recipe.write(tmp_path)
    done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("recipe", PACKAGES, ids=lambda recipe: recipe.name)
def test_its_members_are_listed(recipe: Recipe, tmp_path: Path) -> None:
    recipe.write(tmp_path)
    for group, entries in recipe.entry_points().items():
        command = group.rpartition(".")[2]
        done = run(tmp_path, "-m", "distillc.cli", command, "--json")
        assert done.returncode == 0, done.stderr
        assert set(entries) <= {each["name"] for each in json.loads(done.stdout)}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_its_tests_fail_without_what_they_test(recipe: Recipe, tmp_path: Path) -> None:
    recipe.write(tmp_path)
    for name in recipe.files:
        if name.endswith(".py") and not is_test(name):
            (tmp_path / name).unlink()
    assert run(tmp_path, "-m", "pytest", "-q", "tests").returncode != 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_its_code_has_the_style_of_the_project(recipe: Recipe, tmp_path: Path) -> None:
    recipe.write(tmp_path)
    files = [str(tmp_path / name) for name in recipe.files if name.endswith(".py")]
    for words in (["check", "--ignore", "I001"], ["format", "--check"]):
        assert style(*words, *files) == ""


def is_test(name: str) -> bool:
    """Whether a file of a recipe is a test."""
    return name.startswith("tests/")


def style(*words: str) -> str:
    """Return what ruff complains of, by the project's own settings."""
    config = Path(__file__).resolve().parents[2] / "pyproject.toml"
    command: Sequence[str] = [sys.executable, "-m", "ruff", *words, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr
