from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from distillc.errors import LoweringError, StorageError
from distillc.workdir import (
    digest,
    full_disk,
    read_tensors,
    remove_leftovers,
    storage_errors,
    write_json,
    write_tensors,
    write_text,
    write_whole,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    write_whole(path, lambda temporary: temporary.write_text("first"))

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["result.txt"]


def test_files_are_for_everyone_and_programs_stay_programs(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "x")
    write_whole(tmp_path / "program", lambda temporary: temporary.chmod(0o755))
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "text").stat().st_mode == plain.stat().st_mode
    assert (tmp_path / "program").stat().st_mode & 0o111 == 0o111


def test_a_full_disk_says_so_and_what_next(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk is full") as caught, storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "same command again" in str(caught.value)


def test_a_really_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(StorageError, match="disk is full"):
        write_whole(tmp_path / "x", lambda _: Path("/dev/full").write_text("x" * 100))


def test_tensors_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_json_is_written_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": 2})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'


def test_what_a_killed_write_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(temporary: Path) -> None:
        temporary.rename(temporary.with_name("." + temporary.name))  # as a kill leaves it
        raise Killed

    (tmp_path / ".theirs").touch()
    with pytest.raises(Killed):
        write_whole(tmp_path / "x", kill)
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [".theirs"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed: No space left on device"),
        LoweringError("linking failed", where="error: NoSpaceLeft"),
    ],
)
def test_whoever_finds_no_space_says_so(error: Exception) -> None:
    with pytest.raises(StorageError, match="disk is full"), full_disk():
        raise error
    with pytest.raises(StorageError, match="disk is full"), full_disk():
        raise ValueError("what came of it") from error


def test_other_errors_stay_what_they_are() -> None:
    for error in (OSError(errno.EACCES, "Permission denied"), LoweringError("not supported")):
        with pytest.raises(type(error)) as caught, full_disk():
            raise error
        assert caught.value is error
