"""The parent of worker processes: starts them, replaces those that die, passes signals on, and ends last.

A worker is the same command line, started anew, and not a fork.  A fork would copy whatever the program did before
(threads, locks, loops, connections) and could never run newer code; a new start has none of this, needs no function
that can be pickled, and turns SIGHUP into a way to deploy.  ``workers.py`` is the side of the worker and of the
application.  Nothing here knows what a worker serves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any

from .surroundings import has_terminal, tell_service_manager

__all__ = ["EXIT_GAVE_UP", "READY", "WORKER_VARIABLE", "Assignment", "Supervisor", "pause_before"]

log = logging.getLogger("polysock")

#: The environment variable that makes a process a worker.
WORKER_VARIABLE = "POLYSOCK_WORKER"
#: What a worker writes into its channel when it serves.
READY = b"r"
#: The exit code of a supervisor whose workers would not live.
EXIT_GAVE_UP = 3
#: A worker that dies sooner after its start than this died quickly.
SETTLED_S = 10.0
#: So many quick deaths in a row, in one place, are enough.
MAX_QUICK_DEATHS = 5
#: The pause after the first quick death; it doubles with each.
FIRST_PAUSE_S = 0.25
#: A worker that does not serve after this long is killed.
START_S = 60.0

# Ctrl+C and the end of a terminal reach the whole process group; workers hear of them from the supervisor.  Held back
# until the worker takes no notice of them: Python's own answer to SIGINT would end it with a traceback in the middle of
# an import.
_HELD_BACK = (signal.SIGINT, signal.SIGHUP) if os.name == "posix" else ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told at its start."""

    slot: int
    workers: int
    sockets: tuple[int, ...]
    """File numbers of the listening sockets."""
    channel: int
    """File number of the worker's end of a socket pair: it writes ``READY``, and reads the end of the supervisor."""
    inode: int
    """Of the channel: a process that only inherited the variable has no such file."""
    backplane: str
    folder: str
    """Where the backplane's sockets are, if it is to go with the last process; else empty."""
    stop_s: float

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def take() -> Assignment | None:
        """This process's own, once; None where it is no worker."""
        text = os.environ.pop(WORKER_VARIABLE, "")
        if not text:
            return None
        try:
            values = json.loads(text)
            found = Assignment(**{**values, "sockets": tuple(values["sockets"])})
            return found if os.fstat(found.channel).st_ino == found.inode else None
        except (ValueError, TypeError, KeyError, OSError):
            return None


def pause_before(quick_deaths: int) -> float | None:
    """Seconds before the next start in a place where *quick_deaths* workers in a row died quickly; None: no more."""
    if quick_deaths >= MAX_QUICK_DEATHS:
        return None
    return FIRST_PAUSE_S * 2 ** (quick_deaths - 1) if quick_deaths else 0.0


