"""Every path, command, option, symbol, variable and target that readers are told of exists."""

from __future__ import annotations

import re
import subprocess

import pytest

from distillc.runtime.manifest import FORMAT
from tests.docs.names import unknown
from tests.docs.passages import ROOT, Passage, of_markdown, of_python, passages


def test_every_name_exists() -> None:
    wrong = [f"{each.place}: {name}" for each in passages() for name in unknown(each)]
    assert wrong == []


def test_pages_docstrings_hints_and_help_are_read() -> None:
    texts = list(passages())
    for place, words in {
        "README.md": "distillc convert restormer.pth",
        "docs/guide/devices.md": "adb push",
        "distillc/codegen/operators/audit.py": "computes a recurrence in one kernel",  # a hint
        "distillc/cli/bench.py": "distillc bench restormer.distillc --threads 2",  # an epilogue
        "distillc/budgets.py": "presets by name",  # a docstring
        "passes/heal.py": "dB, that further rounds",  # that of a constant
    }.items():
        assert any(each.place.startswith(place) and words in each.text for each in texts), place


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see `runtime/tiling.py`", "path runtime/tiling.py"),
        ("see `tiling.py`", "path tiling.py"),
        ("see `distillc/placement/`", "path distillc/placement/"),
        ("stands in docs/static_cost.md.", "path docs/static_cost.md"),
        ("see [it](docs/none.md)", "link docs/none.md"),
        ("`distillc translate x`", "command distillc translate"),
        ("`distillc bench x --width 3`", "option distillc bench --width"),
        ("try `--with-magic`", "option --with-magic"),
        ("try a smaller --scale", "option --scale"),
        ("`make supper`", "target make supper"),
        ("`python -m tests.benchmarks.none`", "module tests.benchmarks.none"),
        (
            "`python -m tests.benchmarks.scan --tall`",
            "option tests.benchmarks.scan --tall",
        ),
        ("`distillc_layers.selective_scan`", "symbol distillc_layers.selective_scan"),
        ("`distillc.runtime.placement`", "symbol distillc.runtime.placement"),
        ("`distillc.passes.Pupils`", "symbol distillc.passes.Pupils"),
        ("`runtime.placement`", "symbol runtime.placement"),
        ("`Target.colour`", "symbol Target.colour"),
        ("`replace_attention()`", "symbol replace_attention()"),
        ("::: distillc.pipeline.Hose", "symbol distillc.pipeline.Hose"),
        ("set `DISTILLC_MAGIC`", "variable DISTILLC_MAGIC"),
    ],
)
def test_what_does_not_exist_is_found(text: str, found: str) -> None:
    assert found in list(unknown(Passage("README.md", text)))


@pytest.mark.parametrize(
    "text",
    [
        "`distillc/runtime/native/tiles.c`, `native/`, `tests/golden/*`, `distillc.h`",
        "[it](docs/internals/trust.md#bundles-and-what-they-replace), [other](https://pypi.org)",
        "`distillc --debug convert x.pth --keep refinement.0`, `--max-drop DB`, `make test`",
        "`python -m tests.benchmarks.scan --length 512`",
        "`distillc.passes.Heal`, `Target.half`, `torch.nn`, `DistillcError`, `DISTILLC_CHECKED`",
    ],
)
def test_what_exists_is_not_found(text: str) -> None:
    assert list(unknown(Passage("README.md", text))) == []


def test_options_of_scripts_are_none_for_users() -> None:
    said = "`--plots docs` makes them"
    assert list(unknown(Passage("docs/index.md", said))) == []
    assert list(unknown(Passage("distillc/cli/run.py:1", said))) == ["option --plots"]


def test_commands_in_blocks_are_read() -> None:
    page = "Text:\n\n    distillc tune x \\\n        --nonsense\n\n```\nmake supper\n```\nmore\n"
    found = {name for each in of_markdown(page, "README.md") for name in unknown(each)}
    assert found == {"option distillc tune --nonsense", "target make supper"}


def test_parts_of_python_are_read() -> None:
    source = '''
"""Module `first_thing`."""

def f(x):
    """Text `second_thing`.

    Raises:
        UsageError: Never.
    """
    raise UsageError("`not_a_hint`", hint=f"try {x} or `third_thing`" if x else "--fourth-thing")

LIMIT = 3
"""A `fifth_thing`."""
'''
    found = {name for each in of_python(source, "distillc/x.py") for name in unknown(each)}
    assert found == {
        *(f"symbol {each}_thing" for each in ("first", "second", "third", "fifth")),
        "option --fourth-thing",
    }


def test_the_changelog_names_the_format_of_bundles() -> None:
    said = re.findall(r"Bundles have format (\d+)", (ROOT / "CHANGELOG.md").read_text())
    assert int(said[-1]) == FORMAT


def test_make_lists_its_targets() -> None:
    source = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", source, re.MULTILINE)
    assert targets
    command = ["make", "--no-print-directory", "-C", str(ROOT)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=1) for line in told.splitlines()]
    assert {name for name, _ in lines} == set(targets.group(1).split())
