from __future__ import annotations

import os
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tvm

from distillc import registry
from distillc.codegen.build.library import tvm_target
from distillc.errors import UsageError
from distillc.runtime.devices import local_devices
from distillc.targets import host as host_module
from distillc.targets.base import TARGETS, get_target
from distillc.targets.host import host
from distillc.targets.snapdragon8gen3 import SNAPDRAGON8GEN3


def test_ours_are_known_by_name() -> None:
    assert {"host", "snapdragon8elite", "snapdragon8gen3", "generic-aarch64"} <= set(
        TARGETS.names()
    )
    assert get_target(get_target("host")) == get_target("host")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="generic-aarch64, host, snapdragon8elite"):
        get_target("snapdragon9")


@pytest.mark.parametrize("name", TARGETS.names())
def test_llvm_knows_every_cpu(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = get_target(name)
    described = tvm_target(target)
    assert isinstance(described, tvm.target.Target)
    assert "is not a recognized processor" not in capfd.readouterr().err
    assert target.vector_bits % 128 == 0
    assert target.threads >= 1


def test_the_elite_has_two_big_cores() -> None:
    target = get_target("snapdragon8elite")
    assert target.threads == 2
    assert target.cpu == "oryon-1"
    assert target.lanes == 4


@pytest.mark.parametrize("name", TARGETS.names())
def test_every_target_can_be_linked_and_run(name: str) -> None:
    target = get_target(name)
    assert target.name == name
    assert target.devices
    assert set(target.devices) <= set(local_devices())
    assert (target.link is None) == (name == "host")
    assert target.threads >= 1
    assert target.l2_kib >= 128


def test_every_aarch64_target_may_use_neon_and_no_more_than_128_bits() -> None:
    for name in ("snapdragon8elite", "snapdragon8gen3", "generic-aarch64"):
        target = get_target(name)
        assert target.triple == "aarch64-linux-gnu"
        assert (target.link or "").startswith(target.triple)
        assert (target.vector_bits, target.registers) == (128, 32)
        assert not any(feature.startswith("+sve") for feature in target.features)


@pytest.mark.parametrize("name", TARGETS.names())
def test_float16_arithmetic_is_used_where_the_cpu_has_it(name: str) -> None:
    target = get_target(name)
    features = set(tvm.target.codegen.llvm_get_cpu_features(tvm_target(target)))
    assert target.half == bool(features & {"fullfp16", "avx512fp16"})
    assert replace(target, element_bits=16).lanes == 2 * target.lanes


def test_a_target_is_plain_data() -> None:
    with pytest.raises(FrozenInstanceError):
        SNAPDRAGON8GEN3.threads = 8  # type: ignore[misc]
    assert len({SNAPDRAGON8GEN3, replace(SNAPDRAGON8GEN3)}) == 1
    own = replace(SNAPDRAGON8GEN3, name="own", threads=1)
    assert get_target(own) is own


def test_a_package_adds_targets_as_data_or_as_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(SNAPDRAGON8GEN3, name="own")
    entries = [
        SimpleNamespace(name="own", load=lambda: own),
        SimpleNamespace(name="made", load=lambda: lambda: replace(own, name="made")),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.setattr(TARGETS, "_found", {})
    assert TARGETS.names() == ["made", "own"]
    assert get_target("own") is own
    assert get_target("made") == replace(own, name="made")
    with pytest.raises(UsageError, match="known targets: made, own"):
        get_target("host")


def test_what_is_no_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [SimpleNamespace(name="text", value="x:y", dist=None, load=lambda: lambda: "no")]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    with pytest.raises(UsageError, match="neither a Target nor a function that returns one"):
        get_target("text")


def test_the_host_is_described_as_it_is() -> None:
    found = host()
    assert found == host()
    assert 1 <= found.threads <= (os.cpu_count() or 1)
    assert found.cpu == tvm.target.codegen.llvm_get_system_cpu()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512f" in flags:
        assert (found.vector_bits, found.registers, found.lanes) == (512, 32, 16)
    elif "avx2" in flags:
        assert (found.vector_bits, found.registers, found.lanes) == (256, 16, 8)


def describe_cache(folder: Path, level: str, kind: str, size: str) -> None:
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (folder / name).write_text(f"{text}\n")


def test_caches_are_read_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe_cache(tmp_path / "index0", "1", "Instruction", "64K")
    describe_cache(tmp_path / "index1", "1", "Data", "48K")
    describe_cache(tmp_path / "index2", "2", "Unified", "2048K")
    monkeypatch.setattr(host_module, "CACHES", tmp_path)
    assert host().l2_kib == 2048


def test_caches_have_a_default_where_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe_cache(tmp_path / "index0", "1", "Data", "unknown")
    (tmp_path / "index1").mkdir()
    monkeypatch.setattr(host_module, "CACHES", tmp_path)
    assert host().l2_kib == 512
