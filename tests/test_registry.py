"""One registry for all kinds: members are found by name, and what is wrong with one is said."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from distillc.errors import UsageError
from distillc.registry import Registry
from tests.packages import KINDS, write_package


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_every_kind_has_members_that_load(kind: Registry[Any]) -> None:
    members, errors = kind.load_all()
    assert list(members) == kind.names() != []
    assert not errors


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_an_unknown_name_lists_the_known_and_the_command(kind: Registry[Any]) -> None:
    with pytest.raises(UsageError) as caught:
        kind.find("nothing")
    assert caught.value.what == f"unknown {kind.kind} 'nothing'"
    known = ", ".join(kind.names())
    assert caught.value.hint == f"known {kind.plural}: {known}; see `distillc {kind.plural}`"


def test_a_group_without_members_asks_for_an_installation() -> None:
    empty: Registry[object] = Registry("distillc.nothings", "nothing", lambda found: found, str)
    with pytest.raises(UsageError, match="no package registers nothings: install distillc again"):
        empty.find("one")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "cannot be imported: ModuleNotFoundError: No module named 'theirs'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("import nowhere_else", "No module named 'nowhere_else'"),
        ("other = 1", "AttributeError"),
        ("thing = 3", "cannot be imported: TypeError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ],
)
def test_what_cannot_be_imported_is_named_with_its_package(
    kind: Registry[Any], source: str | None, said: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    modules = {} if source is None else {"theirs.py": source}
    write_package(site, "their-package", modules, {kind.group: {"broken": "theirs:thing"}})
    with pytest.raises(UsageError) as caught:
        kind.find("broken")
    assert f"the {kind.kind} 'broken' " in caught.value.what
    assert said in caught.value.what
    assert caught.value.where == "theirs:thing of their-package 1.0"
    assert caught.value.hint == "update or uninstall that package"
    # Nothing else suffers.
    members, errors = kind.load_all()
    assert sorted([*members, "broken"]) == kind.names()
    assert len(errors) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_two_members_of_one_name_are_refused(kind: Registry[Any], site: Path) -> None:
    name = kind.names()[0]
    value = kind.entry(name).value
    write_package(site, "their-package", {}, {kind.group: {name: value}})
    with pytest.raises(UsageError) as caught:
        kind.find(name)
    assert caught.value.what == f"2 packages offer the {kind.kind} {name!r}"
    assert f"{value} of their-package 1.0" in str(caught.value.where)
    assert re.search(r"of distillc \d", str(caught.value.where))
    others = kind.load_all()[0]
    assert sorted([*others, name]) == kind.names()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_another_name_than_its_own_is_refused(kind: Registry[Any], site: Path) -> None:
    name = kind.names()[0]
    entries = {kind.group: {"alias": kind.entry(name).value}}
    write_package(site, "their-package", {}, entries)
    with pytest.raises(UsageError, match=f"'alias' calls itself '{name}'"):
        kind.find("alias")
