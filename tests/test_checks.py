"""What is checked of numbers, names and places."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillc.checks import EDGES, check_name, check_writable, parse_size, temporary_folder
from distillc.errors import StorageError, UsageError
from distillc.options import BundleOptions
from distillc.preflight import accept


@given(st.integers(1, int(EDGES[1])), st.integers(1, int(EDGES[1])))
def test_sizes(height: int, width: int) -> None:
    assert parse_size(f"{height}x{width}") == (height, width)
    assert parse_size(f" {height} ") == (height, height)


@given(st.text(max_size=12))
def test_what_is_no_size_is_refused(text: str) -> None:
    try:
        height, width = parse_size(text)
    except UsageError:
        return
    assert all(EDGES[0] <= edge <= EDGES[1] for edge in (height, width))


@pytest.mark.parametrize("name", ["a\0", "n" * 256, "ü" * 128, "\udcff", "a/" * 2049])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="the name"):
        check_name(Path(name))


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, " ", "a,b", "-x", "zwölf", "\n"])
def test_names_that_files_can_have(name: str, tmp_path: Path) -> None:
    check_name(Path(name))
    check_writable(tmp_path / "new" / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_of_temporary_files_that_cannot_be_used(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    with pytest.raises(
        StorageError, match="the folder of temporary files cannot be used"
    ) as caught:
        temporary_folder()
    assert caught.value.where == str(tmp_path / folder)
    out = tmp_path / "x.distillc"
    with pytest.raises(StorageError, match="set TMPDIR"):
        accept("x.pth", BundleOptions(out=out, work_dir=tmp_path / "work"))


@pytest.mark.parametrize("out", ["a/work", "a/../a/work", "a"])
def test_a_bundle_around_the_work_folder(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pth").touch()
    with pytest.raises(UsageError, match="would hold a/work"):
        accept("x.pth", BundleOptions(out=Path(out), work_dir=Path("a/work")))
    assert {each.name for each in tmp_path.iterdir()} == {"x.pth"}
