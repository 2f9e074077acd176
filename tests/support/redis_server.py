"""A real Redis of a test's own: on a free port, in a folder of its own, and nothing of it on disk afterwards."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from support.needs import need_program

__all__ = ["RedisServer"]

ADDRESS = "127.0.0.1"
START_S = 60
STOP_S = 40
# Between picking a free port and listening on it, another program may take it.
TRIES = 3
HOW = "apt-get install redis-server"


class RedisServer:
    """Started when entered; ``stop`` and ``start`` take it away and bring it back at the same port."""

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        """*options*: as on the command line, after those for the port and for keeping nothing."""
        self.folder = folder
        self.options = options
        self.tls = tls
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{ADDRESS}:{self.port}"

    def __enter__(self) -> RedisServer:
        for _ in range(TRIES):
            self.port = free_port()
            if self._begin():
                return self
        raise AssertionError(f"redis-server does not start with {self.options}")

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Be there again."""
        assert self._begin(), "redis-server did not start again"

    def _begin(self) -> bool:
        program = need_program("redis-server", how=HOW)
        # Redis takes its configuration from the working folder for nothing, but writes there what it may write at all.
        ports = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        command = [program, "--bind", ADDRESS, *ports, "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder)
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_S
        said = b""
        while b"Ready to accept connections" not in said:
            assert select.select([self.process.stdout], [], [], deadline - time.monotonic())[0], "it says nothing"
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                self.stop()
                return False
            said += piece
        return True

    def stop(self) -> None:
        """Be gone at once."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait(STOP_S)
            assert process.stdout is not None
            process.stdout.close()

    def pause(self) -> None:
        """Answer nothing more, until ``resume``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> bytes:
        """What it answers to one command, as it is on the wire (the beginning of it, where it is long)."""
        command = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection((ADDRESS, self.port), START_S) as connection:
            connection.sendall(f"*{len(words)}\r\n{command}".encode())
            return connection.recv(1 << 16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port
