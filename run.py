"""The demo site: ``python run.py --port=8080``, then look at http://127.0.0.1:8080/ in any browser.

Serves ``static/``, one SockJS echo at ``/echo`` for the transport lab, and one ``polysock.Server`` for the chat, where
polysock.js, Socket.IO's own clients of every generation and bare WebSockets meet.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tornado import autoreload
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.options import define, options
from tornado.web import Application, RequestHandler, StaticFileHandler

from polysock import Connection, Refused, Server, Socket, SockJSRouter
from polysock.client_files import SOCKETIO_GENERATIONS

ROOT = Path(__file__).resolve().parent
STATIC, CLIENTS = ROOT / "static", ROOT / "tests" / "npm" / "node_modules"
# Long enough for a closing handshake with everybody, short enough for somebody who waits at a prompt.
STOP_S = 2
LOOPS = ("auto", "asyncio", "uvloop")
# The chat's limits: what one message, one person, one room and all of them together may be.
LOBBY = "lobby"
NICK_CHARS, ROOM_CHARS, TEXT_CHARS = 20, 24, 500
KEY_CHARS = range(8, 65)
MAX_PEOPLE, MAX_PEOPLE_IN_ROOM, MAX_ROOMS, HISTORY_MESSAGES = 500, 100, 40, 20
RATE_EVENTS, RATE_S = 12, 6.0
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


class Chat:
    """Rooms, names and private messages. All that arrives comes from strangers; what is wrong with it goes back as
    ``{"error": text}``."""

    def __init__(self, io: Server) -> None:
        self.namespace = namespace = io.of("/chat")
        self.people: dict[str, Socket] = {}  # by their names, as folded() writes them
        self.rooms: dict[str, deque[dict[str, Any]]] = {LOBBY: deque(maxlen=HISTORY_MESSAGES)}
        # Beginning at the clock: numbers still rise for a client that comes back after a restart.
        self.numbers = itertools.count(time.time_ns() // 1_000_000)
        namespace.use_event(self.slow_down)
        namespace.on("connection", self.connected)
        namespace.on("disconnect", lambda socket, reason: self.leave(socket))

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

    def enter(self, socket: Socket, wish: Any) -> dict[str, Any]:
        """Come into a room under a name; also to change either. The key, which only the page knows, tells somebody who
        comes back before the old connection was missed from somebody else who wants the name."""
        wish = wish if isinstance(wish, dict) else {}
        nick, room = label(wish.get("nick"), "A name", NICK_CHARS), label(wish.get("room"), "A room", ROOM_CHARS)
        key, holder = wish.get("key"), self.people.get(folded(nick))
        if not isinstance(key, str) or len(key) not in KEY_CHARS:
            raise Refused(400, f"The key must have {KEY_CHARS[0]} to {KEY_CHARS[-1]} characters.")
        if holder not in (None, socket) and holder.data["key"] != key:
            raise Refused(409, f"Somebody here is called {nick} already. Take another name.")
        if room not in self.rooms and len(self.rooms) >= MAX_ROOMS:
            raise Refused(409, "There are too many rooms already. Come into one of them.")
        if len(self.namespace.clients("#" + room)) >= MAX_PEOPLE_IN_ROOM or len(self.people) >= MAX_PEOPLE:
            raise Refused(409, f"{room} is full.")
        history = self.rooms.get(room, deque(maxlen=HISTORY_MESSAGES))
        self.leave(socket)
        if holder not in (None, socket):
            self.leave(holder)
            holder.disconnect(close=True)
        self.rooms[room] = history  # also where the last one in it has just left
        self.people[folded(nick)] = socket
        socket.data.update(nick=nick, room=room, key=key, client=speaker(socket, wish.get("client")))
        socket.join("#" + room)  # an id has no "#", so no room can be called like a person's id
        socket.to("#" + room).emit("joined", member(socket))
        self.tell_rooms()
        people = [member(each) for each in self.namespace.clients("#" + room)]
        return {**member(socket), "room": room, "people": people, "history": list(history), "rooms": self.room_list()}

    def moved(self, socket: Socket) -> dict[str, Any]:
        """The page has another transport now.  It only says that; which one it is, the connection tells."""
        if "room" in socket.data:
            self.namespace.to("#" + socket.data["room"]).emit("moved", member(socket))
        return {"ok": True}

    def leave(self, socket: Socket) -> None:
        room, nick = socket.data.pop("room", None), socket.data.pop("nick", None)
        if room is None:
            return
        del self.people[folded(nick)]
        socket.leave("#" + room)
        if not self.namespace.to("#" + room).emit("left", {"id": socket.id, "nick": nick}) and room != LOBBY:
            del self.rooms[room]  # the last one has left
        self.tell_rooms()

    def say(self, socket: Socket, text: Any) -> dict[str, Any]:
        said = self.message(socket, text)
        self.rooms[socket.data["room"]].append(said)
        self.namespace.to("#" + socket.data["room"]).emit("said", said)
        return {"ok": True}

    def whisper(self, socket: Socket, to: Any, text: Any) -> dict[str, Any]:
        said = self.message(socket, text)
        other = next((each for each in self.people.values() if each.id == to), None)
        if other is None:
            raise Refused(404, "That one has left.")
        for each in {socket, other}:
            each.emit("whispered", {**said, "to": other.id, "toNick": other.data["nick"]})
        return {"ok": True}

    def message(self, socket: Socket, text: Any) -> dict[str, Any]:
        if "room" not in socket.data:
            raise Refused(403, "Come in first.")
        if not isinstance(text, str) or not text.strip() or len(text) > TEXT_CHARS:
            raise Refused(400, f"A message is a text of 1 to {TEXT_CHARS} characters.")
        stamp = {"n": next(self.numbers), "at": time.time_ns() // 1_000_000}
        return {**stamp, "from": socket.id, "nick": socket.data["nick"], "text": text.strip()}

    def room_list(self) -> list[tuple[str, int]]:
        return [(room, len(self.namespace.clients("#" + room))) for room in self.rooms]

    def tell_rooms(self) -> None:
        self.namespace.emit("rooms", self.room_list())


def speaker(socket: Socket, told: Any) -> str:
    possible = SPEAKERS.get(socket.handshake.info.dialect, ("",))
    return told if told in possible else possible[0]


def member(socket: Socket) -> dict[str, Any]:
    transport = socket.transport
    if transport == "polling" and "j" in socket.handshake.query:
        transport = "jsonp"  # Engine.IO has one name for both
    return {"id": socket.id, "nick": socket.data["nick"], "client": socket.data["client"], "transport": transport}


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
    *, debug: bool = False, client_files: Path = CLIENTS, draft76: bool = False, flash: bool = False
) -> tuple[Application, SockJSRouter, Server]:
    """The demo's application, its echo endpoint and the hub of its chat."""
    echo = SockJSRouter(Echo, "/echo", {"draft76": draft76})
    io = Server(client_files=socketio_clients(client_files), draft76=draft76)
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


