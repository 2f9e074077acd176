"""Several processes on one port: ``workers.run(serve, workers=4, port=8888)`` in an application's own ``main``.

Each worker runs the application's ``serve`` with the listening sockets and a backplane's URL::

    async def serve(worker):
        io = polysock.Server(backplane=worker.backplane)
        application = tornado.web.Application(io.routes())
        await io.start(application)
        server = polysock.HTTPServer(application)
        server.add_sockets(worker.sockets)
        await worker.until_stop()
        server.stop()
        io.close()
        await io.stop()

All workers accept from the same sockets: what waits there is taken by another one when a worker dies, where a socket
for each (SO_REUSEPORT) would cut those clients off.  ``supervisor.py`` is the other side; this one serves.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Literal

from polysock_transports import DEFAULT_LIMITS, StateError

from .settings import SettingError
from .supervisor import READY, Assignment, Supervisor
from .surroundings import has_terminal, tell_service_manager

__all__ = ["MAX_WORKERS", "STOP_S", "Worker", "run"]

log = logging.getLogger("polysock")

#: How long a worker may take to end.  Less than the ten seconds that Docker gives a container.
STOP_S = 8.0
#: Far more than any machine has use for: a slip, such as a port in the wrong place, is refused.
MAX_WORKERS = 1_024
#: Connections that may wait to be accepted; after a restart everybody comes back at once.
BACKLOG_CONNECTIONS = 1_024
#: The sun_path of a Unix socket ends at 104 bytes (BSD, macOS); so much of it is left for the folder.
MAX_FOLDER_BYTES = 64
MAX_PORT = 65_535


class Worker:
    """What ``serve`` gets: this process's part."""

    def __init__(
        self,
        slot: int,
        workers: int,
        sockets: Sequence[socket.socket],
        backplane: str | None,
        ready: Callable[[], None],
    ) -> None:
        self.slot = slot
        """Its number: no two living workers share one.  From 0 to ``workers``, the last only during a restart."""
        self.workers = workers
        """How many there are."""
        self.sockets = list(sockets)
        """Listening, and shared with the other workers: ``HTTPServer.add_sockets(worker.sockets)``."""
        self.backplane = backplane
        """For ``Server(backplane=...)``; None where one process is all there is."""
        # (Requests are still answered after ``HTTPServer.stop()``, which closes the sockets.)
        self.port = _port(sockets)
        """The port of the first socket; 0 for a Unix socket."""
        self._ready: Callable[[], None] | None = ready
        self._stop = asyncio.Event()

    async def until_stop(self) -> None:
        """Say that this worker serves, and wait until it is to end."""
        ready, self._ready = self._ready, None
        if ready is not None and not self._stop.is_set():
            ready()
        await self._stop.wait()

    def stop(self) -> None:
        """Let ``until_stop`` return."""
        self._stop.set()


Serve = Callable[[Worker], Awaitable[None]]
#: As ``asyncio.run``.
RunLoop = Callable[[Coroutine[Any, Any, Any]], Any]


