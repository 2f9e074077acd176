"""The demo site: ``python run.py --port=8080``, then look at http://127.0.0.1:8080/ in any browser.

Serves ``static/``, one SockJS echo at ``/echo`` for the transport lab, and one ``polysock.Server`` for the chat, where
polysock.js, Socket.IO's own clients of every generation and bare WebSockets meet.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tornado import autoreload
from tornado.netutil import bind_sockets
from tornado.options import Error, define, options
from tornado.web import Application, RequestHandler, StaticFileHandler

from polysock import (
    BackplaneDown,
    Connection,
    HTTPServer,
    Refused,
    Server,
    SettingError,
    Socket,
    SockJSRouter,
    Worker,
    workers,
)
from polysock.client_files import SOCKETIO_GENERATIONS

ROOT = Path(__file__).resolve().parent
STATIC, CLIENTS = ROOT / "static", ROOT / "tests" / "npm" / "node_modules"
# Long enough for a closing handshake with everybody, short enough for somebody who waits at a prompt.
STOP_S = 2
LOOPS = ("auto", "asyncio", "uvloop")
PORTS = range(65_536)
# The chat's limits: what one message, one person, one room and all of them together may be.
LOBBY = "lobby"
NICK_CHARS, ROOM_CHARS, TEXT_CHARS = 20, 24, 500
KEY_CHARS = range(8, 65)
MAX_PEOPLE, MAX_PEOPLE_IN_ROOM, MAX_ROOMS, HISTORY_MESSAGES = 500, 100, 40, 20
RATE_EVENTS, RATE_S = 12, 6.0
# How long a name is kept for somebody who asks all workers for it.
CLAIM_S = 10.0
# How long requests that came just before a worker's end have to be answered.
LINGER_S = 0.3
#: The language of a connection -> what speaks it.  Of two generations that speak the same the page says which it is.
SPEAKERS = {
    "sockjs": ("polysock.js",),
    "plain": ("no library",),
    "engineio4": ("Socket.IO 4", "Socket.IO 3"),
    "engineio3": ("Socket.IO 2", "Socket.IO 1"),
    "socketio09": ("Socket.IO 0.9",),
}

define("port", default=8080, type=int, help="port to listen on; 0 picks a free one")
define("address", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
define("debug", default=False, type=bool, help="restart when a source file changes, log every request")
define("xheaders", default=False, type=bool, help="believe X-Forwarded-For and X-Scheme of a proxy in front")
define("client-files", default=str(CLIENTS), help="folder that holds socket.io-client-0.9, socket.io-client-1 ... 4")
define("workers", default="1", help='processes on the port; "auto" for one on each core')
define(
    "backplane",
    default="",
    help="redis://host:6379 joins the processes of several hosts; one with a password is better kept in the "
    "environment: POLYSOCK_BACKPLANE",
)
define(
    "relay",
    default="",
    help="with --backplane, an address of this host that the others can call: 10.0.0.5:7000; "
    "the workers listen at this port and those after it",
)
define("secret", default="", help="what all hosts know, for --relay; better kept in the environment: POLYSOCK_SECRET")
define("draft76", default=False, type=bool, help="take the WebSockets of Safari 5, Opera 11 and PhantomJS 1.x too")
define("loop", default="auto", help="event loop: asyncio, uvloop, or auto, which is uvloop where it is installed")
define(
    "flash-policy-port",
    default=0,
    type=int,
    help="offer Flash sockets to Socket.IO 0.9, with their policy there: 10843",
)


class Echo(Connection):
    """Sends back what it gets."""

    def on_message(self, message: str | bytes) -> None:
        self.send(message, binary=isinstance(message, bytes))


#: Somebody in the chat, on whichever worker: id, nick, client, transport, room, node.
Person = dict[str, Any]


class Chat:
    """Rooms, names and private messages. All that arrives comes from strangers; what is wrong with it goes back as
    ``{"error": text}``.

    Every worker knows everybody and every room's last messages: what happens to a person is told to all workers, and
    each tells its own clients. Only a name is asked for, since it must not be given twice.
    """

    def __init__(self, io: Server) -> None:
        self.namespace = namespace = io.of("/chat")
        self.people: dict[str, Person] = {}  # by their ids
        self.names: dict[str, str] = {}  # as folded() writes them, to ids
        self.claims: dict[str, tuple[str, float]] = {}  # names that somebody is about to have: to ids, and until when
        self.rooms: dict[str, deque[dict[str, Any]]] = {LOBBY: deque(maxlen=HISTORY_MESSAGES)}
        self.last_number = 0
        namespace.use_event(self.slow_down)
        namespace.on("connection", self.connected)
        namespace.on("disconnect", lambda socket, reason: self.leave(socket))
        self.happenings = {
            "came": self.came,
            "went": self.went,
            "moved": self.has_moved,
            "said": self.was_said,
            "unclaimed": self.unclaimed,
        }
        for event, function in self.happenings.items():
            namespace.on_server(event, function)
        namespace.on_server("claim", self.may_have)
        namespace.on_server("state", self.state)
        self.cluster = io.cluster
        if self.cluster is not None:
            self.cluster.on("node_joined", lambda node: self.catch_up())
            self.cluster.on("node_left", lambda node, why: self.forget(node.id))
            self.cluster.on("backplane_changed", lambda is_up: self.catch_up() if is_up else None)

    def connected(self, socket: Socket) -> None:
        socket.data["times"] = deque(maxlen=RATE_EVENTS)
        # Strangers also choose how many arguments they send.
        socket.on("enter", lambda wish=None, *_: self.enter(socket, wish))
        socket.on("say", lambda text=None, *_: self.say(socket, text))
        socket.on("whisper", lambda to=None, text=None, *_: self.whisper(socket, to, text))
        socket.on("moved", lambda *_: self.moved(socket))
        socket.on("leave", lambda *_: self.leave(socket))

    def slow_down(self, socket: Socket, event: str, args: list[Any]) -> None:
        times, now = socket.data["times"], time.monotonic()
        if len(times) == RATE_EVENTS and now - times[0] < RATE_S:
            raise Refused(429, f"Not so fast: at most {RATE_EVENTS} messages in {RATE_S:.0f} seconds.")
        times.append(now)

    # -- what clients ask for

    async def enter(self, socket: Socket, wish: Any) -> dict[str, Any]:
        """Come into a room under a name; also to change either. The key, which only the page knows, tells somebody who
        comes back before the old connection was missed from somebody else who wants the name."""
        wish = wish if isinstance(wish, dict) else {}
        nick, room = label(wish.get("nick"), "A name", NICK_CHARS), label(wish.get("room"), "A room", ROOM_CHARS)
        key = wish.get("key")
        if not isinstance(key, str) or len(key) not in KEY_CHARS:
            raise Refused(400, f"The key must have {KEY_CHARS[0]} to {KEY_CHARS[-1]} characters.")
        self.look_for_room(room)
        claim = [folded(nick), key, socket.id]
        # (A worker that does not answer has no say: it is dead, or nobody there could come in either.)
        free = self.may_have(*claim) and all((await self.namespace.server_side_call("claim", *claim)).values())
        try:
            if not free:
                raise Refused(409, f"Somebody here is called {nick} already. Take another name.")
            self.look_for_room(room)  # others came meanwhile
            if socket.is_leaving:
                raise Refused(409, "You have left.")
        except Refused:
            self.everywhere("unclaimed", folded(nick), socket.id)
            raise
        before = self.people.get(socket.id)
        if before is not None:
            socket.leave("#" + before["room"])
        socket.data["key"] = key
        socket.join("#" + room)  # an id has no "#", so no room can be called like a person's id
        client = speaker(socket, wish.get("client"))
        person = {"id": socket.id, "nick": nick, "client": client, "transport": transport_of(socket), "room": room}
        self.everywhere("came", {**person, "node": self.node})
        people = [member(each) for each in self.people.values() if each["room"] == room]
        history = list(self.rooms[room])
        return {**member(person), "room": room, "people": people, "history": history, "rooms": self.room_list()}

    def look_for_room(self, room: str) -> None:
        if room not in self.rooms and len(self.rooms) >= MAX_ROOMS:
            raise Refused(409, "There are too many rooms already. Come into one of them.")
        if self.count(room) >= MAX_PEOPLE_IN_ROOM or len(self.people) >= MAX_PEOPLE:
            raise Refused(409, f"{room} is full.")

    def moved(self, socket: Socket) -> dict[str, Any]:
        """The page has another transport now.  It only says that; which one it is, the connection tells."""
        if socket.id in self.people:
            self.everywhere("moved", socket.id, transport_of(socket))
        return {"ok": True}

    def leave(self, socket: Socket) -> None:
        person = self.people.get(socket.id)
        if person is not None:
            socket.leave("#" + person["room"])
            self.everywhere("went", socket.id)

    def say(self, socket: Socket, text: Any) -> dict[str, Any]:
        said = self.message(socket, text)
        self.everywhere("said", self.people[socket.id]["room"], said)
        return {"ok": True}

    def whisper(self, socket: Socket, to: Any, text: Any) -> dict[str, Any]:
        said = self.message(socket, text)
        other = self.people.get(to) if isinstance(to, str) else None
        if other is None:
            raise Refused(404, "That one has left.")
        for each in {socket.id, other["id"]}:
            self.namespace.socket(each).emit("whispered", {**said, "to": other["id"], "toNick": other["nick"]})
        return {"ok": True}

    def message(self, socket: Socket, text: Any) -> dict[str, Any]:
        if socket.id not in self.people:
            raise Refused(403, "Come in first.")
        if not isinstance(text, str) or not text.strip() or len(text) > TEXT_CHARS:
            raise Refused(400, f"A message is a text of 1 to {TEXT_CHARS} characters.")
        # By the clock: numbers rise for a client that comes back after a restart, or to another worker.
        now = time.time_ns() // 1_000
        self.last_number = max(now, self.last_number + 1)
        stamp = {"n": self.last_number, "at": now // 1_000}
        return {**stamp, "from": socket.id, "nick": self.people[socket.id]["nick"], "text": text.strip()}

    # -- what happens on every worker

    @property
    def node(self) -> str:
        return self.cluster.id if self.cluster is not None else ""

    def everywhere(self, event: str, *values: Any) -> None:
        """Have it happen here, and on the other workers a moment later."""
        self.happenings[event](*values)
        self.namespace.server_side_emit(event, *values)

    def may_have(self, name: str, key: str, socket_id: str) -> bool:
        """Whether this worker knows nobody else who has the name, or is about to."""
        now, holder = time.monotonic(), self.names.get(name, socket_id)
        for old in [each for each, (_, until) in self.claims.items() if until < now]:
            del self.claims[old]
        if self.claims.get(name, (socket_id,))[0] != socket_id or len(self.claims) >= MAX_PEOPLE:
            return False
        own = self.namespace.hub.get(holder)
        if holder != socket_id and isinstance(own, Socket) and own.data["key"] != key:
            return False  # (Of the holder on another worker that worker knows the key.)
        self.claims[name] = (socket_id, now + CLAIM_S)
        return True

    def unclaimed(self, name: str, socket_id: str) -> None:
        if self.claims.get(name, ("",))[0] == socket_id:
            del self.claims[name]

    def came(self, person: Person) -> None:
        """Somebody came in, or changed the name or the room, or came back before the old connection was missed."""
        name = folded(person["nick"])
        self.claims.pop(name, None)
        rooms = {self.drop(person["id"])}
        if name in self.names:
            old = self.namespace.hub.get(self.names[name])
            rooms.add(self.drop(self.names[name]))
            if isinstance(old, Socket):
                old.disconnect(close=True)
        self.people[person["id"]], self.names[name] = person, person["id"]
        self.rooms.setdefault(person["room"], deque(maxlen=HISTORY_MESSAGES))
        self.tell(person["room"], "joined", member(person), but=person["id"])
        self.tidy(rooms)

    def went(self, socket_id: str) -> None:
        self.tidy({self.drop(socket_id)})

    def drop(self, socket_id: str) -> str:
        """Nobody of this id is here any more; the room that was left, or empty."""
        person = self.people.pop(socket_id, None)
        if person is None:
            return ""
        if self.names.get(folded(person["nick"])) == socket_id:
            del self.names[folded(person["nick"])]
        self.tell(person["room"], "left", {"id": socket_id, "nick": person["nick"]}, but=socket_id)
        return person["room"]

    def tidy(self, left: set[str]) -> None:
        """Close rooms of those *left* that nobody is in, and tell everybody which there are."""
        for room in left - {LOBBY, ""}:
            if not self.count(room):
                self.rooms.pop(room, None)
        self.namespace.local.emit("rooms", self.room_list())

    def has_moved(self, socket_id: str, transport: str) -> None:
        person = self.people.get(socket_id)
        if person is not None:
            person["transport"] = transport
            self.tell(person["room"], "moved", member(person))

    def was_said(self, room: str, said: dict[str, Any]) -> None:
        self.last_number = max(self.last_number, said["n"])
        if room in self.rooms:
            self.rooms[room].append(said)
            self.tell(room, "said", said)

    def tell(self, room: str, event: str, value: Any, but: str = "") -> None:
        self.namespace.local.to("#" + room).except_(but).emit(event, value)

    def count(self, room: str) -> int:
        return sum(person["room"] == room for person in self.people.values())

    def room_list(self) -> list[tuple[str, int]]:
        counts = Counter(person["room"] for person in self.people.values())
        return [(room, counts[room]) for room in self.rooms]

    # -- workers that come and go

    def state(self) -> dict[str, Any]:
        """What another worker has to know of this one."""
        own = [person for person in self.people.values() if person["node"] == self.node]
        return {"people": own, "rooms": {room: list(history) for room, history in self.rooms.items()}}

    async def catch_up(self) -> None:
        """Learn what the other workers know: this one is new, or one of them is, or they had lost each other."""
        answers = await self.namespace.server_side_call("state")
        for node, state in answers.items():
            there = {person["id"] for person in state["people"]}
            self.forget(node, but=there)
            for person in state["people"]:
                # Of two who took a name while their workers had lost each other, all workers keep the same one.
                is_first = person["id"] <= self.names.get(folded(person["nick"]), person["id"])
                if is_first and person["id"] not in self.people:
                    self.came(person)
            for room, messages in state["rooms"].items():
                if room in self.rooms:
                    known = {said["n"]: said for said in (*messages, *self.rooms[room])}
                    self.rooms[room].extend(known[n] for n in sorted(known)[-HISTORY_MESSAGES:])
                    self.last_number = max(self.last_number, *known, 0)

    def forget(self, node: str, but: Collection[str] = ()) -> None:
        """Those whom that worker had have gone with it."""
        gone = [each["id"] for each in self.people.values() if each["node"] == node and each["id"] not in but]
        self.tidy({self.drop(each) for each in gone})


def speaker(socket: Socket, told: Any) -> str:
    possible = SPEAKERS.get(socket.handshake.info.dialect, ("",))
    return told if told in possible else possible[0]


def transport_of(socket: Socket) -> str:
    # Engine.IO has one name for both.
    return "jsonp" if socket.transport == "polling" and "j" in socket.handshake.query else socket.transport


def member(person: Person) -> dict[str, Any]:
    """What others see of somebody."""
    return {name: person[name] for name in ("id", "nick", "client", "transport")}


def label(value: Any, what: str, limit: int) -> str:
    """A name as people can tell it apart: no control or invisible characters, no white space around."""
    text = " ".join(value.split()) if isinstance(value, str) and len(value) <= 4 * limit else ""
    if not 0 < len(text) <= limit or not text.isprintable():
        raise Refused(400, f"{what} has 1 to {limit} visible characters.")
    return text


def folded(nick: str) -> str:
    """Names that look alike are one name."""
    return unicodedata.normalize("NFKC", nick).casefold()


class Page(StaticFileHandler):
    """The demo's files, always checked for a newer version."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class NotFound(RequestHandler):
    """Everything else."""

    def prepare(self) -> None:
        self.set_status(404)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish("There is nothing here. The demo is at /, its chat at /chat.html, its echo at /echo.\n")


