"""Stages: results kept once, journals that lose no line, one process at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from distillc.errors import PassError, StorageError
from distillc.forms import Tensors
from distillc.stages import LOCK, Stage, WorkDir

KEY = {"steps": 1, "seed": 0}
LIKE = {"a": torch.zeros(2)}

Log = pytest.LogCaptureFixture


def test_stage_folders_follow_their_key(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    folders = []
    for key in (KEY, {"seed": 0, "steps": 1}, {"steps": 2, "seed": 0}):
        with work.stage("distill", key) as stage:
            folders.append(stage.folder)
    assert folders[0] == folders[1] != folders[2]


def test_the_key_is_there_to_read_and_heals(tmp_path: Path) -> None:
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        pass
    assert stage.folder
    path = stage.folder / "key.json"
    sound = path.read_bytes()
    assert json.loads(sound[: sound.rindex(b"# sha256")]) == KEY
    path.write_bytes(b"")
    with WorkDir(tmp_path).stage("distill", KEY):
        assert path.read_bytes() == sound


def test_a_file_in_the_way_of_the_work_folder(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("not a folder")
    with pytest.raises(StorageError), WorkDir(tmp_path / "work").stage("distill", KEY):
        pass


def test_a_file_in_the_way_of_a_stage_is_put_aside(tmp_path: Path) -> None:
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        pass
    assert stage.folder
    stage.folder.rename(tmp_path / "moved")
    stage.folder.write_text("a file")
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        stage.write("x", b"1")
    assert (tmp_path / f"{stage.folder.name}.damaged-1").read_text() == "a file"


def once(stage: Stage, value: float = 1.0) -> tuple[float, bool]:
    """Return the result of a stage, and whether it was made for it."""
    made = []

    def make() -> Mapping[str, torch.Tensor]:
        made.append(1)
        return {"a": torch.full((2,), value)}

    result = stage.once("result.sealed", Tensors(LIKE), make)
    return result["a"][0].item(), bool(made)


def test_a_result_is_made_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    assert once(stage, 1.0) == (1.0, True)
    assert once(stage, 2.0) == (1.0, False)
    assert once(Stage(None), 2.0) == once(Stage(None), 2.0) == (2.0, True)


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    once(stage, 1.0)
    (tmp_path / "result.sealed").write_bytes(b"damaged")
    assert once(stage, 2.0) == (2.0, True)
    assert once(stage, 3.0) == (2.0, False)
    assert (tmp_path / "result.sealed.damaged-1").read_bytes() == b"damaged"


def test_a_result_of_another_form_is_made_again(tmp_path: Path, caplog: Log) -> None:
    """Its checksum is right: a version wrote it that computes something else."""
    stage, other = Stage(tmp_path), {"b": torch.zeros(1)}
    stage.once("result.sealed", Tensors(other), lambda: other)
    assert once(stage) == (1.0, True)
    assert "holds other tensors" in caplog.text
    stage.write("result.sealed", Tensors(LIKE).pack({"a": torch.full((2,), math.nan)}))
    assert once(stage) == (1.0, True)
    assert "not finite" in caplog.text


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_not_finite_is_never_a_result(tmp_path: Path, kept: bool) -> None:
    with pytest.raises(PassError, match="not finite, in a"):
        once(Stage(tmp_path if kept else None), math.nan)
    assert not list(tmp_path.iterdir())


def test_files_for_people_take_the_place_of_folders(tmp_path: Path) -> None:
    (tmp_path / "front.json").mkdir()
    assert Stage(tmp_path).path("front.json") == tmp_path / "front.json"
    assert not (tmp_path / "front.json").exists()
    assert Stage(None).path("front.json") is None


def check(entry: Mapping[str, Any]) -> None:
    if entry["psnr"] < 0:
        raise ValueError("not a PSNR")


def fill(folder: Path, count: int = 5) -> list[dict[str, Any]]:
    journal = Stage(folder).journal("x.jsonl", check)
    entries = [{"number": number, "psnr": 30.0 + number} for number in range(count)]
    for entry in entries:
        journal.append(entry)
    return entries


def test_a_journal_comes_back(tmp_path: Path, caplog: Log) -> None:
    entries = fill(tmp_path)
    assert Stage(tmp_path).journal("x.jsonl", check).entries == entries
    nothing = Stage(None).journal("x.jsonl", check)
    nothing.append({"psnr": 1.0})
    assert nothing.entries == []
    assert not caplog.records


@pytest.mark.parametrize(
    "line", [b"\0" * 20, b'{"number": 2', b"\xff\xfe", b"[]", b'{"number": 2, "psnr": 32.0}', b"?"]
)
def test_a_damaged_line_costs_only_itself(tmp_path: Path, caplog: Log, line: bytes) -> None:
    entries = fill(tmp_path)
    path = tmp_path / "x.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(damaged := b"\n".join(lines))
    left = entries[:2] + entries[3:]
    journal = Stage(tmp_path).journal("x.jsonl", check)
    assert journal.entries == left
    assert caplog.text.count("put aside") == 1
    assert f"{path} is damaged (line 3): put aside as x.jsonl.damaged-1" in caplog.text
    assert (tmp_path / "x.jsonl.damaged-1").read_bytes() == damaged
    journal.append(entries[2])
    again = Stage(tmp_path).journal("x.jsonl", check)
    assert again.entries == [*left, entries[2]]
    assert caplog.text.count("put aside") == 1


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    entries = fill(tmp_path)
    path = tmp_path / "x.jsonl"
    os.truncate(path, path.stat().st_size - 7)
    journal = Stage(tmp_path).journal("x.jsonl", check)
    assert journal.entries == entries[:-1]


def test_a_journal_of_another_stage_is_not_believed(tmp_path: Path) -> None:
    fill(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert Stage(tmp_path / "two").journal("x.jsonl", check).entries == []


def test_a_journal_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    assert fill(tmp_path) == Stage(tmp_path).journal("x.jsonl", check).entries


HOLDER = """
import sys, time
from distillc.stages import WorkDir
with WorkDir(sys.argv[1]).stage("distill", {"steps": 1, "seed": 0}) as stage:
    print("open", flush=True)
    time.sleep(float(sys.argv[2]))
    stage.write("x", b"theirs")
