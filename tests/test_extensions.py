"""A package outside the repository adds a family and a device; nothing of distillc changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import distillc
from tests.docs.recipes import recipes
from tests.packages import write_package

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes of the guide for a family and a device, as one installed package."""
    site = tmp_path_factory.mktemp("site")
    chosen = [each for each in recipes() if each.name in ("A surrogate family", "A device")]
    assert len(chosen) == 2
    modules = {
        name: text
        for each in chosen
        for name, text in each.files.items()
        if name.startswith("mypackage/")
    }
    entries = {group: names for each in chosen for group, names in each.entry_points().items()}
    write_package(site, "mypackage", modules, entries)
    return site


def python(site: Path, *words: object) -> str:
    """Run Python where the package is installed; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_members_stand_beside_ours(site: Path) -> None:
    for command, ours, theirs in (("families", "conv", "dilated"), ("devices", "host", "core")):
        found = json.loads(python(site, "-m", "distillc.cli", command, "--json"))
        modules = {each["name"]: each["module"] for each in found}
        assert modules[theirs].startswith("mypackage.")
        assert modules[ours].startswith("distillc.")
        assert theirs in python(site, "-m", "distillc.cli", command)


def test_what_every_family_promises_is_asked_of_it(site: Path) -> None:
    files = ["tests/surrogates/test_every_family.py", "tests/codegen/build/test_library.py"]
    words = ["-p", "no:cacheprovider", "-k", "dilated", "-rA", "--show-capture=no"]
    lines = python(site, "-m", "pytest", *files, *words).splitlines()
    passed = {line.partition("::")[2] for line in lines if line.startswith("PASSED")}
    assert {
        "test_it_learns_and_exports[dilated]",
        "test_seeds_decide_the_weights[dilated]",
        "test_every_size_keeps_its_shape_and_images_stay_apart[dilated]",
        "test_every_family_on_this_machine[dilated-block]",
        "test_every_family_on_this_machine[dilated-attention]",
    } <= passed


def test_its_family_is_distilled_by_a_conversion(
    site: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    words = ["--family", "dilated:reach=3", "--size", 32, "--budget", "smoke", "--target", "host"]
    words += ["--work-dir", tmp_path / "work", "--stop-after", "distill_blocks", "--json"]
    found = json.loads(python(site, "-m", "distillc.cli", "convert", tiny_checkpoint, *words))
    candidates = [each for block in found["blocks"] for each in block["candidates"]]
    assert [each["label"] for each in candidates] == ["dilated:reach=3"] * 8
    assert all(each["fidelity"] < 1 for each in candidates)  # a new one has 1


def test_its_device_runs_a_bundle(site: Path, tmp_path: Path) -> None:
    network = nn.Conv2d(3, 3, 3, padding=1)
    bundle = distillc.compile(network, target="host", size=(16, 16), directory=tmp_path / "bundle")
    device = f"core:{min(os.sched_getaffinity(0))}"
    words = ["--device", device, "--runs", 3, "--threads", 1, "--json"]
    stats = json.loads(python(site, "-m", "distillc.cli", "bench", bundle.path, *words))
    assert (stats["device"], stats["runs"]) == (device, 3)
    assert stats["median_ms"] > 0
    findings = json.loads(
        python(site, "-m", "distillc.cli", "doctor", "--device", device, "--json")
    )
    assert "taskset" in findings[0]["seen"]