async def serve() -> None:
    try:
        sockets = bind_sockets(options.port, options.address)
    except OSError as error:
        sys.exit(
            f"Cannot listen on {options.address}:{options.port}: {error.strerror}. "
            "Another program may have the port; try another one: make demo PORT=9000"
        )
    application, echo, io = make_application(
        debug=options.debug,
        client_files=Path(options.client_files),
        draft76=options.draft76,
        flash=options.flash_policy_port > 0,
    )
    server = HTTPServer(application, xheaders=options.xheaders)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    host = "127.0.0.1" if options.address in ("", "0.0.0.0", "::") else options.address
    if options.flash_policy_port > 0:
        # What Flash is loaded from: this server, by the names that it has on its own machine.
        await io.serve_flash_policy(options.flash_policy_port, options.address, domains=[host, "localhost"])
    print(f"polysock demo: http://{f'[{host}]' if ':' in host else host}:{port}/   (Ctrl+C stops it)", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.stop()
    echo.close()
    io.close()
    try:
        await asyncio.wait_for(server.close_all_connections(), STOP_S)
    except asyncio.TimeoutError:
        logging.getLogger("polysock").info("some connections did not close in time")


def runner(loop: str) -> Callable[[Coroutine[Any, Any, None]], None]:
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


def main() -> None:
    options.parse_command_line()
    if options.client_files != str(CLIENTS) and not Path(options.client_files).is_dir():
        sys.exit(f"--client-files: there is no folder {options.client_files}")
    runner(options.loop)(serve())


if __name__ == "__main__":
    main()