def run(
    serve: Serve,
    *,
    workers: int | Literal["auto"] = 1,
    port: int = 0,
    address: str = "",
    listen: Callable[[], Sequence[socket.socket]] | None = None,
    backplane: str | None = None,
    stop_s: float = STOP_S,
    on_ready: Callable[[int], None] | None = None,
    run_loop: RunLoop = asyncio.run,
) -> None:
    """Run ``await serve(worker)`` in *workers* processes (``"auto"``: one for each core) until SIGTERM or SIGINT.

    They listen on *port* (0: any free one) of *address* (empty: all), or on what *listen* returns, which is called in
    the first process only.  *backplane* is a URL for all of them; without one several workers get a private one on this
    host.  *stop_s*: seconds from the signal until a worker that has not ended is killed.  *on_ready(port)* is called
    once, when all serve.  *run_loop* runs a coroutine in an event loop of its own: ``uvloop.run`` for uvloop's.

    Each worker starts the program's command line anew and comes to this call by the same way; so bind no port and start
    no loop before it.  In a worker it does not return.  In the first process it returns when all have ended, or raises
    SystemExit with code 3 (``supervisor.EXIT_GAVE_UP``) when workers die again and again.  With one worker there is no
    second process.

    SIGHUP replaces the workers one after another, by the code as it is then; with one worker it has no effect.  Where
    systemd started it (``Type=notify``), it is told when all serve, and when they stop.

    Raises SettingError for an argument that makes no sense, OSError where the port cannot be had, StateError inside a
    running loop, or where this program or system has no way to start workers.
    """
    assignment = Assignment.take()
    if assignment is not None:
        _run_assigned(serve, assignment, run_loop)
        raise SystemExit(0)
    count = _count(workers)
    if backplane is None and count > DEFAULT_LIMITS.max_backplane_nodes:
        # With one more for a moment during a restart, each has as many others as it may.
        raise SettingError(
            f"{count} workers are more than the {DEFAULT_LIMITS.max_backplane_nodes} that find each other without a"
            ' broker: name a backplane="redis://...", or a backplane="unix:///run/myapp" and give each'
            " Server(max_backplane_nodes=...)"
        )
    if isinstance(stop_s, bool) or not isinstance(stop_s, (int, float)) or not 0 < stop_s <= threading.TIMEOUT_MAX:
        most_s = threading.TIMEOUT_MAX
        raise SettingError(f"stop_s must be a number of seconds, more than 0 and at most {most_s:.0f}, not {stop_s!r}")
    if type(port) is not int or not 0 <= port <= MAX_PORT:
        # (The system's resolver would take what is over that for another port.)
        raise SettingError(f"port must be a number from 0 to {MAX_PORT}, not {port!r}")
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise StateError("workers.run() starts its own event loop: call it outside of any other")
    if count > 1:
        _check_that_it_starts_again()
    sockets = list(listen()) if listen is not None else _bind(port, address)
    if not sockets:
        raise SettingError("listen must return at least one listening socket")
    try:

        def ready() -> None:
            if on_ready is not None:
                on_ready(_port(sockets))

        if count == 1:
            run_loop(_serve_alone(serve, sockets, backplane, stop_s, ready))
            return
        with _private_folder() if backplane is None else nullcontext("") as folder:
            code = Supervisor(
                workers=count,
                sockets=sockets,
                backplane=backplane if backplane is not None else f"unix://{folder}",
                folder=folder,
                stop_s=stop_s,
                on_ready=ready,
            ).run()
    finally:
        for each in sockets:
            each.close()
    if code:
        raise SystemExit(code)


def _count(workers: int | str) -> int:
    if workers == "auto":
        # Where the process is bound to some cores, the others are of no use.
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
        raise SettingError(f'workers must be a number from 1 to {MAX_WORKERS}, or "auto", not {workers!r}')
    return workers


def _check_that_it_starts_again() -> None:
    if os.name != "posix":
        raise StateError("more than one worker needs a system with signals and inherited sockets: not this one")
    if not sys.executable or sys.argv[0] in ("", "-"):
        raise StateError("more than one worker needs a program in a file or a module: each starts it anew")


def _port(sockets: Sequence[socket.socket]) -> int:
    name = sockets[0].getsockname()
    return name[1] if isinstance(name, tuple) else 0


# -- one process


async def _serve_alone(
    serve: Serve, sockets: list[socket.socket], backplane: str | None, stop_s: float, ready: Callable[[], None]
) -> None:
    def serves() -> None:
        tell_service_manager("READY=1")
        ready()

    worker = Worker(0, 1, sockets, backplane, serves)
    loop, serving = asyncio.get_running_loop(), asyncio.current_task()
    assert serving is not None
    is_cut_off = is_stopping = False

    def cut_off() -> None:
        nonlocal is_cut_off
        is_cut_off = True
        log.warning("what is served did not end within %g s and is cut off", stop_s)
        serving.cancel()

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            return
        is_stopping = True
        tell_service_manager("STOPPING=1")
        worker.stop()
        loop.call_later(stop_s, cut_off)
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl+C ends it as it ends every Python program

    def hung_up() -> None:
        if had_terminal and not has_terminal():
            stop()  # its window was closed
        elif not is_stopping:
            log.warning("SIGHUP is without effect: only where there is more than one worker are they replaced")

    if os.name == "posix":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        # It would end the program, and ``systemctl reload`` the service.  (``nohup``, or the application, may have seen
        # to that already.)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            had_terminal = has_terminal()
            loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        await serve(worker)
    except asyncio.CancelledError:
        if not is_cut_off:
            raise


