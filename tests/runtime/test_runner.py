"""The runner: built once, kept; whatever happens to its process becomes a DeviceError."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distillc import zig
from distillc.errors import DeviceError, StorageError
from distillc.runtime import runner
from distillc.runtime.runner import Timing, build_runner, run_models

X = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
OK = 'print(\'{"ms": [[1.5, 2.5]], "peak_bytes": 4096}\')'


def run(
    code: str, timeout_s: float = 60, shape: tuple[int, ...] = X.shape
) -> tuple[object, Timing]:
    """Run Python code in the runner's place."""
    command = [
        sys.executable,
        "-c",
        f"import sys\nshape, overlap, source, sink = sys.argv[1:5]\n{code}",
    ]
    return run_models(command, {}, [Path("m.so")], X, shape, warmup=0, runs=2, timeout_s=timeout_s)


def test_input_and_output_pass_through_files() -> None:
    y, timing = run(f"open(sink, 'wb').write(open(source, 'rb').read())\n{OK}")
    np.testing.assert_array_equal(y, X)  # type: ignore[arg-type]
    assert timing == Timing(((1.5, 2.5),), 4096)


def test_arguments() -> None:
    check = (
        "assert (shape, overlap) == ('1,2,3', '-1')\nassert sys.argv[5:7] == ['0', '2'], sys.argv\n"
    )
    check += "assert sys.argv[7].startswith('/') and sys.argv[7].endswith('m.so')\n"
    run(f"{check}open(sink, 'wb').write(open(source, 'rb').read())\n{OK}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit('cannot load it')", "failed: cannot load it"),
        ("sys.exit(3)", "failed: exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "failed: exit code -11"),
    ],
)
def test_failures(code: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught:
        run(code)
    assert caught.value.where == "m.so"


def test_output_of_another_size() -> None:
    with pytest.raises(DeviceError, match=r"returned 6 values, the manifest says \(1, 1, 2, 4\)"):
        run(f"open(sink, 'wb').write(open(source, 'rb').read())\n{OK}", shape=(1, 1, 2, 4))


def test_a_runner_that_may_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str], **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(runner.subprocess, "run", refuse)
    with pytest.raises(DeviceError, match="cannot be started: Permission denied"):
        run(OK)


def test_process_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(runner.subprocess, "run", hang)
    with pytest.raises(DeviceError, match="did not finish within 5 s"):
        run(OK, timeout_s=5)


def test_no_space_for_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        run(OK)


def test_runner_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_runner(None)
    monkeypatch.setattr(runner.subprocess, "run", None)
    assert build_runner(None) == first


def test_a_compiler_without_space_is_no_error_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=1, stderr="error: unable to write: NoSpaceLeft")

    monkeypatch.setattr(zig.subprocess, "run", full)
    with pytest.raises(StorageError, match="disk is full"):
        zig.run_zig("cc")


def test_runner_that_does_not_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "runner.c"
    source.write_text("int main() { return nothing; }\n")
    monkeypatch.setattr(runner, "SOURCES", (source,))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache" / "zig"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match="does not compile") as caught:
        build_runner(None)
    assert "nothing" in str(caught.value.where)
    assert list((tmp_path / "cache" / "distillc").iterdir()) == []