def socketio_clients(folder: Path) -> dict[str, Path]:
    """Generation of Socket.IO -> the folder of its client, of those that *folder* has."""
    folders = {generation: folder / f"socket.io-client-{generation}" for generation in SOCKETIO_GENERATIONS}
    return {generation: path for generation, path in folders.items() if (path / "dist" / "socket.io.js").is_file()}


def make_application(
    *,
    debug: bool = False,
    client_files: Path = CLIENTS,
    draft76: bool = False,
    flash: bool = False,
    cluster: Mapping[str, str | None] = MappingProxyType({}),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Application, SockJSRouter, Server]:
    """The demo's application, its echo endpoint and the hub of its chat; *cluster* as ``cluster_of``, and more
    *settings* of the hub."""
    echo = SockJSRouter(Echo, "/echo", {"draft76": draft76})
    io = Server(client_files=socketio_clients(client_files), draft76=draft76, **cluster, **settings)
    io.share(echo)
    if flash:
        io.set("legacy_transports", ["websocket", "flashsocket", "htmlfile", "xhr-polling", "jsonp-polling"])
    Chat(io)
    application = Application(
        [
            *echo.urls,
            *io.routes(),
            (r"/static/(.*)", Page, {"path": str(STATIC)}),
            (r"/((?:chat|worlds)\.html|)", Page, {"path": str(STATIC), "default_filename": "index.html"}),
            # One page for all; its script looks at the address.
            (r"/chat-(?:0\.9|[1-4])\.html()", Page, {"path": str(STATIC / "chat.html")}),
        ],
        default_handler_class=NotFound,
        # One line for every poll would drown what matters.
        **({} if debug else {"log_function": lambda handler: None}),
    )
    if debug:
        autoreload.start()
    return application, echo, io


