"""An adb server whose phones are this machine: what the real adb client talks to in tests.

Speaks the client's side of the protocol (AOSP, packages/modules/adb, `OVERVIEW.TXT`, `SERVICES.TXT`
and `SYNC.TXT`), with no optional features, so shells mix their outputs and return no exit code, as
old phones do.
"""

from __future__ import annotations

import os
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

VERSION = 41
"""The client's protocol; it starts a server of its own where another answers."""


class AdbServer(socketserver.ThreadingTCPServer):
    """Serves on a free port, `server_address[1]`.

    Args:
        phones: Serial -> state, as `adb devices` shows them.
        command: Makes the words that run a shell's command.
        folder: Of programs that a shell finds first.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, phones: dict[str, str], command: Callable[[str], list[str]], folder: Path
    ) -> None:
        self.phones = phones
        self.command = command
        self.environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        super().__init__(("127.0.0.1", 0), _Client)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Client(socketserver.BaseRequestHandler):
    server: AdbServer
    request: socket.socket

    def handle(self) -> None:
        while (text := self._request()) is not None:
            if not self._answer(text):
                return

    def _answer(self, text: str) -> bool:
        """Answer a request; say whether the connection goes on."""
        send, phones = self.request.sendall, self.server.phones
        if text == "host:version":
            send(b"OKAY" + _framed(f"{VERSION:04x}"))
        elif text == "host:devices":
            rows = "".join(f"{serial}\t{state}\n" for serial, state in phones.items())
            send(b"OKAY" + _framed(rows))
        elif "features" in text:
            send(b"OKAY" + _framed(""))
        elif text.startswith(("host:transport", "host:tport")):
            wanted = text.rpartition(":")[2]
            found = [each for each in phones if wanted in (each, "any", "transport-any")]
            if len(found) != 1 or phones[found[0]] != "device":
                send(b"FAIL" + _framed(f"no device '{wanted}'"))
                return False
            send(b"OKAY" + (struct.pack("<Q", 1) if "tport" in text else b""))
            return True
        elif text.startswith("shell"):
            send(b"OKAY")
            words = self.server.command(text.partition(":")[2])
            self._shell(words)
        elif text == "sync:":
            send(b"OKAY")
            self._sync()
        else:
            send(b"FAIL" + _framed(f"unknown: {text}"))
        return False

    def _shell(self, words: list[str]) -> None:
        """Run a command; what comes from the client is its input until the client is gone."""
        environment, pipe = self.server.environment, subprocess.PIPE
        process = subprocess.Popen(
            words, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT
        )
        given, shown = process.stdin, process.stdout
        assert given is not None
        assert shown is not None

        def feed() -> None:
            with suppress(OSError):
                while data := self.request.recv(65536):
                    given.write(data)
                    given.flush()
            with suppress(OSError):
                given.close()

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        with suppress(OSError):  # the client is gone
            while data := os.read(shown.fileno(), 65536):
                self.request.sendall(data)
        process.wait()
        with suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)
        feeder.join()

    def _sync(self) -> None:
        while head := self._take(8):
            kind, size = head[:4], struct.unpack("<I", head[4:])[0]
            if kind == b"QUIT":
                return
            path = Path(self._take(size).decode().rpartition(",")[0 if kind == b"SEND" else 2])
            if kind == b"STAT":
                known = path.stat() if path.exists() else None
                values = (known.st_mode, known.st_size, int(known.st_mtime)) if known else (0, 0, 0)
                self.request.sendall(b"STAT" + struct.pack("<III", *values))
            elif kind == b"SEND":
                self._receive(path)
            elif kind == b"RECV":
                data = path.read_bytes()
                for start in range(0, len(data), 65536):
                    part = data[start : start + 65536]
                    self.request.sendall(b"DATA" + struct.pack("<I", len(part)) + part)
                self.request.sendall(b"DONE" + bytes(4))

    def _receive(self, path: Path) -> None:
        parts = []
        while True:
            kind, size = self._take(4), struct.unpack("<I", self._take(4))[0]
            if kind == b"DONE":
                break
            parts.append(self._take(size))
        try:
            path.write_bytes(b"".join(parts))
        except OSError as error:
            reason = f"couldn't create file: {error.strerror}".encode()
            self.request.sendall(b"FAIL" + struct.pack("<I", len(reason)) + reason)
        else:
            self.request.sendall(b"OKAY" + bytes(4))

    def _request(self) -> str | None:
        size = self._take(4)
        return self._take(int(size, 16)).decode() if len(size) == 4 else None

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := self.request.recv(size - len(data))):
            data += part
        return data


def _framed(text: str) -> bytes:
    return f"{len(text.encode()):04x}{text}".encode()
