"""The name of a bundle: nothing of anybody's goes, and at every moment there is a whole bundle."""

from __future__ import annotations

import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillc.errors import StorageError
from distillc.runtime import place as place_module
from distillc.runtime.bundle import Bundle
from distillc.runtime.place import check_place, heal

from .fake import fake_bundle


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A bundle with seed 1, in a folder of its own."""
    return fake_bundle(tmp_path / "place" / "out", seed=1).path


@pytest.fixture
def new(tmp_path: Path) -> Bundle:
    """A bundle with seed 2, elsewhere."""
    return fake_bundle(tmp_path / "new", seed=2)


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a name is taken: in one step, or as on systems that cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(place_module, "exchange", lambda first, second: False)
    return str(request.param)


def seed(path: Path) -> Any:
    return Bundle.open(path).manifest["seed"]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_bundle_is_replaced(out: Path, new: Bundle, way: str) -> None:
    new.save(out, overwrite=True)
    assert seed(out) == 2
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize(
    "manifest",
    [
        {"manifest_version": 3, "name": "a browser extension"},
        {"name": "a web app", "start_url": "/", "icons": []},
        {"format": 3, "files": {"index.html": "0" * 64}},
        {"format": 3, "files": ["model.so"]},
    ],
)
def test_folders_with_another_manifest_stay(
    tmp_path: Path, new: Bundle, manifest: dict[str, Any]
) -> None:
    other = tmp_path / "app"
    other.mkdir()
    (other / "manifest.json").write_text(json.dumps(manifest))
    (other / "index.html").write_text("<html>")
    before = content(other)
    with pytest.raises(StorageError, match="this folder is not a bundle"):
        new.save(other, overwrite=True)
    assert content(other) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_a_user_put_into_a_bundle_is_named(out: Path, new: Bundle, kind: str) -> None:
    notes = out / "notes"
    if kind == "file":
        notes.write_text("weeks of work")
    elif kind == "folder":
        notes.mkdir()
        (notes / "page").write_text("weeks of work")
    else:
        notes.symlink_to("/")
    before = content(out)
    with pytest.raises(StorageError, match="what distillc did not write: notes") as caught:
        new.save(out, overwrite=True)
    assert "move these away" in str(caught.value)
    assert content(out) == before
    assert names(out.parent) == ["out"]


def test_notes_in_the_folder_of_an_older_format(out: Path, new: Bundle) -> None:
    path = out / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    (out / "notes.txt").write_text("weeks of work")
    with pytest.raises(StorageError, match=r"notes\.txt"):
        new.save(out, overwrite=True)
    (out / "notes.txt").unlink()
    new.save(out, overwrite=True)
    assert seed(out) == 2


def test_notes_that_an_earlier_version_took_into_its_manifest(out: Path, new: Bundle) -> None:
    (out / "notes.txt").write_text("weeks of work")
    Bundle.open(out).annotate({}, ["notes.txt"])
    with pytest.raises(StorageError, match=r"did not write: notes\.txt"):
        new.save(out, overwrite=True)
    assert (out / "notes.txt").read_text() == "weeks of work"


def test_a_changed_example_is_the_users_a_damaged_library_is_not(out: Path, new: Bundle) -> None:
    (out / "restore.c").write_text("int main(void) { return 42; }")
    with pytest.raises(StorageError, match=r"did not write: restore\.c"):
        new.save(out, overwrite=True)
    (out / "restore.c").unlink()
    (out / "model.so").write_text("damaged")
    new.save(out, overwrite=True)
    assert seed(out) == 2


def test_neighbours_with_near_names_stay(out: Path, new: Bundle, way: str) -> None:
    for name in ("out.partial", "out.former", ".distillc-new-mine", "out.distillc-new-"):
        (out.parent / name).mkdir()
        (out.parent / name / "photo").write_text("not to be lost")
    (out.parent / ".distillc-new-file").write_text("not to be lost")
    before = {each: text for each, text in content(out.parent).items() if "out/" not in each}
    new.save(out, overwrite=True)
    after = {each: text for each, text in content(out.parent).items() if "out/" not in each}
    assert after == before
    assert len(after) == 5


def test_a_link_stays_and_what_it_points_at_is_written(tmp_path: Path, new: Bundle) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to("disk/out")  # dangling
    for again in range(3):
        saved = new.annotate({"seed": again}).save(link, overwrite=bool(again))
        assert saved.manifest["seed"] == again == seed(tmp_path / "disk" / "out")
        assert os.readlink(link) == "disk/out"
        assert names(tmp_path) == ["disk", "link", "new"]
        assert names(tmp_path / "disk") == ["out"]
    with pytest.raises(StorageError, match="exists already"):
        new.save(link)


def test_links_to_what_is_no_bundle(tmp_path: Path, new: Bundle) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_text("not to be lost")
    (tmp_path / "photo").write_text("not to be lost")
    for name, target in (("a", "photos"), ("b", "photo"), ("c", "c")):
        (tmp_path / name).symlink_to(target)
        for overwrite in (False, True):
            with pytest.raises(StorageError):
                new.save(tmp_path / name, overwrite=overwrite)
        assert os.readlink(tmp_path / name) == target
    assert (tmp_path / "photos" / "one.png").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("mine"), "not a folder"),
        (os.mkfifo, "not a folder"),
        (lambda path: path.mkdir(), "exists already|not a bundle"),
    ],
)
def test_other_things_with_the_name(
    tmp_path: Path, make: Callable[[Path], object], said: str, overwrite: bool
) -> None:
    make(tmp_path / "out")
    with pytest.raises(StorageError, match=said):
        check_place(tmp_path / "out", overwrite)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "file/out", "/proc/out", ".", ""])
def test_places_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(StorageError):
            check_place(Path(name), overwrite)
    assert names(tmp_path) == ["file"]


def test_checking_makes_nothing(tmp_path: Path) -> None:
    assert check_place(tmp_path / "a" / "b" / "out", False) == tmp_path / "a" / "b" / "out"
    assert names(tmp_path) == []


def in_child(work: Callable[[], object]) -> int:
    """Run something in a child, and return how it ended: 0, or 9 where it was killed."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(step: int, work: Callable[[], object]) -> int:
    """Run something in a child that dies before its `step`-th change of the file system."""
    left = iter(range(step))

    def deadly(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return real(*arguments, **options)

        setattr(module, name, call)

    def run() -> None:
        for name in ("rename", "unlink", "rmdir", "fsync", "mkdir"):
            deadly(os, name)
        deadly(place_module, "exchange")
        work()

    return in_child(run)


@pytest.mark.parametrize("before", [True, False])
def test_killed_at_every_step(out: Path, new: Bundle, way: str, before: bool) -> None:
    """At once, or after the next start, there is the old bundle or the new one, and no rest."""
    if not before:
        for each in out.iterdir():
            each.unlink()
        out.rmdir()
    ends, seen, steps = [], set(), range(1000)
    for step in steps:
        ends.append(killed_at(step, lambda: new.save(out, overwrite=True)))
        if os.path.lexists(out) or before:
            seen.add(seed(out))
        if ends[-1] == 0:
            break
    assert set(ends[:-1]) == {9}
    assert len(ends) > 15
    assert seen == ({1, 2} if before else {2})
    new.annotate({"seed": 3}).save(out, overwrite=True)
    assert seed(out) == 3
    left = sorted(str(each.relative_to(out.parent)) for each in out.parent.glob(".*/**/*"))
    assert all(each.endswith("journal.json") for each in left), left


def test_a_kill_between_two_renames_is_healed_by_opening(
    out: Path, new: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "exchange", lambda first, second: False)
    rename = os.rename

    def once(source: Path, to: Path) -> None:
        rename(source, to)
        os._exit(9)

    def work() -> None:
        os.rename = once  # type: ignore[assignment]
        new.save(out, overwrite=True)

    assert in_child(work) == 9
    assert not out.exists()
    assert seed(out) == 1
    assert names(out.parent) == ["out"]


def test_a_failed_second_rename_gives_the_name_back(
    out: Path, new: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "exchange", lambda first, second: False)
    rename = os.rename

    def fails(source: Path, to: Path) -> None:
        if source.name == "new":
            raise OSError(5, "Input/output error")
        rename(source, to)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        new.save(out, overwrite=True)
    assert seed(out) == 1
    assert names(out.parent) == ["out"]


def test_a_name_that_another_process_took_is_not_given_back(
    out: Path, new: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place_module, "exchange", lambda first, second: False)
    rename = os.rename

    def late(source: Path, to: Path) -> None:
        if source.name == "new":
            raise OSError(5, "Input/output error")
        if source.name == "former":
            shutil.copytree(new.path, to)
        rename(source, to)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(StorageError, match="Input/output error"):
        new.save(out, overwrite=True)
    assert seed(out) == 2
    assert names(out.parent) == ["out"]


def test_a_live_process_is_left_alone(out: Path, new: Bundle) -> None:
    """Healing meanwhile, as another start does, takes nothing away."""
    copy = new._copy_to

    def slowly(folder: Path) -> None:
        copy(folder)
        assert in_child(lambda: heal(out)) == 0

    new._copy_to = slowly  # type: ignore[method-assign]
    new.save(out, overwrite=True)
    assert seed(out) == 2


def test_two_processes_write_one_name(out: Path, new: Bundle, way: str) -> None:
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            try:
                for _ in range(15):
                    new.save(out, overwrite=True)
            except BaseException:
                traceback.print_exc()  # pytest shows it
                os._exit(1)
            os._exit(0)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ends == [0, 0, 0]
    assert seed(out) == 2
    assert names(out.parent) == ["out"]


def test_what_comes_in_at_the_last_moment_stays(
    out: Path, new: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = place_module.exchange

    def late(first: Path, second: Path) -> bool:
        (second / "notes.txt").write_text("weeks of work")
        return take(first, second)

    monkeypatch.setattr(place_module, "exchange", late)
    with caplog.at_level(logging.WARNING):
        new.save(out, overwrite=True)
    assert seed(out) == 2
    (kept,) = out.parent.glob(".distillc-new-*/new/*")
    assert (kept.name, kept.read_text()) == ("notes.txt", "weeks of work")
    assert str(kept.parent.parent) in caplog.text


def test_strangers_cannot_make_us_remove(out: Path, tmp_path: Path) -> None:
    """A journal that names files elsewhere, through a link or a path."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("not to be lost")
    stage = out.parent / ".distillc-new-evil"
    stage.mkdir()
    (stage / "new").symlink_to(tmp_path / "home")
    files = ["precious", "../../home/precious", str(tmp_path / "home" / "precious")]
    (stage / "journal.json").write_text(json.dumps({"bundle": "out", "files": files}))
    heal(out)
    assert (tmp_path / "home" / "precious").exists()
    assert seed(out) == 1
