"""`distillc passes`, `targets`, `families`, `devices`: what there is, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillc.registry import Registry
from tests.packages import KINDS, write_package

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_commands_list_all_that_load_and_fail_for_the_rest(
    kind: Registry[Any], site: Path, run: Run
) -> None:
    code, out, error = run(kind.plural, "--json")
    assert (code, error) == (0, "")
    assert [each["name"] for each in json.loads(out)] == kind.names()
    known = kind.names()
    broken = {"broken": "missing:thing", "missing": "missing:thing"}
    write_package(site, "their-package", {}, {kind.group: broken})
    code, out, error = run(kind.plural)
    assert code == 2
    assert all(name in out for name in known)
    assert f"the {kind.kind} 'broken' cannot be imported" in error
    assert f"(2 {kind.plural} cannot be used)" in error


def test_families_and_devices_say_how_they_are_written(run: Run) -> None:
    found = {each["name"]: each for each in json.loads(run("families", "--json")[1])}
    assert found["mamba"]["options"]["state"] == {"default": 1, "largest": 16}
    assert found["skip"]["options"] == {}
    assert "width=100 (1 to 400)" in run("families")[1]
    found = {each["name"]: each for each in json.loads(run("devices", "--json")[1])}
    forms = {name: each["form"] for name, each in found.items()}
    assert forms["ssh"] == "ssh:user@host[:port]"
    assert forms["adb"] == "adb[:serial]"
    assert (found["emulator"]["clock"], found["host"]["clock"]) == (False, True)
    assert (found["ssh"]["programs"], found["host"]["programs"]) == (True, False)