def listen() -> list[socket.socket]:
    try:
        return bind_sockets(options.port, options.address)
    except OSError as error:
        other = "Another program may have the port; try another one: --port=9000, or make demo PORT=9000"
        hint = other if error.errno == errno.EADDRINUSE else ""
        sys.exit(f"Cannot listen on {options.address}:{options.port}: {error.strerror}. {hint}".rstrip())


def host_name() -> str:
    return "127.0.0.1" if options.address in ("", "0.0.0.0", "::") else options.address


def say_where(port: int) -> None:
    host = host_name()
    print(f"polysock demo: http://{f'[{host}]' if ':' in host else host}:{port}/   (Ctrl+C stops it)", flush=True)


def relay_of(relay: str, slot: int) -> str:
    """Where the worker in *slot* takes requests of other hosts: each at a port of its own, from that of *relay* on."""
    host, colon, port = relay.rpartition(":")
    return f"{host}{colon}{int(port) + slot}" if port.isdecimal() and int(port) else relay


def cluster_of(backplane: str | None, slot: int) -> dict[str, str | None]:
    """What a worker's Server is told of the others."""
    return {
        "backplane": backplane,
        "relay": relay_of(options.relay, slot) if options.relay else None,
        "cluster_secret": options.secret or os.environ.get("POLYSOCK_SECRET") or None,
    }


