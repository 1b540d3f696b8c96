"""link_library: zig makes shared libraries for every target; its complaints become errors."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from distillc.codegen.link import link_library
from distillc.errors import LoweringError
from distillc.runtime.native import FOLDER
from distillc.targets.base import get_target

MACHINE = slice(18, 20)  # e_machine of an ELF header
AARCH64 = 183


def compile_object(folder: Path, *options: str) -> Path:
    source, result = folder / "answer.c", folder / "answer.o"
    source.write_text("int answer(void) { return 42; }\n")
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-c",
        "-g0",
        "-fPIC",
        str(source),
        "-o",
        str(result),
    ]
    subprocess.run([*command, *options], check=True)
    return result


def test_host_library_loads(tmp_path: Path) -> None:
    path = tmp_path / "answer.so"
    link_library(path, get_target("host"), [compile_object(tmp_path)], (), "answer")
    assert ctypes.CDLL(str(path)).answer() == 42


@pytest.mark.parametrize("name", ["snapdragon8elite", "snapdragon8gen3", "generic-aarch64"])
def test_arm_library_is_an_arm_library(tmp_path: Path, name: str) -> None:
    target = get_target(name)
    path = tmp_path / "answer.so"
    part = compile_object(tmp_path, "-target", str(target.link))
    link_library(path, target, [part], (), "answer")
    header = path.read_bytes()[:64]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[MACHINE], "little") == AARCH64


def test_failure_names_target_and_reason(tmp_path: Path) -> None:
    missing = tmp_path / "missing.o"
    with pytest.raises(LoweringError, match=r"linking for host failed: .*missing\.o"):
        link_library(tmp_path / "out.so", get_target("host"), [missing], (), "answer")
    assert not (tmp_path / "out.so").exists()


def test_only_what_is_exported_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "pool.so"
    link_library(path, get_target("host"), [compile_object(tmp_path)], ("pool", "cores"), "answer")
    library = ctypes.CDLL(str(path))
    assert library.answer() == 42
    assert not hasattr(library, "dc_pool_create")


def test_no_folder_of_this_machine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.so"
    link_library(path, get_target("host"), [compile_object(tmp_path)], ("pool", "cores"), "answer")
    content = path.read_bytes()
    assert b"pool.c" in content
    assert str(FOLDER).encode() not in content
    assert str(Path.cwd()).encode() not in content