# -- a worker


def _leave_it_to_the_supervisor(number: int, frame: object) -> None:
    """Ctrl+C, and the end of a terminal."""


def _run_assigned(serve: Serve, assignment: Assignment, run_loop: RunLoop) -> None:
    # Which ones were held back, see supervisor.py.  (Not SIG_IGN, which all that the application starts would inherit.)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave_it_to_the_supervisor)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
    channel = socket.socket(fileno=assignment.channel)
    sockets = [socket.socket(fileno=number) for number in assignment.sockets]
    for each in (channel, *sockets):
        each.set_inheritable(False)  # not for the processes that the application starts
    for each in sockets:
        each.setblocking(False)
    is_abandoned = run_loop(_serve_assigned(serve, assignment, channel, sockets))
    if is_abandoned and assignment.folder:
        with suppress(OSError):  # the last one of several succeeds
            os.rmdir(assignment.folder)


async def _serve_assigned(
    serve: Serve, assignment: Assignment, channel: socket.socket, sockets: list[socket.socket]
) -> bool:
    """Serve; whether it ended because the supervisor has gone."""
    loop = asyncio.get_running_loop()
    is_abandoned = False

    def ready() -> None:
        with suppress(OSError):  # of a supervisor that has gone, the thread below hears
            channel.sendall(READY)

    worker = Worker(assignment.slot, assignment.workers, sockets, assignment.backplane, ready)
    loop.add_signal_handler(signal.SIGTERM, worker.stop)

    def abandoned() -> None:
        nonlocal is_abandoned
        is_abandoned = True
        if not worker._stop.is_set():
            log.warning("worker %d ends: its supervisor has gone", worker.slot)
            worker.stop()

    def watch() -> None:
        # A thread, since it must also end a process whose loop hangs in a handler: nobody is left to kill it.
        with suppress(OSError):
            while channel.recv(1):
                pass
        with suppress(RuntimeError):  # a loop that was closed just now
            loop.call_soon_threadsafe(abandoned)
        threading.Event().wait(assignment.stop_s)
        os._exit(1)

    threading.Thread(target=watch, name="polysock-supervisor", daemon=True).start()
    await serve(worker)
    return is_abandoned


# -- what the first process makes


def _bind(port: int, address: str) -> list[socket.socket]:
    """Listening sockets on *port* of all that *address* means; with port 0, on one free port.  Raises OSError."""
    sockets: list[socket.socket] = []
    found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            try:
                each = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT:
                    continue  # a system without IPv6 may still have its addresses in its tables
                raise
            sockets.append(each)
            if os.name == "posix":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
            try:
                each.bind((where[0], port or (_port(sockets) if len(sockets) > 1 else 0), *where[2:]))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL or len(found) == 1:
                    raise
                sockets.remove(each)  # "localhost" where IPv6 is known and switched off
                each.close()
                continue
            each.listen(BACKLOG_CONNECTIONS)
            each.setblocking(False)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


@contextmanager
def _private_folder() -> Iterator[str]:
    """A folder for the backplane, which only this user may enter; it goes at the end."""
    base = tempfile.gettempdir()
    # (What a long TMPDIR leaves is too little for the name of a socket.)
    folder = tempfile.mkdtemp(prefix="polysock-", dir=base if len(os.fsencode(base)) <= MAX_FOLDER_BYTES else "/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
