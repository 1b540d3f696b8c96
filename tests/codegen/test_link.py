"""linker: zig makes shared libraries for every target; its complaints become errors."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from distillc.codegen.link import linker
from distillc.errors import LoweringError
from distillc.targets.base import get_target

MACHINE = slice(18, 20)  # e_machine of an ELF header
AARCH64 = 183


def compile_object(folder: Path, *options: str) -> str:
    source, result = folder / "answer.c", folder / "answer.o"
    source.write_text("int answer(void) { return 42; }\n")
    command = [sys.executable, "-m", "ziglang", "cc", "-c", "-fPIC", str(source), "-o", str(result)]
    subprocess.run([*command, *options], check=True)
    return str(result)


def test_host_library_loads(tmp_path: Path) -> None:
    path = tmp_path / "answer.so"
    linker(get_target("host"))(str(path), [compile_object(tmp_path)])
    assert ctypes.CDLL(str(path)).answer() == 42


@pytest.mark.parametrize("name", ["snapdragon8elite", "snapdragon8gen3", "generic-aarch64"])
def test_arm_library_is_an_arm_library(tmp_path: Path, name: str) -> None:
    target = get_target(name)
    path = tmp_path / "answer.so"
    linker(target)(str(path), [compile_object(tmp_path, "-target", str(target.link))])
    header = path.read_bytes()[:64]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[MACHINE], "little") == AARCH64


def test_failure_names_target_and_reason(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.o")
    with pytest.raises(LoweringError, match=r"linking for host failed: .*missing\.o"):
        linker(get_target("host"))(str(tmp_path / "out.so"), [missing])
    assert not (tmp_path / "out.so").exists()


def test_what_tvm_asks_of_it() -> None:
    link = linker(get_target("snapdragon8elite"))
    assert link.get_target_triple() == "aarch64-linux-gnu"  # type: ignore[attr-defined]
    assert link.object_format == "o"  # type: ignore[attr-defined]
