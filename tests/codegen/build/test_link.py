"""link: zig makes shared libraries for every target; its complaints become errors."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillc.codegen.build.link import ANDROID_PAGE, BIONIC, Artifact, link
from distillc.errors import LoweringError
from distillc.runtime.native import FOLDER, KERNELS
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
    link(path, get_target("host"), [compile_object(tmp_path)], (), "answer")
    assert ctypes.CDLL(str(path)).answer() == 42


@pytest.mark.parametrize("name", ["snapdragon8elite", "snapdragon8gen3", "generic-aarch64"])
def test_arm_library_is_an_arm_library(tmp_path: Path, name: str) -> None:
    target = get_target(name)
    path = tmp_path / "answer.so"
    part = compile_object(tmp_path, "-target", str(target.link))
    link(path, target, [part], (), "answer")
    header = path.read_bytes()[:64]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[MACHINE], "little") == AARCH64


def read_elf(path: Path, *options: str) -> str:
    command = ["readelf", "--wide", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf (Debian: binutils) is missing")
def test_android_library_needs_bionic_alone(tmp_path: Path) -> None:
    target = get_target("snapdragon8elite")
    path = tmp_path / "libanswer.so"
    part = compile_object(tmp_path, "-target", target.static)
    link(path, target, [part], KERNELS, "answer; dc_pool_create", Artifact.ANDROID)
    dynamic = read_elf(path, "--dynamic")
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) == ["libc.so"]
    assert re.findall(r"\(SONAME\).*\[(.*)\]", dynamic) == ["libanswer.so"]
    symbols = [
        line.split() for line in read_elf(path, "--dyn-syms").splitlines() if "GLOBAL" in line
    ]
    wanted = {each[-1] for each in symbols if each[-2] == "UND"}
    assert {"pthread_create", "malloc"} <= wanted <= set(BIONIC["libc.so"])
    assert {each[-1] for each in symbols if each[-2] != "UND"} == {"answer", "dc_pool_create"}
    loads = [line.split() for line in read_elf(path, "--segments").splitlines() if " LOAD " in line]
    assert {each[-1] for each in loads} == {hex(ANDROID_PAGE)}
    assert all(int(each[1], 16) % ANDROID_PAGE == int(each[2], 16) % ANDROID_PAGE for each in loads)


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf (Debian: binutils) is missing")
def test_android_library_may_call_bionics_mathematics(tmp_path: Path) -> None:
    source, path = tmp_path / "sum.c", tmp_path / "libsum.so"
    source.write_text(
        "#include <math.h>\nfloat sum(float x) { return atan2f(x, 2) + powf(x, 3) + logf(x); }\n"
    )
    link(path, get_target("snapdragon8elite"), [source], (), "*", Artifact.ANDROID)
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", read_elf(path, "--dynamic")) == ["libm.so"]


def test_android_library_cannot_call_what_bionic_lacks(tmp_path: Path) -> None:
    source = tmp_path / "calls.c"
    source.write_text(
        "int strverscmp(const char *, const char *);\nint answer(void) "
        '{ return strverscmp("a", "b"); }\n'
    )
    with pytest.raises(LoweringError, match="undefined symbol: strverscmp"):
        link(
            tmp_path / "out.so", get_target("snapdragon8elite"), [source], (), "*", Artifact.ANDROID
        )


@pytest.mark.parametrize("name", ["host", "snapdragon8elite"])
def test_program_needs_nothing(tmp_path: Path, name: str) -> None:
    source, path = tmp_path / "main.c", tmp_path / "program"
    source.write_text('#include <stdio.h>\nint main(void) { puts("42"); }\n')
    link(path, get_target(name), [source], (), "", Artifact.PROGRAM)
    command = [str(path)]
    if name != "host" and platform.machine() != "aarch64":
        if not shutil.which("qemu-aarch64"):
            pytest.skip("qemu-aarch64 (Debian: qemu-user) is missing")
        command.insert(0, "qemu-aarch64")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    assert done.stdout == "42\n"


@pytest.mark.parametrize("name", ["a,b", "a b", 'it\'s "q"', "zwölf", "a\nb", "@a", "a=b"])
def test_any_folder_of_temporary_files_will_do(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    library = folder / "model.so"
    link(library, get_target("host"), [compile_object(tmp_path)], KERNELS, "answer")
    assert ctypes.CDLL(str(library)).answer() == 42
    assert [each.name for each in folder.iterdir()] == ["model.so"]


def test_failure_names_target_and_reason(tmp_path: Path) -> None:
    missing = tmp_path / "missing.o"
    with pytest.raises(LoweringError, match=r"linking for host failed: .*missing\.o"):
        link(tmp_path / "out.so", get_target("host"), [missing], (), "answer")
    assert not (tmp_path / "out.so").exists()


def test_only_what_is_exported_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "pool.so"
    link(path, get_target("host"), [compile_object(tmp_path)], ("pool", "cores"), "answer")
    library = ctypes.CDLL(str(path))
    assert library.answer() == 42
    assert not hasattr(library, "dc_pool_create")


def test_no_folder_of_this_machine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.so"
    link(path, get_target("host"), [compile_object(tmp_path)], ("pool", "cores"), "answer")
    content = path.read_bytes()
    assert b"pool.c" in content
    assert str(FOLDER).encode() not in content
    assert str(Path.cwd()).encode() not in content
