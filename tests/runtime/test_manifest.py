"""The manifest: whatever stands there, opening gives a bundle or a `VerificationError`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.errors import VerificationError
from distillc.runtime import strict_json
from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import FORMAT, our_files

from .fake import fake_bundle

HASH = "0" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder, whose manifest each test writes anew."""
    return fake_bundle(tmp_path_factory.mktemp("manifest") / "fake").path


@pytest.fixture(scope="module")
def entries(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def opened(folder: Path, text: str | bytes) -> Bundle:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (folder / "manifest.json").write_bytes(data)
    return Bundle.open(folder)


def test_facts_have_types(folder: Path, entries: dict[str, Any]) -> None:
    facts = opened(folder, json.dumps(entries)).facts
    assert (facts.size, facts.scale) == ((16, 24), 2)
    assert (facts.input_shape, facts.output_shape) == ((1, 3, 16, 24), (1, 3, 32, 48))
    assert (facts.bench, facts.devices, facts.task) == ("fake-bench", ["host"], "sr:scale=2")
    assert facts.metrics.quality is not None
    assert facts.metrics.quality.hybrid.psnr == 30.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 3.9}, "format"),
        ({"format": "3"}, "format"),
        ({"format": True}, "format"),
        ({"format": 10**9}, "format"),
        ({"format": None}, "format"),
        ({"verified": 1}, "verified"),
        ({"verified": "yes"}, "verified"),
        ({"name": None}, "name"),
        ({"name": "x" * 1001}, "name"),
        ({"target": 3}, "target"),
        ({"devices": []}, "devices"),
        ({"devices": "host"}, "devices"),
        ({"devices": ["toaster"]}, "unknown device 'toaster'"),
        ({"devices": [["host"]]}, "devices"),
        ({"precision": "int4"}, "unknown precision"),
        ({"precision": None}, "precision"),
        ({"bench": "../fake-bench"}, "bench: not a plain file name"),
        ({"bench": "other"}, "files has no hash of other"),
        ({"android": "libfake.so"}, "files has no hash of libfake.so"),
        ({"android": 3}, "android"),
        ({"files": []}, "files"),
        ({"files": {}}, "files has no hash of model.so"),
        ({"size": [16]}, "size"),
        ({"size": [16, 24, 1]}, "size"),
        ({"size": [0, 0]}, "size"),
        ({"size": [16.0, 24.0]}, "size"),
        ({"size": {"h": 16, "w": 24}}, "size"),
        ({"size": [16, 32]}, "contradict"),
        ({"scale": 0}, "scale"),
        ({"scale": 1}, "contradict"),
        ({"scale": True}, "scale"),
        ({"scale": 2**70}, "scale"),
        ({"input_shape": [1, 3]}, "input_shape"),
        ({"input_shape": [1, 3, "x", 64]}, "input_shape"),
        ({"input_shape": [1, 3, 0, 0]}, "input_shape"),
        ({"input_shape": [2, 3, 16, 24]}, "input_shape"),
        ({"input_shape": [1, -3, 16, 24]}, "input_shape"),
        ({"output_shape": [1, 3, 16, 24]}, "contradict"),
        ({"output_shape": None}, "output_shape"),
        ({"planned_bytes": -1}, "planned_bytes"),
        ({"task": "weave"}, "unknown task"),
        ({"task": 25}, "task"),
        ({"decisions": {"blocks.0": None}}, "decisions"),
        ({"source": "fake.pth"}, "source"),
        ({"metrics": []}, "metrics"),
        ({"metrics": {"quality": {"hybrid": {"psnr": 1, "ssim": 1}}}}, "metrics.quality.images"),
        ({"metrics": {"quality": {"teacher": 31}}}, "metrics.quality"),
        ({"metrics": {"verification": 3}}, "metrics.verification"),
        ({"versions": {"torch": 2}}, "versions"),
        ({"source": "x.pth"}, "source"),
        ({"source": {"path": 3}}, "source.path"),
        ({"source": {"path": "x.pth", "sha256": "ab"}}, "source.sha256"),
        ({"source": {"arch_args": [1]}}, "source.arch_args"),
    ],
)
def test_wrong_values_are_named(
    folder: Path, entries: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(VerificationError, match="manifest is damaged") as caught:
        opened(folder, json.dumps({**entries, **change}))
    assert said in caught.value.what
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("sub/x", HASH),
        ("a\0b", HASH),
        ("x" * 300, HASH),
        ("manifest.json", HASH),
        ("x", HASH + "\n"),
    ],
)
def test_wrong_files(folder: Path, entries: dict[str, Any], name: str, digest: str) -> None:
    with pytest.raises(VerificationError, match="manifest is damaged"):
        opened(folder, json.dumps({**entries, "files": {**entries["files"], name: digest}}))


