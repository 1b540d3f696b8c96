"""What does not match its checksum is never believed, never lost, and made again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillc.errors import StorageError
from distillc.sealed import (
    KEPT,
    cached_file,
    name_lines,
    put_aside,
    read_lines,
    read_sealed,
    seal_line,
    sealed_program,
    write_sealed,
)
from distillc.workdir import write_whole

CONTENT = b"weights and figures"

Log = pytest.LogCaptureFixture


def test_content_comes_back(tmp_path: Path, caplog: Log) -> None:
    for content in (CONTENT, b"", b"\n", bytes(range(256)) * 100):
        write_sealed(tmp_path / "x", content)
        assert read_sealed(tmp_path / "x", bytes) == content
    assert read_sealed(tmp_path / "missing", bytes) is None
    assert not caplog.records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "x"
    write_sealed(path, CONTENT)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert read_sealed(path, bytes) is None
    assert not path.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 10_000), length=st.integers(1, 10_000))
def test_any_hole_or_cut_is_found(tmp_path: Path, start: int, length: int) -> None:
    path = tmp_path / "x"
    write_sealed(path, CONTENT)
    data = path.read_bytes()
    start %= len(data)
    end = min(len(data), start + length)
    for damaged in (data[:start] + bytes(end - start) + data[end:], data[:start]):
        path.write_bytes(damaged)
        assert read_sealed(path, bytes) is None


@pytest.mark.parametrize("swap", ["name", "stage"])
def test_a_file_that_belongs_elsewhere_is_found(tmp_path: Path, swap: str) -> None:
    one = tmp_path / "one" / "x"
    other = tmp_path / "one" / "y" if swap == "name" else tmp_path / "two" / "x"
    write_sealed(one, CONTENT)
    other.parent.mkdir(exist_ok=True)
    one.rename(other)
    assert read_sealed(other, bytes) is None


def test_a_folder_that_moved_with_its_files_is_believed(tmp_path: Path) -> None:
    write_sealed(tmp_path / "work" / "stage" / "x", CONTENT)
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    assert read_sealed(tmp_path / "elsewhere" / "stage" / "x", bytes) == CONTENT


def test_a_hole_larger_than_memory_is_found_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_sealed(path, CONTENT)
    os.truncate(path, 1 << 40)
    assert read_sealed(path, bytes) is None


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to nowhere"])
def test_what_is_no_file_is_put_aside(tmp_path: Path, caplog: Log, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    assert read_sealed(path, bytes) is None
    assert os.path.lexists(tmp_path / "x.damaged-1")
    assert f"{path} is not a file: put aside as x.damaged-1 and made again" in caplog.text


def test_content_of_another_form_is_damaged(tmp_path: Path, caplog: Log) -> None:
    write_sealed(tmp_path / "x", b"[1, 2")
    assert read_sealed(tmp_path / "x", json.loads) is None
    assert "Expecting ',' delimiter" in caplog.text


def test_what_memory_is_too_small_for_is_not_damaged(tmp_path: Path) -> None:
    def fail(content: bytes) -> None:
        raise MemoryError

    write_sealed(tmp_path / "x", CONTENT)
    with pytest.raises(MemoryError):
        read_sealed(tmp_path / "x", fail)
    assert read_sealed(tmp_path / "x", bytes) == CONTENT


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user, which needs root")
def test_a_file_that_may_not_be_read_is_put_aside(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from distillc.sealed import read_sealed, write_sealed
os.setuid(65534)
path = Path(sys.argv[1]) / "x"
write_sealed(path, b"1")
path.chmod(0)
print(read_sealed(path, bytes))
"""
    place = Path("/tmp", f"distillc-test-{os.getpid()}")  # pytest's folders are for root alone
    place.mkdir()
    try:
        os.chown(place, 65534, 65534)
        words = [sys.executable, "-c", script, str(place)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
        assert "cannot be read (Permission denied): put aside as x.damaged-1" in done.stderr
        assert (place / "x.damaged-1").exists()
    finally:
        for each in place.iterdir():
            each.unlink()
        place.rmdir()


def test_damaged_files_stay_and_do_not_fill_the_disk(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        (tmp_path / "x").write_text(str(number))
        put_aside(tmp_path / "x", "is damaged")
    kept = sorted(int(each.read_text()) for each in tmp_path.iterdir())
    assert kept == list(range(3, KEPT + 3))


def test_a_folder_takes_the_name_of_the_oldest_file(tmp_path: Path) -> None:
    for _ in range(KEPT):
        (tmp_path / "x").touch()
        put_aside(tmp_path / "x", "is damaged")
    (tmp_path / "x" / "sub").mkdir(parents=True)
    put_aside(tmp_path / "x", "is not a file")
    assert (tmp_path / "x.damaged-1" / "sub").is_dir()
    (tmp_path / "x").touch()
    put_aside(tmp_path / "x", "is damaged")
    assert (tmp_path / "x.damaged-1").is_dir()
    assert not (tmp_path / "x").exists()


def test_where_nothing_can_be_renamed_the_error_says_so(tmp_path: Path) -> None:
    for number in range(1, KEPT + 1):
        (tmp_path / f"x.damaged-{number}" / "full").mkdir(parents=True)
    (tmp_path / "x").write_text("damaged")
    with pytest.raises(StorageError):
        read_sealed(tmp_path / "x", bytes)
    assert (tmp_path / "x").exists()


def build(path: Path) -> None:
    path.write_text("#!/bin/sh\necho built\nexit 0\n")
    path.chmod(0o755)


def test_a_damaged_program_is_built_again_and_never_run(tmp_path: Path, caplog: Log) -> None:
    path = sealed_program(tmp_path / "program", build)
    assert subprocess.run([path], capture_output=True, text=True).stdout == "built\n"
    sound = path.read_bytes()
    assert sealed_program(path, lambda _: pytest.fail("it is there")) == path
    for damaged in (sound.replace(b"built", b"wrong"), sound[:-1], b"", bytes(len(sound))):
        path.write_bytes(damaged)
        assert sealed_program(path, build).read_bytes() == sound
    path.chmod(0o644)
    assert os.access(sealed_program(path, build), os.X_OK)
    assert "is not executable" in caplog.text


def test_a_library_with_a_checksum_loads(tmp_path: Path) -> None:
    from distillc.surrogates.native import library

    assert b"# sha256 " in Path(library()._name).read_bytes()[-80:]


def test_the_cache_is_keyed_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = cached_file("tool.so", b"one", build)
    assert first != cached_file("tool.so", b"two", build)
    first.write_bytes(b"damaged")
    assert b"built" in cached_file("tool.so", b"one", build).read_bytes()


ENTRY = {"decisions": {"latent.0": "mamba"}, "psnr": 31.25}


def test_lines_come_back_and_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = seal_line("x", ENTRY)
    bad = [
        good.replace("31.25", "31.26"),
        seal_line("y", ENTRY),
        json.dumps(ENTRY),
        good[:-5],
        "[" * 100_000,
        "12",
        "null",
        '{"check": 1}',
        "\0" * 50,
        "x" * 1_000_000,
    ]
    data = "\n".join([good, *bad, "", good]).encode() + b'\n\xff{"psnr": 1}\n'
    path.write_bytes(data)
    entries, damaged = read_lines(path, "x", dict)
    assert entries == [ENTRY, ENTRY]
    assert damaged == [*range(2, 12), 14]
    assert path.read_bytes() == data
    assert read_lines(tmp_path / "missing", "x", dict) == ([], [])


def test_a_line_without_a_checksum_may_be_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(ENTRY) + "\n" + seal_line("x", ENTRY).replace("mamba", "conv"))
    assert read_lines(path, "x", dict, checked=False) == ([ENTRY], [2])


def test_lines_of_another_form_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(seal_line("x", {"psnr": 1.0}) + "\n" + seal_line("x", {}))
    assert read_lines(path, "x", lambda entry: entry["psnr"]) == ([1.0], [2])


def test_a_journal_with_a_hole_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(seal_line("x", ENTRY) + "\n")
    os.truncate(path, 1 << 40)
    assert read_lines(path, "x", dict) == ([ENTRY], [2])


def test_numbers_that_are_not_finite_are_never_written() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            seal_line("x", {"psnr": value})


def test_lines_are_named() -> None:
    assert name_lines([3]) == "line 3"
    assert name_lines([3, 7]) == "lines 3, 7"
    assert name_lines(range(1, 9)) == "lines 1, 2, 3, 4, 5, ..."


def test_the_checksum_costs_little(tmp_path: Path, caplog: Log) -> None:
    """A file is hashed at the speed of a disk: 32 MB within a second on any machine."""
    import time

    caplog.set_level(logging.WARNING)
    content = os.urandom(1 << 25)
    write_sealed(tmp_path / "x", content)
    start = time.perf_counter()
    assert read_sealed(tmp_path / "x", len) == len(content)
    assert time.perf_counter() - start < 1


def test_a_write_that_fails_leaves_the_sealed_file(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x", CONTENT)
    with pytest.raises(RuntimeError):
        write_whole(tmp_path / "x", lambda _: (_ for _ in ()).throw(RuntimeError))
    assert read_sealed(tmp_path / "x", bytes) == CONTENT