async def serve(worker: Worker) -> None:
    application, echo, io = make_application(
        debug=options.debug,
        client_files=Path(options.client_files),
        draft76=options.draft76,
        flash=options.flash_policy_port > 0,
        cluster=cluster_of(worker.backplane, worker.slot),
    )
    try:
        await io.start(application)
    except BackplaneDown as error:
        sys.exit(f"Cannot reach the backplane: {error}")
    except OSError as error:
        where = relay_of(options.relay, worker.slot) or "a Unix socket"
        sys.exit(f"Cannot take requests of other processes at {where}: {error.strerror}.")
    server = HTTPServer(application, xheaders=options.xheaders)
    server.add_sockets(worker.sockets)
    if options.flash_policy_port > 0:
        # What Flash is loaded from: this server, by the names that it has on its own machine.
        domains = [host_name(), "localhost"]
        try:
            await io.serve_flash_policy(options.flash_policy_port, options.address, domains=domains)
        except OSError as error:
            where = f"{options.address}:{options.flash_policy_port}"
            sys.exit(f"Cannot tell Flash players the policy at {where}: {error.strerror}.")
    await worker.until_stop()
    server.stop()
    echo.close()
    io.close()
    await io.stop()
    if worker.workers > 1:
        await asyncio.sleep(LINGER_S)
    await server.close_all_connections()


