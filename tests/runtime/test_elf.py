"""elf: function names of a library, by where they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distillc.errors import DeviceError
from distillc.runtime.elf import function_at, kernel_name, read_functions


def test_functions_of_a_library(tmp_path: Path) -> None:
    source, library = tmp_path / "two.c", tmp_path / "two.so"
    source.write_text(
        "int data = 3;\n"
        "static __attribute__((noinline)) int conv_compute_(int x) { return x * x + data; }\n"
        "int __tvm_ffi_conv(int x) { return conv_compute_(x) + 1; }\n"
        "int norm(int x) { return x / 3; }\n"
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28"]
    subprocess.run([*command, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    functions = read_functions(library)
    assert functions == sorted(functions)
    assert [name for _, name in functions].count("conv") == 2
    assert "norm" in dict(functions).values()
    assert "data" not in dict(functions).values()
    start = next(offset for offset, name in functions if name == "norm")
    assert function_at(functions, start) == function_at(functions, start + 4) == "norm"
    assert function_at(functions, 0) == ""


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF\x01\x01" + bytes(60)])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="not a 64-bit little-endian ELF") as caught:
        read_functions(path)
    assert str(path) in str(caught.value)


def test_kernel_names() -> None:
    symbols = ["__tvm_ffi_conv2d1", "conv2d1_compute_", "conv2d1_compute_.12", "conv2d1"]
    assert {kernel_name(symbol) for symbol in symbols} == {"conv2d1"}
    assert kernel_name("_compute_shape") == "_compute_shape"
