"""count_instructions: exact, repeatable, and of one inference."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from distillc.compilation import compile as compile_bundle
from distillc.errors import DeviceError
from distillc.runtime import instruction_count
from distillc.runtime.aarch64_classes import MULTIPLY_ADD
from distillc.runtime.bundle import LIBRARY, Bundle
from distillc.runtime.instruction_count import (
    Instruction,
    classes,
    count_instructions,
    difference,
    read_counts,
    total,
)
from tests.runtime.conftest import toy_hybrid

SHAPE = (1, 3, 16, 16)


def test_counts_of_an_arm_network_are_equal_twice(arm: Bundle) -> None:
    first, second = (count_instructions(arm.path / LIBRARY, SHAPE, SHAPE) for _ in range(2))
    assert first.kernels == second.kernels
    # The C++ library does a little more or less work with the addresses a process is given.
    assert total(first.process) == pytest.approx(total(second.process), rel=1e-3)
    assert 0 < total(first.code) < total(first.process)
    assert sum(classes(first.code).values()) == total(first.code)
    assert classes(first.code)[MULTIPLY_ADD] > 0
    assert any("conv2d" in name for name in first.kernels)


def test_work_grows_with_the_image(arm: Bundle, tmp_path: Path) -> None:
    compile_bundle(toy_hybrid(), "snapdragon8elite", (32, 32), directory=tmp_path)
    shape = (1, 3, 32, 32)
    small = count_instructions(arm.path / LIBRARY, SHAPE, SHAPE)
    large = count_instructions(tmp_path / LIBRARY, shape, shape)
    ratio = classes(large.code)[MULTIPLY_ADD] / classes(small.code)[MULTIPLY_ADD]
    assert ratio == pytest.approx(4, rel=0.2)


def test_code_that_was_translated_twice_is_added_up(tmp_path: Path) -> None:
    dump = tmp_path / "counts"
    file = "/a folder/model.so"
    dump.write_text(f"3 10 aaaaaaaa bbbbbbbb\t{file}\n2 14 bbbbbbbb\t{file}\n1 7f00 cc\t\n")
    assert read_counts(dump) == (
        Instruction("", 0x7F00, b"\xcc", 1),
        Instruction(file, 0x10, b"\xaa" * 4, 3),
        Instruction(file, 0x14, b"\xbb" * 4, 5),
    )


def test_an_instruction_cut_at_the_end_of_a_page_is_read_whole(tmp_path: Path) -> None:
    dump = tmp_path / "counts"
    dump.write_text("7 ffe 90 48\t/model.so\n6 fff 4889c3\t/model.so\n")
    assert read_counts(dump) == (
        Instruction("/model.so", 0xFFE, b"\x90", 7),
        Instruction("/model.so", 0xFFF, b"\x48\x89\xc3", 6),
    )


def test_difference_leaves_out_what_ran_as_often() -> None:
    start, loop = Instruction("f", 0, b"\0" * 4, 1), Instruction("f", 4, b"\1" * 4, 10)
    new = Instruction("f", 8, b"\2" * 4, 2)
    twice = Instruction("f", 4, b"\1" * 4, 25)
    assert difference([start, twice, new], [start, loop]) == (
        Instruction("f", 4, b"\1" * 4, 15),
        new,
    )


def test_damaged_library_is_a_device_error(arm: Bundle, tmp_path: Path) -> None:
    path = tmp_path / LIBRARY
    path.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(DeviceError, match="running compiled code failed"):
        count_instructions(path, SHAPE, SHAPE)


def test_missing_emulator_says_what_to_install(
    arm: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruction_count.shutil, "which", lambda _: None)
    with pytest.raises(DeviceError, match="qemu-none is missing") as caught:
        instruction_count.execute(["qemu-none"], lambda _: None)
    assert "apt-get install qemu-user" in str(caught.value)


@pytest.mark.parametrize("version", ["5.2.0", "9.0.1", "10.0.2"])
def test_qemu_of_another_interface_is_refused(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 0, stdout=f"qemu-aarch64 version {version}\n")
    monkeypatch.setattr(instruction_count.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(instruction_count.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(DeviceError, match=rf"does not fit this qemu: .* {version}"):
        instruction_count.execute(["qemu-aarch64"], lambda _: None)
