"""Worker processes on one port: real ones, with real signals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

import polysock
from polysock import supervisor, workers
from support.worker_app import IGNORED

APP = Path(__file__).resolve().parent / "support" / "worker_app.py"
# These end what hangs; what is awaited comes much sooner.
LIMIT_S = 120
STOP_S = 30
READY = r"worker (\d+) \(process (\d+)\) is ready"


class Program:
    """A supervisor and its workers.  They share one pipe for what they say, so its end is the end of them all."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.said: list[str] = []
        self.port = 0
        assert child.stdout is not None
        self._lines = child.stdout

    def until(self, pattern: str) -> re.Match[str]:
        """The next line that matches."""
        for line in self._lines:
            self.said.append(line.rstrip("\n"))
            found = re.search(pattern, line)
            if found:
                return found
        pytest.fail(f"no {pattern!r} in {self.said}")

    def ready(self, count: int) -> dict[int, int]:
        """Slot -> process of the next so many workers that become ready."""
        found = (self.until(READY) for _ in range(count))
        return {int(match[1]): int(match[2]) for match in found}

    def rest(self) -> list[str]:
        """What is said until all processes have ended."""
        last = [line.rstrip("\n") for line in self._lines]
        self.said += last
        return last

    def send(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.send(number)
        self.rest()
        return self.child.wait(LIMIT_S)

    def about(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/about", timeout=LIMIT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def signals_as_usual() -> None:
    """These tests may themselves run under nohup, or in the background of a shell."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def launched(
    mode: str, count: int = 2, *more: str, stop_s: float = STOP_S, env: dict[str, str] | None = None
) -> Iterator[Program]:
    with started([sys.executable, str(APP), mode, str(count), str(stop_s), *more], env) as program:
        yield program


@contextmanager
def started(command: list[str], env: dict[str, str] | None = None) -> Iterator[Program]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=signals_as_usual,  # one call, which takes no lock
        env={**os.environ, **(env or {})},
    ) as child:
        # Whatever hangs is ended, so that no read below waits for ever; the group is this program's own.
        limit = threading.Timer(LIMIT_S, os.killpg, (child.pid, signal.SIGKILL))
        limit.start()
        try:
            yield Program(child)
        finally:
            limit.cancel()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


@contextmanager
def running(mode: str = "well", count: int = 2, *more: str, **options: Any) -> Iterator[tuple[Program, dict[int, int]]]:
    """The program, and its workers' processes by their slots."""
    with launched(mode, count, *more, **options) as program:
        # The line of the port comes from another stream than those of the log: in any order.
        found: dict[int, int] = {}
        while len(found) < count or not program.port:
            match = program.until(f"{READY}|^port (\\d+)")
            if match[3]:
                program.port = int(match[3])
            else:
                found[int(match[1])] = int(match[2])
        yield program, found


@contextmanager
def blocked(program: Program) -> Iterator[int]:
    """One of the workers handles a request and does nothing else; its process."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(("127.0.0.1", program.port)) as busy,
    ):
        listening.settimeout(LIMIT_S)
        busy.sendall(f"GET /hold/{listening.getsockname()[1]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        held, _ = listening.accept()
        with held:
            yield int(held.recv(20))


# -- several processes


def test_workers_answer_on_one_port() -> None:
    with running(count=3) as (program, processes):
        assert sorted(processes) == [0, 1, 2]
        assert len({program.child.pid, *processes.values()}) == 4
        with blocked(program) as first:
            about = program.about()
            assert first in processes.values()
            assert about["pid"] in set(processes.values()) - {first}
        assert processes[about["slot"]] == about["pid"]
        assert (about["workers"], about["port"]) == (3, program.port)
        # What a worker's own children must not take for theirs.
        assert (about["is_marked"], about["inheritable"], about["input"]) == (False, [False], "")
        folder = Path(about["backplane"].removeprefix("unix://"))
        assert folder.stat().st_mode & 0o777 == 0o700
        assert program.end() == 0
        assert not folder.exists()
        assert "INFO stopping 3 workers" in program.said
        assert program.said.count("over") == 1  # what stands after run() is for the first process
        assert [line for line in program.said if not re.match(r"INFO|port|over", line)] == []


def test_a_killed_worker_is_replaced() -> None:
    with running() as (program, processes):
        os.kill(processes[0], signal.SIGKILL)
        program.until(rf"WARNING worker 0 \(process {processes[0]}\) was killed by SIGKILL")
        again = program.ready(1)
        assert list(again) == [0]
        assert again[0] not in processes.values()
        with blocked(program) as one, blocked(program) as other:
            assert {one, other} == {again[0], processes[1]}
        assert program.end() == 0


def test_clients_that_wait_for_workers_that_die_are_served() -> None:
    with running() as (program, processes):
        for process in processes.values():
            os.kill(process, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", program.port), LIMIT_S) as client:
            client.sendall(b"GET /about HTTP/1.1\r\nHost: x\r\n\r\n")
            for process in processes.values():
                os.kill(process, signal.SIGKILL)
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert program.end() == 0


def test_sigterm_drains() -> None:
    with running() as (program, processes):
        clients = [
            websocket.create_connection(f"ws://127.0.0.1:{program.port}/plain/websocket", timeout=LIMIT_S)
            for _ in range(4)
        ]
        try:
            for client in clients:
                assert json.loads(client.recv())[0] == "#connect"
                assert json.loads(client.recv())[1] in processes.values()
            program.send(signal.SIGTERM)
            for client in clients:
                code, data = client.recv_data()
                assert (code, data[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1001).to_bytes(2, "big"))
        finally:
            for client in clients:
                client.shutdown()  # (its close() waits for an answer)
        program.rest()
        assert program.child.wait(LIMIT_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", program.port))


def test_ctrl_c_reaches_all_and_ends_all_without_a_word() -> None:
    with running() as (program, _):
        os.killpg(program.child.pid, signal.SIGINT)
        assert program.rest() == ["INFO stopping 2 workers", "over"]
        assert program.child.wait(LIMIT_S) == 0


def test_ctrl_c_while_workers_start() -> None:
    with launched("well") as program:
        # From the first line on, one is ready and the other may be anywhere.
        program.until(READY)
        os.killpg(program.child.pid, signal.SIGINT)
        assert [line for line in program.rest() if not re.match("INFO|port|over", line)] == []
        assert program.child.wait(LIMIT_S) == 0


def test_a_worker_that_does_not_end_is_killed() -> None:
    with running("deaf", stop_s=0.3) as (program, processes):
        assert program.end() == 0
        for slot, process in processes.items():
            assert f"WARNING worker {slot} (process {process}) did not end within 0.3 s and is killed" in program.said


def test_a_second_ctrl_c_waits_for_nobody() -> None:
    with running("deaf", stop_s=LIMIT_S) as (program, _):
        program.send(signal.SIGINT)
        program.until("stopping")
        program.send(signal.SIGINT)
        assert program.rest() == ["over"]
        assert program.child.wait(LIMIT_S) == 0


def test_the_port_is_known_when_the_sockets_are_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        worker = workers.Worker(0, 1, [listening], None, lambda: None)
    assert worker.port == port


def test_sighup_replaces_the_workers_one_after_another() -> None:
    with running() as (program, old):
        over = threading.Event()
        answers: list[int] = []

        def ask() -> None:
            while not over.is_set():
                answers.append(program.about()["pid"])

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            program.send(signal.SIGHUP)
            program.until("restarting the workers")
            new: dict[int, int] = {}
            for _ in old:
                new.update(program.ready(1))
                program.until("replaces worker")
            program.until("all workers were restarted")
        finally:
            over.set()
            asking.join(LIMIT_S)
        assert not set(new.values()) & set(old.values())
        assert sorted(new) == [0, 2]  # no two that lived at a time had the same number
        assert set(answers) <= {*old.values(), *new.values()}
        with blocked(program) as one, blocked(program) as other:
            assert {one, other} == set(new.values())
        # And once more, asked for twice at once.
        program.send(signal.SIGHUP)
        program.until("all workers were restarted")
        assert program.end() == 0


def test_nothing_is_started_by_who_ends() -> None:
    with running("deaf", stop_s=1) as (program, _):
        program.send(signal.SIGTERM)
        program.until("stopping")
        program.send(signal.SIGHUP)  # as systemd's SendSIGHUP= does
        said = "".join(program.rest())
        assert program.child.wait(LIMIT_S) == 0
        assert "restarting" not in said
        assert "its supervisor has gone" not in said


def test_a_restart_with_broken_code_leaves_the_others_alone(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with running("flagged", 2, str(flag)) as (program, processes):
        flag.touch()
        program.send(signal.SIGHUP)
        program.until("RuntimeError: broken on purpose")
        program.until("ERROR the restart is off")
        with blocked(program) as one, blocked(program) as other:
            assert {one, other} == set(processes.values())
        flag.unlink()
        program.send(signal.SIGHUP)
        program.until("all workers were restarted")
        assert program.end() == 0


@pytest.mark.parametrize("is_blocked", [False, True], ids=["idle", "one hangs in a handler"])
def test_workers_end_with_their_supervisor(is_blocked: bool) -> None:
    with running(stop_s=1 if is_blocked else STOP_S) as (program, _):
        folder = Path(program.about()["backplane"].removeprefix("unix://"))
        if is_blocked:
            with blocked(program):
                program.child.kill()
                assert "its supervisor has gone" in "".join(program.rest())
        else:
            program.child.kill()
            assert "".join(program.rest()).count("its supervisor has gone") == 2
            assert not folder.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", program.port))


def test_workers_that_never_serve_are_given_up_at_once() -> None:
    with launched("early") as program:
        said = program.rest()
        assert program.child.wait(LIMIT_S) == supervisor.EXIT_GAVE_UP == 3
    assert "ERROR giving up: a worker ended before it served" in said
    assert "RuntimeError: broken on purpose" in said
    assert "over" not in said


def test_workers_that_die_again_and_again_are_given_up() -> None:
    with launched("soon") as program:
        said = program.rest()
        assert program.child.wait(LIMIT_S) == supervisor.EXIT_GAVE_UP
    assert "ERROR giving up: 5 times in a row a worker died within 10 s of its start" in said
    assert len([line for line in said if "ended with code 7" in line]) >= supervisor.MAX_QUICK_DEATHS


#: Says that it serves into the channel whose number it is given, and dies.
READY_AND_DEAD = "import os, sys; os.write(int(sys.argv[1]), b'r')"


async def test_a_death_that_is_noticed_first_does_not_unsay_that_the_worker_served() -> None:
    """Held up for a moment, a supervisor finds its workers dead whose last word it has not read."""
    parent = supervisor.Supervisor(workers=1, sockets=[], backplane="", folder="", stop_s=STOP_S, on_ready=lambda: None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        command = [sys.executable, "-c", READY_AND_DEAD, str(theirs.fileno())]
        child = subprocess.Popen(command, pass_fds=[theirs.fileno()])  # noqa: ASYNC220  # no loop is to turn meanwhile
    process = supervisor._Process(0, child, ours, 0.0)
    parent._processes.append(process)
    asyncio.get_running_loop().add_reader(ours, parent._heard, process)
    child.wait(LIMIT_S)
    parent._reap()
    assert process.ended.result() == 0
    assert process.ready.done()
    assert ours.fileno() == -1


def test_pauses_grow_until_there_is_none() -> None:
    pauses = [supervisor.pause_before(count) for count in range(supervisor.MAX_QUICK_DEATHS + 1)]
    assert pauses == [0, 0.25, 0.5, 1, 2, None]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd is to a program: a socket that takes datagrams (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(LIMIT_S)
        yield listening


def test_the_service_manager_is_told(manager: socket.socket) -> None:
    with running(env={"NOTIFY_SOCKET": manager.getsockname()}) as (program, _):
        assert manager.recv(100) == b"READY=1"
        assert program.end() == 0
    assert manager.recv(100) == b"STOPPING=1"


def test_it_is_told_where_a_restart_overtook_the_start(manager: socket.socket, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with launched("second", 2, str(flag), stop_s=0.5, env={"NOTIFY_SOCKET": manager.getsockname()}) as program:
        program.ready(1)  # the other one of the first two never comes to serve
        program.send(signal.SIGHUP)
        program.until("all workers were restarted")
        assert manager.recv(100) == b"READY=1"
        program.end()
    assert any(line.startswith("port ") for line in program.said)


NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

# (What hangs ends, in a session that nobody else knows.)
TERMINAL = f"""
import os, pty, signal, sys
log, (app, *rest) = os.dup(2), sys.argv[1:]
child, terminal = pty.fork()
if not child:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.alarm({LIMIT_S})
    os.dup2(log, 1), os.dup2(log, 2)
    os.execv(sys.executable, [sys.executable, app, *rest])
sys.stdin.readline()
os.close(terminal)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_closed_terminal_ends_it(count: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(APP), "well", str(count), str(STOP_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("port"):
                break
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stderr.read().endswith("over\n")


def test_what_a_worker_starts_may_be_interrupted() -> None:
    usual = subprocess.check_output([sys.executable, "-c", IGNORED], text=True, preexec_fn=signals_as_usual).split()
    with running() as (program, _):
        assert program.about()["ignored_by_children"] == usual
        assert program.end() == 0


# -- one process


def test_one_worker_is_this_process() -> None:
    with launched("well", 1) as program:
        program.port = int(program.until(r"port (\d+)")[1])
        about = program.about()
        assert (about["pid"], about["slot"], about["workers"]) == (program.child.pid, 0, 1)
        assert about["backplane"] is None
        assert program.end() == 0
        assert program.said[-1] == "over"


def test_the_service_manager_is_told_of_one_worker_too(manager: socket.socket) -> None:
    with launched("well", 1, env={"NOTIFY_SOCKET": manager.getsockname()}) as program:
        assert manager.recv(100) == b"READY=1"
        program.until("port")
        assert program.end() == 0
    assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_in_the_abstract_namespace() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0polysock-test-" + os.urandom(8).hex())
        manager.settimeout(LIMIT_S)
        address = manager.getsockname().decode("ascii").replace("\0", "@", 1)
        with launched("well", 1, env={"NOTIFY_SOCKET": address}) as program:
            assert manager.recv(100) == b"READY=1"
            program.until("port")
            assert program.end() == 0


def test_a_service_manager_that_is_not_there(tmp_path: Path) -> None:
    with launched("well", 1, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as program:
        program.until("WARNING cannot tell the service manager READY=1: .*No such file")
        program.until("port")
        assert program.end() == 0


def test_sighup_does_not_end_one_worker() -> None:
    """As ``systemctl reload`` sends it, whatever the number of workers is."""
    with launched("well", 1) as program:
        program.port = int(program.until(r"port (\d+)")[1])
        program.send(signal.SIGHUP)
        program.until("WARNING SIGHUP is without effect: only where there is more than one worker")
        assert program.about()["pid"] == program.child.pid
        assert program.end() == 0
        assert program.said[-1] == "over"


def test_who_ignores_sighup_goes_on_doing_so() -> None:
    """``nohup`` has it ignored; the workers' parent is told nothing then, and says nothing."""
    nohup = [sys.executable, "-c", NOHUP, str(APP), "well", "1", str(STOP_S)]
    with started(nohup) as program:
        program.port = int(program.until(r"port (\d+)")[1])
        program.send(signal.SIGHUP)
        assert program.about()["pid"] == program.child.pid
        assert program.end() == 0
        assert not [line for line in program.said if "SIGHUP" in line]


def test_one_worker_that_does_not_end_is_cut_off() -> None:
    with launched("deaf", 1, stop_s=0.2) as program:
        program.until("port")
        assert program.end(signal.SIGINT) == 0
        assert "WARNING what is served did not end within 0.2 s and is cut off" in program.said


def test_what_one_worker_raises_is_raised() -> None:
    async def serve(worker: workers.Worker) -> None:
        raise LookupError(worker.port)

    with pytest.raises(LookupError):
        workers.run(serve, address="127.0.0.1")


# -- arguments, and what the first process makes


async def never(worker: workers.Worker) -> None:
    raise AssertionError


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", 8080, None])
def test_a_count_that_makes_no_sense(count: Any) -> None:
    with pytest.raises(polysock.SettingError, match="workers must be a number from 1 to 1024"):
        workers.run(never, workers=count)


def nowhere() -> list[socket.socket]:
    """Comes before any process is started: none of hundreds is, whatever is wrong with the count."""
    raise AssertionError


@pytest.mark.parametrize("count", [257, 1024])
def test_more_workers_than_can_know_each_other(count: int) -> None:
    with pytest.raises(polysock.SettingError, match=rf"{count} workers are more than the 256 .*max_backplane_nodes"):
        workers.run(never, workers=count, listen=nowhere)


async def test_as_many_workers_as_can_know_each_other_and_more_on_a_backplane_that_was_named() -> None:
    for count, backplane in ((256, None), (1024, "unix:///nowhere")):
        # What is complained of comes after the count.
        with pytest.raises(polysock.StateError, match="outside of any other"):
            workers.run(never, workers=count, backplane=backplane, listen=nowhere)


@pytest.mark.parametrize("stop_s", [0, -1, True, "1", float("nan"), float("inf"), 1e10])
def test_a_time_that_makes_no_sense(stop_s: Any) -> None:
    with pytest.raises(polysock.SettingError, match="stop_s must be"):
        workers.run(never, stop_s=stop_s)


@pytest.mark.parametrize("port", [-1, 65_536, True, "8888", None])
def test_a_port_that_makes_no_sense(port: Any) -> None:
    with pytest.raises(polysock.SettingError, match="port must be a number from 0 to 65535, not"):
        workers.run(never, port=port, address="127.0.0.1")


def test_nothing_to_listen_on() -> None:
    with pytest.raises(polysock.SettingError, match="listen must return at least one listening socket"):
        workers.run(never, listen=list)


def test_one_is_no_plural() -> None:
    with running() as (program, processes):
        os.kill(processes[0], signal.SIGKILL)
        program.until("was killed by SIGKILL")
        program.end()
    # (Or the next one was quicker than the signal.)
    assert {"INFO stopping 1 worker", "INFO stopping 2 workers"} & set(program.said)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a system that binds processes to cores")
def test_one_for_each_core() -> None:
    assert workers._count("auto") == len(os.sched_getaffinity(0))


async def test_not_inside_a_loop() -> None:
    with pytest.raises(polysock.StateError, match="outside"):
        workers.run(never)


def test_a_program_without_a_file_cannot_be_started_again() -> None:
    program = "from polysock import workers\nworkers.run(None, workers=2)"
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=LIMIT_S)
    assert "StateError: more than one worker needs a program in a file or a module" in done.stderr


def test_a_mark_that_is_not_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's child, which inherits the environment and nothing else, is no worker."""
    with socket.socket() as other:
        mark = {"slot": 0, "workers": 2, "sockets": [], "channel": other.fileno(), "inode": 1, "backplane": ""}
        for text in ("", "x", "[]", "{}", json.dumps(mark), json.dumps({**mark, "folder": "", "stop_s": 1})):
            monkeypatch.setenv(supervisor.WORKER_VARIABLE, text)
            assert supervisor.Assignment.take() is None
            assert supervisor.WORKER_VARIABLE not in os.environ


def test_all_addresses_of_a_name_get_one_port() -> None:
    ports: list[int] = []

    async def serve(worker: workers.Worker) -> None:
        ports.extend(each.getsockname()[1] for each in worker.sockets)
        for each in worker.sockets:
            with socket.create_connection(each.getsockname()[:2], LIMIT_S):
                pass

    workers.run(serve, address="localhost")
    assert len(set(ports)) == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        workers.run(never, port=taken.getsockname()[1], address="127.0.0.1")


def test_sockets_of_the_applications_own(tmp_path: Path) -> None:
    seen: list[int] = []

    def listen() -> list[socket.socket]:
        own = socket.socket(socket.AF_UNIX)
        own.bind(str(tmp_path / "own"))
        own.listen()
        return [own]

    async def serve(worker: workers.Worker) -> None:
        seen.append(worker.port)
        asyncio.get_running_loop().call_soon(worker.stop)
        await worker.until_stop()

    workers.run(serve, listen=listen)
    assert seen == [0]


# -- the example of the documentation


def test_the_example_of_the_documentation() -> None:
    root = APP.parent.parent.parent
    example = root / "docs" / "examples" / "workers_server.py"
    code = example.read_text(encoding="utf-8")
    assert f"```python workers\n{code}```" in (root / "docs" / "deploying.md").read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with started([sys.executable, str(example)], env={"PORT": str(port)}) as program:
        # Once the first process listens, a client waits until a worker takes it.
        assert connects(program, port)
        clients = [
            websocket.create_connection(f"ws://127.0.0.1:{port}/plain/websocket", timeout=LIMIT_S) for _ in range(8)
        ]
        try:
            for client in clients:
                assert json.loads(client.recv())[0] == "#connect"
            for number, client in enumerate(clients):
                client.send(json.dumps(["say", number]))
                while json.loads(client.recv()) != ["said", number]:
                    pass  # what the others said
        finally:
            for client in clients:
                client.shutdown()
        assert program.end() == 0
        assert program.said == []


def connects(program: Program, port: int) -> bool:
    while program.child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        except ConnectionRefusedError:
            continue
    return False
