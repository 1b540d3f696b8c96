"""What files hold acts neither on the terminal nor on rich, wherever it is shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from distillc.cli import main
from distillc.cli.common import progress_display
from distillc.cli.terminal import Terminal
from distillc.network import Network
from distillc.pipeline import dump_text
from distillc.report.html import write_report

EVIL = "[red]\x1b]0;x\x9c\u202e[/nonsense] :smile:"
SHOWN = r"[red]\x1b]0;x\x9c\u202e[/nonsense] :smile:"


def table() -> Table:
    made = Table("name", title=EVIL)
    made.add_row(EVIL)
    return made


def tree() -> Tree:
    made = Tree(Text(EVIL))
    made.add(EVIL)
    return made


@pytest.mark.parametrize(
    "thing", [EVIL, Text(EVIL), table(), tree()], ids=lambda x: type(x).__name__
)
def test_nothing_acts(thing: object) -> None:
    console = Terminal(file=io.StringIO(), width=200)
    console.print(thing)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert SHOWN in shown
    assert shown.replace("\n", "").isprintable()


def test_our_own_styles_do() -> None:
    console = Terminal(file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text("error:", "red"))
    assert console.file.getvalue() == "\x1b[31merror:\x1b[0m\n"  # type: ignore[attr-defined]


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(quiet=False) as progress:
        assert isinstance(progress, Progress)
        progress.add_task(EVIL, total=1, detail=EVIL)
    shown = capsys.readouterr().err
    assert "[red]" in shown
    assert "\x9c" not in shown
    assert "\u202e" not in shown


def test_dumps() -> None:
    assert SHOWN in dump_text(Network(torch.nn.Identity(), (8, 8), name=EVIL))


@pytest.mark.parametrize("json_too", [False, True])
def test_a_file_name(json_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "\x1b]0;x\x07.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit) as caught:
        main(["inspect", str(path), *["--json"] * json_too])
    assert caught.value.code == 3
    out, err = capsys.readouterr()
    shown = json.loads(out)["where"] if json_too else err
    assert r"\x1b]0;x\x07.pth" in shown
    assert (out + err).replace("\n", "").isprintable()


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "x", "--\x1b]0;x\x07"])
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_the_report_escapes_html(tmp_path: Path) -> None:
    write_report({"name": "<script>alert(1)</script>", "size": (8, 8)}, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