def test_every_key_that_code_reads_is_needed(folder: Path, entries: dict[str, Any]) -> None:
    for key in ("format", "verified", "name", "target", "devices", "bench", "files", "size"):
        with pytest.raises(VerificationError, match=f"damaged: {key}"):
            opened(folder, json.dumps({k: v for k, v in entries.items() if k != key}))
    for key in ("scale", "input_shape", "output_shape"):
        with pytest.raises(VerificationError, match=f"damaged: {key}"):
            opened(folder, json.dumps({k: v for k, v in entries.items() if k != key}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lambda text: text.replace("{", '{"scale": 2,', 1), "twice"),
        (lambda text: text.replace("{", '{"seed": NaN,', 1), "NaN is not JSON"),
        (lambda text: text.replace("{", '{"seed": -Infinity,', 1), "Infinity is not JSON"),
        (lambda text: text.replace("{", '{"seed": 1e999,', 1), "too large"),
        (lambda text: text.replace("{", '{"seed": %s,' % ("9" * 5000), 1), "digits"),
        (lambda text: text.replace("{", '{"seed": %s,' % ("[" * 100000), 1), "without end"),
        (lambda text: "\ufeff" + text, "BOM"),
    ],
)
def test_what_is_not_json(
    folder: Path, entries: dict[str, Any], text: Callable[[str], str], said: str
) -> None:
    with pytest.raises(VerificationError, match="manifest is damaged") as caught:
        opened(folder, text(json.dumps(entries)))
    assert said in caught.value.what


def test_a_manifest_without_end_is_not_read(
    folder: Path, entries: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(entries)
    monkeypatch.setattr(strict_json, "MOST_BYTES", 1 << 20)
    opened(folder, text)
    with pytest.raises(VerificationError, match="more than 1 MiB"):
        opened(folder, text + " " * (1 << 20))


def test_what_is_only_for_people_may_be_anything(folder: Path, entries: dict[str, Any]) -> None:
    bundle = opened(folder, json.dumps({**entries, "notes": [None, {"x": 1.5}], "log": "free"}))
    assert bundle.manifest["notes"] == [None, {"x": 1.5}]


def test_whose_folder_it_is(folder: Path, entries: dict[str, Any], tmp_path: Path) -> None:
    """Ours in any format; a browser extension's, a web app's and a damaged one are not."""
    for form in (1, FORMAT, FORMAT + 1):
        (folder / "manifest.json").write_text(json.dumps({**entries, "format": form}))
        assert our_files(folder) == {*entries["files"], "manifest.json"}
    taken_in = {**entries, "files": {**entries["files"], "notes.txt": HASH}}
    (folder / "manifest.json").write_text(json.dumps(taken_in))
    assert our_files(folder) == {*entries["files"], "manifest.json"}
    others: list[dict[str, Any]] = [
        {"manifest_version": 3, "name": "an extension", "version": "1.0"},
        {"name": "a web app", "icons": [], "start_url": "/"},
        {"format": 3, "files": {"index.html": HASH}},
        {"format": 3, "files": {"model.so": "no hash"}},
        {"format": "3", "files": entries["files"]},
        {"files": entries["files"]},
    ]
    for other in others:
        (tmp_path / "manifest.json").write_text(json.dumps(other))
        assert our_files(tmp_path) is None
    (tmp_path / "manifest.json").write_text("")
    assert our_files(tmp_path) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats()
    | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_real_manifest(
    folder: Path, entries: dict[str, Any], data: st.DataObject
) -> None:
    """One value somewhere inside becomes any other, or goes, or the text loses a piece."""
    changed: Any = copy.deepcopy(entries)
    place: Any = changed
    key: Any = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
    if data.draw(st.booleans()):
        place[key] = data.draw(JSON)
    else:
        del place[key]
    text = json.dumps(changed)
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(text)))
        text = text[:start] + text[start + data.draw(st.integers(1, 30)) :]
    try:
        bundle = opened(folder, text)
    except VerificationError:
        return
    facts = bundle.facts
    assert facts.input_shape[2:] == facts.size
    assert bundle.library.is_file()


@given(value=JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_at_all(folder: Path, value: Any) -> None:
    with pytest.raises(VerificationError):
        opened(folder, json.dumps(value))
