"""The process that reads strangers' files: what it keeps in, and how its ends are told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from distillc import sandbox
from distillc.errors import CheckpointError, LoweringError, UsageError
from distillc.sandbox import ProcessLimits, outcome

HERE = "tests.test_sandbox"
LIMITS = ProcessLimits(seconds=5, memory=2**28)


def echo(path: str, number: int, out: str) -> dict[str, Any]:
    Path(out).write_bytes(b"made")
    return {"path": path, "number": number, "process": os.getpid()}


def crash(path: str, out: str) -> None:
    os.kill(os.getpid(), 11)


def leave(path: str, out: str) -> None:
    os._exit(0)


def spin(path: str, out: str) -> None:
    while True:
        pass


def sleep(path: str, out: str) -> None:
    time.sleep(1000)


def fill(path: str, out: str) -> None:
    b"x" * 2**29


def fill_in_torch(path: str, out: str) -> None:
    import torch

    torch.zeros(2**29, dtype=torch.uint8)


def fill_the_result(path: str, out: str) -> None:
    with open(out, "wb") as stream:
        for _ in range(2**10):
            stream.write(b"x" * 2**20)


def connect(path: str, port: int, out: str) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5)


def refuse(path: str, out: str) -> None:
    raise LoweringError("no", where=path, hint="do")


def fail(path: str, out: str) -> None:
    raise KeyError("unforeseen")


def ask(name: str, *arguments: Any, limits: ProcessLimits | None = LIMITS) -> Any:
    with outcome(f"{HERE}:{name}", Path("some.pth"), *arguments, limits=limits) as (value, _):
        return value


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker finds this module, as it finds nothing else of the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    if not (sandbox._running and getattr(sandbox._running[0], "for_tests", False)):
        sandbox._close()
        sandbox._running.clear()
        sandbox._worker().for_tests = True  # type: ignore[attr-defined]


def test_a_value_and_a_file_come_back() -> None:
    with outcome(f"{HERE}:echo", Path("x.pth"), 7, limits=LIMITS) as (value, made):
        assert value["number"] == 7
        assert value["path"] == str(Path("x.pth").absolute())
        assert value["process"] != os.getpid()
        assert made.read_bytes() == b"made"


def test_without_limits_it_is_this_process() -> None:
    with outcome(f"{HERE}:echo", Path("x.pth"), 7, limits=None) as (value, made):
        assert value["process"] == os.getpid()
        assert made.read_bytes() == b"made"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("crash", "signal 11"),
        ("leave", "without an answer"),
        ("fill", "more than 0.2 GiB"),
        ("fill_in_torch", "more than 0.2 GiB"),
        ("fill_the_result", "more than 0.2 GiB"),
        ("fail", "cannot be read: KeyError: 'unforeseen'"),
    ],
)
def test_how_it_can_end(name: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        ask(name)
    assert caught.value.where == "some.pth"
    assert ask("echo", 1)["number"] == 1  # the next file is read


@pytest.mark.parametrize("name", ["spin", "sleep"])
def test_its_time_ends(name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(CheckpointError, match="takes longer than 1 s"):
        ask(name, limits=ProcessLimits(1, 2**28))
    assert time.monotonic() - begin < 20


def test_errors_of_ours_keep_their_kind_and_the_path_as_it_was_given() -> None:
    with pytest.raises(LoweringError) as caught:
        ask("refuse")
    assert (caught.value.what, caught.value.where, caught.value.hint) == ("no", "some.pth", "do")


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # from here there is
        with pytest.raises(CheckpointError, match=r"Network is unreachable|refused"):
            ask("connect", port)


def test_threads_take_turns() -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(ask("echo", n)["number"]))
        for n in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(found) == [0, 1, 2, 3]


def test_it_ends_with_its_parent() -> None:
    code = (
        "from pathlib import Path; from distillc import sandbox;"
        f"v = sandbox.outcome('{HERE}:echo', Path('x'), 1, limits=sandbox.ProcessLimits(5, 2**28));"
        "v.__enter__(); print(sandbox._running[0].process.pid, flush=True);"
        "import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    worker = int(done.stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # nobody collects it in a container without init
            break
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{worker}").exists()


def test_it_starts_before_a_file_is_read() -> None:
    sandbox._close()
    sandbox._running.clear()
    sandbox.start_early()
    assert ask("echo", 1)
    assert len(sandbox._running) == 1


def test_a_system_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    sandbox._close()
    sandbox._running.clear()
    sandbox.start_early()  # says nothing: perhaps no file is read
    with pytest.raises(UsageError, match="cannot read files in a process of its own") as caught:
        ask("echo", 1)
    assert "--no-sandbox" in str(caught.value)
