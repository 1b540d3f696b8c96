"""The process that reads strangers' files: no network, no new files, bounded memory and time.

`python -m distillc.sandbox_worker FD` answers requests on a socket. It imports what a request
names, once, and forks a child for each, so that a file sees nothing of the one before it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import random
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from distillc.errors import DistillcError, named_reason

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
NO_NEW_PRIVILEGES = 38
CORES = 2
PATIENCE = 5
"""Wall-clock time for a second of the processor, on a machine that does other work."""

EXHAUSTED = (
    "allocate memory",
    "bad allocation",
    "bad_alloc",
    "Cannot allocate",
    "out of memory",
    "File too large",
)
"""What torch, ONNX Runtime and the C++ library say where memory is refused."""


def resolve(function: str) -> Callable[..., Any]:
    """Return a function of ours by `module:name`."""
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def serve(channel: socket.socket) -> None:
    """Answer requests until the other side is gone.

    A request is one JSON message with two files: for the reply, and for what is made of the input.
    The answer is how the child ended.
    """
    channel.sendall(json.dumps({"network": not _leave_network()}).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' warnings quote the file
    while True:
        message, files, _, _ = socket.recv_fds(channel, 2**20, 2)
        if not message:
            return
        request = json.loads(message)
        resolve(request["function"])  # the import outlives the child
        child = os.fork()
        if child == 0:
            channel.close()
            _work(request, *files)
        for each in files:
            os.close(each)
        channel.sendall(json.dumps(_wait(child, channel, request["seconds"])).encode())


def _leave_network() -> bool:
    """Leave the network for an empty one; say whether the system allows it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return any(libc.unshare(flags) == 0 for flags in (NEW_NETWORK, NEW_USER | NEW_NETWORK))


def _wait(child: int, channel: socket.socket, seconds: float) -> dict[str, Any]:
    """Return how a child ended; kill it when its time is over or nobody waits any more."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(channel, select.POLLIN | select.POLLHUP)
    ready = {each for each, _ in poll.poll(1000 * PATIENCE * seconds)}
    os.close(ended)
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    late = not ready or code == -signal.SIGXCPU
    return {"late": late, "code": code, "peak_bytes": usage.ru_maxrss * 1024}


def _work(request: dict[str, Any], reply: int, out: int) -> None:
    """Do what a request asks and leave the process."""
    answer: dict[str, Any]
    try:
        _limit(request["seconds"], request["memory"])
        function = resolve(request["function"])
        answer = {"value": function(*request["arguments"], f"/proc/self/fd/{out}")}
    except DistillcError as error:
        answer = {"exhausted": True} if _is_exhausted(error) else {"error": _parts(error)}
    except BaseException as error:
        answer = {"exhausted": True} if _is_exhausted(error) else {"failure": named_reason(error)}
    with contextlib.suppress(BaseException), open(reply, "w") as stream:
        json.dump(answer, stream)
        stream.flush()
        os._exit(0)
    os._exit(1)


def _limit(seconds: float, memory: int) -> None:
    """Bound the time of this process, what it may add to its memory, and the files it writes.

    Processor time, for a machine may be busy. On few cores, which would spend it waiting.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, random.sample(sorted(cores), min(CORES, len(cores))))
    time = math.ceil(CORES * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (time, time + 1))
    with open("/proc/self/status") as stream:
        (now,) = (int(line.split()[1]) * 1024 for line in stream if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _is_exhausted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(each in str(error) for each in EXHAUSTED):
            return True
        error = error.__cause__
    return False


def _parts(error: DistillcError) -> list[str | None]:
    return [type(error).__name__, error.what, error.where, error.hint]


if __name__ == "__main__":
    gc.disable()  # an import makes no cycles worth looking for
    import torch  # noqa: F401 - once, not in every child

    gc.enable()
    serve(socket.socket(fileno=int(sys.argv[1])))