"""


def start_holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(folder), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


def test_a_second_process_waits_and_reads_what_the_first_made(tmp_path: Path, caplog: Log) -> None:
    with (
        start_holder(tmp_path, 0.5) as process,
        WorkDir(tmp_path).stage("distill", KEY) as stage,
    ):
        assert stage.read("x", bytes) == b"theirs"
    assert process.returncode == 0
    assert "another distillc works in" in caplog.text


def test_other_stages_do_not_wait(tmp_path: Path, caplog: Log) -> None:
    with (
        start_holder(tmp_path, 60) as process,
        WorkDir(tmp_path).stage("distill", {"steps": 2}),
        WorkDir(tmp_path).scratch(),
    ):
        process.kill()
    assert not caplog.records


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with start_holder(tmp_path, 60) as process:
        process.kill()
    start = time.monotonic()
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        assert stage.read("x", bytes) is None
    assert time.monotonic() - start < 5


def test_a_lock_that_is_no_file_is_put_aside(tmp_path: Path) -> None:
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        stage.write("x", b"1")
    assert stage.folder
    (stage.folder / LOCK).unlink()
    (stage.folder / LOCK).mkdir()
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        assert stage.read("x", bytes) == b"1"


def test_scratch_goes_and_so_does_that_of_killed_runs(tmp_path: Path) -> None:
    work = WorkDir(tmp_path)
    theirs = tmp_path / "scratch-of-theirs"
    theirs.mkdir()
    killed = tmp_path / "scratch-killed"
    killed.mkdir()
    (killed / LOCK).touch()
    (killed / "big").write_bytes(bytes(1000))
    with work.scratch() as first:
        assert not killed.exists()
        with work.scratch() as second:
            assert first.exists()
            assert first != second
        assert not second.exists()
    assert not first.exists()
    assert theirs.exists()


def test_what_killed_writes_left_in_a_stage_is_removed(tmp_path: Path) -> None:
    with WorkDir(tmp_path).stage("distill", KEY) as stage:
        assert stage.folder
        left = stage.folder / ".x.abc.distillc-partial"
        left.touch()
    with WorkDir(tmp_path).stage("distill", KEY):
        assert not left.exists()