def runner(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """What runs a coroutine on the event loop of this name."""
    if loop not in LOOPS:
        sys.exit(f"--loop: there are {', '.join(LOOPS)}")
    if loop != "asyncio":
        try:
            import uvloop

            return uvloop.run
        except ImportError:
            if loop == "uvloop":
                sys.exit("--loop: uvloop is not installed here; pip install 'polysock[fast]'")
    return asyncio.run


def read_options() -> None:
    try:
        left_over = options.parse_command_line()
    except (Error, ValueError) as error:
        sys.exit(f"{error}. Options are written --name=value; python run.py --help lists them.")
    if left_over:
        sys.exit(f"{left_over[0]!r} is no option. Options are written --name=value; python run.py --help lists them.")
    for name in ("port", "flash_policy_port"):
        if options[name] not in PORTS:
            # (The system's resolver would take what is over that for another port.)
            sys.exit(f"--{name.replace('_', '-')}: a number from {PORTS[0]} to {PORTS[-1]}, not {options[name]}")


def main() -> None:
    read_options()
    if options.client_files != str(CLIENTS) and not Path(options.client_files).is_dir():
        sys.exit(f"--client-files: there is no folder {options.client_files}")
    run_loop = runner(options.loop)
    count = int(options.workers) if options.workers.isdecimal() else options.workers
    if count != 1 and (options.debug or options.flash_policy_port > 0):
        sys.exit("--debug and --flash-policy-port go with one worker only")
    try:
        # What makes no sense is said once and before anything starts.  (The last slot is only used in a restart.)
        slots = count if isinstance(count, int) else os.cpu_count() or 1
        backplane = options.backplane or os.environ.get("POLYSOCK_BACKPLANE") or None
        Server(**cluster_of(backplane, slots if slots > 1 else 0))
        workers.run(
            serve,
            workers=count,
            listen=listen,
            backplane=backplane,
            stop_s=STOP_S,
            on_ready=say_where,
            run_loop=run_loop,
        )
    except SettingError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
