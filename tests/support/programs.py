"""Programs that a test starts, watches, stops, kills or freezes, and network namespaces as hosts for them.

Whatever is started here is ended by its process id, and a namespace is deleted with the last that ran in it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.needs import lacking, need_program
from support.redis_server import HOW

__all__ = ["Host", "Program", "ProgramFailed", "joined_hosts", "redis_on"]

START_S = 60.0
STOP_S = 40.0
# Addresses that RFC 2544 keeps for tests of networks: nobody routes them.
NETWORK = "198.18.0"


class ProgramFailed(Exception):
    """A program did not start, or left by itself; the text holds what it wrote."""


@dataclass(frozen=True)
class Host:
    """A network namespace that stands for a machine."""

    namespace: str
    address: str
    device: str

    def set_link(self, state: str) -> None:
        """``up`` or ``down``: the cable between this host and the other one."""
        _ip("-n", self.namespace, "link", "set", self.device, state)


class Program:
    """A running program.  Its standard error goes to the file ``log``."""

    def __init__(
        self,
        arguments: Sequence[str | os.PathLike[str]],
        log: Path,
        *,
        host: Host | None = None,
        sockets: Sequence[socket.socket] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """*sockets* are listening ones that it inherits under their numbers here."""
        where = ["ip", "netns", "exec", host.namespace] if host is not None else []
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*where, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                bufsize=0,  # else ``select`` would not see the lines that were read ahead
                stderr=errors,
                pass_fds=[one.fileno() for one in sockets],
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_line(self) -> str:
        """The next line of its standard output.  Raises ProgramFailed."""
        output = self._process.stdout
        assert output is not None
        if select.select([output], [], [], START_S)[0] and (line := output.readline()):
            return line.decode().rstrip("\n")
        raise ProgramFailed(f"{self._process.args!r} said nothing ({self._process.poll()}):\n{self.written()}")

    def wait_for(self, text: str) -> None:
        """Read its standard output until a line holds *text*.  Raises ProgramFailed."""
        while text not in self.next_line():
            pass

    def written(self) -> str:
        """What is in its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raises ProgramFailed where it has ended."""
        if self._process.poll() is not None:
            raise ProgramFailed(f"{self._process.args!r} left ({self._process.returncode}):\n{self.written()}")

    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def memory_bytes(self) -> int:
        """What it holds of the machine's memory now (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP freezes it, SIGCONT lets it go on."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait(STOP_S)
        self._close()

    def stop(self) -> None:
        """Ask it to stop, where it has not; a frozen one too."""
        if self._process.poll() is None:
            self._process.terminate()
            self.send(signal.SIGCONT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ProgramFailed(f"{self._process.args!r} did not stop:\n{self.written()}") from None
        self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def joined_hosts() -> Iterator[tuple[Host, Host]]:
    """Two namespaces with a cable between them, and nothing else but their own 127.0.0.1.

    A program in one of them can serve a listening socket that was made outside: that is how a test reaches it.
    """
    need_program("ip", how="apt-get install iproute2")
    if os.geteuid() != 0:
        lacking("the right to make network namespaces", "run as root")
    name = f"polysock-{uuid.uuid4().hex[:8]}"
    # A device's name has at most 15 characters.
    hosts = tuple(Host(f"{name}-{end}", f"{NETWORK}.{end}", f"{name[-8:]}-{end}") for end in (1, 2))
    made: list[str] = []
    try:
        for host in hosts:
            try:
                _ip("netns", "add", host.namespace)
            except subprocess.CalledProcessError as error:
                lacking("network namespaces", f"a machine that allows them; here: {error.stderr.decode().strip()}")
            made.append(host.namespace)
        one, other = hosts
        cable = ("type", "veth", "peer", "name", other.device, "netns", other.namespace)
        _ip("-n", one.namespace, "link", "add", one.device, *cable)
        for host in hosts:
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", host.device)
            host.set_link("up")
        yield one, other
    finally:
        for namespace in made:
            _ip("netns", "delete", namespace)


@contextmanager
def redis_on(host: Host, folder: Path) -> Iterator[str]:
    """A Redis on *host*; its URL, for nodes on both."""
    program = need_program("redis-server", how=HOW)
    options = ["--bind", host.address, "--port", "6379", "--dir", folder, "--save", "", "--protected-mode", "no"]
    running = Program([program, *options], folder / "redis.log", host=host)
    try:
        running.wait_for("Ready to accept connections")
        yield f"redis://{host.address}:6379"
    finally:
        running.stop()