class _Process:
    """One worker."""

    def __init__(self, slot: int, child: subprocess.Popen[bytes], channel: socket.socket, now: float) -> None:
        self.slot = slot
        self.child = child
        self.channel = channel
        self.started_at = now
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()

    def __str__(self) -> str:
        return f"worker {self.slot} (process {self.child.pid})"

    async def starts(self) -> bool:
        """Whether it came to serve, within START_S."""
        either: set[asyncio.Future[Any]] = {self.ready, self.ended}
        await asyncio.wait(either, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        return self.ready.done() and not self.ended.done()

    async def ends(self, timeout_s: float | None = None) -> bool:
        """Whether it ended, within *timeout_s*."""
        # (``ended`` is never awaited itself: a task that is cancelled would cancel it for all.)
        await asyncio.wait({self.ended}, timeout=timeout_s)
        return self.ended.done()


class _Place:
    """Where one worker is wanted."""

    def __init__(self) -> None:
        self.process: _Process | None = None


class Supervisor:
    """Keeps *workers* processes of this command line alive until a signal ends it.

    *sockets*: listening, for all of them.  *on_ready* is called once, when all of them serve.
    """

    def __init__(
        self,
        *,
        workers: int,
        sockets: list[socket.socket],
        backplane: str,
        folder: str,
        stop_s: float,
        on_ready: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._backplane = backplane
        self._folder = folder
        self._stop_s = stop_s
        self._on_ready = on_ready
        self._places = [_Place() for _ in range(workers)]
        self._processes: list[_Process] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_been_ready = False
        self._restarts_wanted = 0
        self._had_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal()

    def run(self) -> int:
        """Return the exit code of the program."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        self._result: asyncio.Future[int] = loop.create_future()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, self._finish, 0)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        for place in self._places:
            self._task(self._keep(place))
        result = await self._result
        tell_service_manager("STOPPING=1")
        for task in self._tasks:
            task.cancel()
        if self._processes:
            log.info("stopping %d worker%s", len(self._processes), "s" * (len(self._processes) > 1))
            await asyncio.gather(*map(self._end, self._processes))
        return result

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled() and finished.exception() is not None:
                log.error("the supervisor of the workers failed", exc_info=finished.exception())
                self._finish(1)

        task.add_done_callback(done)

    # -- signals

    def _finish(self, result: int) -> None:
        if not self._result.done():
            self._result.set_result(result)

    def _interrupted(self) -> None:
        # (A second SIGTERM is none of impatience: some programs send it to a process and then to its group.)
        if self._result.done():
            for process in self._processes:
                process.child.kill()
        self._finish(0)

    def _hung_up(self) -> None:
        if self._result.done():
            return  # a worker that began now would outlive this process
        if self._had_terminal and not has_terminal():
            self._finish(0)  # its window was closed, and nobody could end it by a key any more
            return
        self._restarts_wanted += 1
        if self._restarts_wanted == 1:
            self._task(self._restart())

    def _reap(self) -> None:
        for process in list(self._processes):
            code = process.child.poll()
            if code is not None:
                self._processes.remove(process)
                # Where this process was held up, the word that it served may be unread; without that word a worker that
                # dies at once counts as one that never served, and at the start that is the end of all.
                self._take_word(process)
                process.channel.close()
                process.ended.set_result(code)

    # -- workers

    def _launch(self) -> _Process:
        taken = {process.slot for process in self._processes}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            assignment = Assignment(
                slot=slot,
                workers=len(self._places),
                sockets=tuple(each.fileno() for each in self._sockets),
                channel=theirs.fileno(),
                inode=os.fstat(theirs.fileno()).st_ino,
                backplane=self._backplane,
                folder=self._folder,
                stop_s=self._stop_s,
            )
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
            try:
                child = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]],
                    env={**os.environ, WORKER_VARIABLE: assignment.to_text()},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(assignment.channel, *assignment.sockets),
                )
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        process = _Process(slot, child, ours, loop.time())
        self._processes.append(process)
        loop.add_reader(ours, self._heard, process)
        return process

    def _heard(self, process: _Process) -> None:
        if self._take_word(process):
            self._look_whether_all_serve()

    def _take_word(self, process: _Process) -> bool:
        """Whether *process* says now that it serves."""
        try:
            said = process.channel.recv(len(READY))
        except OSError:
            said = b""
        # It says nothing else; and where it closed its end, its death follows.
        asyncio.get_running_loop().remove_reader(process.channel)
        if said != READY or process.ready.done():
            return False
        process.ready.set_result(None)
        log.info("%s is ready", process)
        return True

    def _look_whether_all_serve(self) -> None:
        if not self._has_been_ready and all(place.process and place.process.ready.done() for place in self._places):
            self._has_been_ready = True
            tell_service_manager("READY=1")
            self._on_ready()

    async def _keep(self, place: _Place) -> None:
        """See to it that there is a worker in *place*."""
        quick_deaths = 0
        while True:
            if place.process is None:
                try:
                    place.process = self._launch()
                except OSError as error:  # no memory, no process, no file number
                    log.error("cannot start a worker: %s", error)
                    quick_deaths += 1
                    if not await self._may_go_on(quick_deaths, "could not be started"):
                        return
                    continue
            process = place.process
            await self._comes_to_serve(process)
            await process.ends()
            if place.process is not process:
                continue  # a restart put another into its place
            place.process = None
            log.warning("%s %s", process, _how_it_ended(process.ended.result()))
            if not self._has_been_ready and not process.ready.done():
                log.error("giving up: a worker ended before it served")
                self._finish(EXIT_GAVE_UP)
                return
            lived_s = asyncio.get_running_loop().time() - process.started_at
            quick_deaths = quick_deaths + 1 if lived_s < SETTLED_S else 0
            if not await self._may_go_on(quick_deaths, f"died within {SETTLED_S:.0f} s of its start"):
                return

    async def _comes_to_serve(self, process: _Process) -> bool:
        """Whether *process* did; it is killed where that takes too long."""
        if await process.starts():
            return True
        if not process.ended.done():
            log.error("%s did not serve within %.0f s and is killed", process, START_S)
            process.child.kill()
        return False

    async def _may_go_on(self, quick_deaths: int, what: str) -> bool:
        """Pause before the next start; False where there shall be none."""
        pause_s = pause_before(quick_deaths)
        if pause_s is None:
            log.error("giving up: %d times in a row a worker %s", quick_deaths, what)
            self._finish(EXIT_GAVE_UP)
            return False
        await asyncio.sleep(pause_s)
        return True

    async def _end(self, process: _Process) -> None:
        """Let *process* drain, and kill it where that takes too long."""
        process.child.terminate()
        if not await process.ends(self._stop_s):
            log.warning("%s did not end within %g s and is killed", process, self._stop_s)
            process.child.kill()
            await process.ends()

    async def _restart(self) -> None:
        """Replace the workers one after another; again where that was asked for meanwhile."""
        while self._restarts_wanted:
            self._restarts_wanted = 1
            log.info("restarting the workers, one after another")
            for place in self._places:
                # The new one first: where newer code does not start, those that serve go on.
                if not await self._replace(place):
                    log.error("the restart is off: a new worker ended before it served; the others go on")
                    break
            else:
                log.info("all workers were restarted")
            self._restarts_wanted -= 1

    async def _replace(self, place: _Place) -> bool:
        try:
            process = self._launch()
        except OSError as error:
            log.error("cannot start a worker: %s", error)
            return False
        if not await self._comes_to_serve(process):
            return False
        old, place.process = place.process, process
        self._look_whether_all_serve()  # (of the old one that might never have come true)
        if old is not None and not old.ended.done():
            log.info("%s replaces %s", process, old)
            await self._end(old)
        return True


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
