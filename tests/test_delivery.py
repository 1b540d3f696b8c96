"""Both ways to a bundle end here: compiled, verified, described, saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillc.data.images import open_data
from distillc.delivery import deliver
from distillc.errors import StorageError, VerificationError
from distillc.options import BundleOptions
from distillc.pipeline import Context
from distillc.runtime import verify as verify_module
from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import PLOT
from distillc.stages import LOCK, WorkDir

from .passes.toy import toy_network

SEARCH = {
    "objective": "macs",
    "points": [[1.0, 30.0], [2.0, 31.0]],
    "front": [[1.0, 30.0], [2.0, 31.0]],
    "teacher": [2.0, 31.0],
}


def made(folder: Path, **entries: object) -> Bundle:
    options = BundleOptions(target="host", size=(16, 16), budget="smoke")
    images = open_data(None, options.chosen_task)
    ctx = Context(WorkDir(folder / "work"))
    return deliver(
        toy_network(), images, folder / "toy.distillc", options, ctx, entries={**entries}
    )


def test_the_bundle_says_what_it_was_given(tmp_path: Path) -> None:
    bundle = made(tmp_path, seed=3, metrics={"search": SEARCH})
    assert bundle.path == tmp_path / "toy.distillc"
    facts = Bundle.open(bundle.path).manifest
    assert (facts["verified"], facts["seed"], facts["task"]) == (True, 3, "denoise:sigma=25")
    assert facts["metrics"]["search"] == SEARCH
    assert facts["metrics"]["verification"]["images"] == 1
    assert PLOT in facts["files"]
    assert [each.name for each in (tmp_path / "work").iterdir()] == [LOCK]


def test_a_plot_belongs_to_a_search(tmp_path: Path) -> None:
    bundle = made(tmp_path)
    assert PLOT not in bundle.manifest["files"]
    assert "verification" in bundle.manifest["metrics"]
    with pytest.raises(StorageError, match="overwrite"):
        made(tmp_path)


def test_what_differs_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "TOLERANCE", -1.0)
    with pytest.raises(VerificationError):
        made(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["work"]
