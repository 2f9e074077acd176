"""What is measured, and whom: the lines of the table and the servers of its columns.  Knows nothing of how."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE / ".peers" / "bin" / "python"
#: There once everything is installed.
PEERS_READY = HERE / ".peers" / ".ready"
NODE_MODULES = HERE / "peers" / "node_modules"


@dataclass(frozen=True)
class Peer:
    """A server under measurement."""

    title: str
    language: str
    """What its clients speak: ``sockjs``, ``socketio`` (protocol 5 on Engine.IO 4) or ``raw`` (WebSocket alone)."""
    package: str
    """Whose version is told, and what has to be installed."""
    node: bool = False
    own: bool = False
    """Whether the others are compared with it."""

    def command(self, name: str) -> list[str] | None:
        """How to start it, its arguments apart; None where it is not installed."""
        if self.node:
            installed = which("node") and (NODE_MODULES / self.package).is_dir()
            return ["node", "--expose-gc", str(HERE / "peers" / "server.js"), name] if installed else None
        if self.package == "uvloop" and find_spec("uvloop") is None:
            return None
        ours = self.package in ("polysock", "uvloop")
        python = str(PEERS_PYTHON) if PEERS_READY.exists() and not ours else sys.executable
        if python == sys.executable and self.package == "python-socketio":
            return None
        return [python, "-W", "ignore", str(HERE / "servers.py"), name]


PEERS = {
    "polysock": Peer("polysock, SockJS", "sockjs", "polysock", own=True),
    "polysock-io": Peer("polysock, Socket.IO", "socketio", "polysock", own=True),
    "polysock-uvloop": Peer("polysock, SockJS, on uvloop", "sockjs", "uvloop"),
    "polysock-io-uvloop": Peer("polysock, Socket.IO, on uvloop", "socketio", "uvloop"),
    "polysock-routes": Peer("polysock, SockJS, in Tornado's HTTPServer", "sockjs", "polysock"),
    "polysock-io-routes": Peer("polysock, Socket.IO, in Tornado's HTTPServer", "socketio", "polysock"),
    "sockjs-tornado": Peer("sockjs-tornado", "sockjs", "sockjs-tornado"),
    "tornado": Peer("Tornado WebSocketHandler", "raw", "tornado"),
    "python-socketio": Peer("python-socketio on Tornado", "socketio", "python-socketio"),
    "python-socketio-uvicorn": Peer("python-socketio on uvicorn", "socketio", "python-socketio"),
    "sockjs-node": Peer("sockjs-node", "sockjs", "sockjs", node=True),
    "socketio-node": Peer("Socket.IO on Node", "socketio", "socket.io", node=True),
    "ws-node": Peer("ws on Node", "raw", "ws", node=True),
    "send": Peer("send(2) in a loop, no server", "raw", "tornado"),
}
SOCKJS = ("polysock", "sockjs-tornado", "sockjs-node")
SESSIONS = (
    "polysock",
    "polysock-io",
    "polysock-uvloop",
    "sockjs-tornado",
    "sockjs-node",
    "socketio-node",
    "python-socketio",
)
#: After its first request a connection is the same under either server.
ROUTES = ("polysock-routes", "polysock-io-routes")
CONNECTS = SESSIONS + ROUTES
HEARERS = tuple(name for name in PEERS if name != "python-socketio-uvicorn" and name not in ROUTES)
WEBSOCKETS = tuple(name for name in HEARERS if name != "send")
POLLS = tuple(name for name, peer in PEERS.items() if peer.language != "raw" and name not in ROUTES)


@dataclass(frozen=True)
class Line:
    """One line of the table: *kind* of work over *transport* (``websocket``, ``poll``, or a name of SockJS)."""

    title: str
    kind: str
    transport: str
    clients: int
    peers: tuple[str, ...]
    in_flight: int = 1
    rooms: int = 1
    heartbeat_s: int = 3600
    """Heartbeats belong to no unit of work: none falls into a round."""
    reach: tuple[tuple[str, float], ...] = ()
    """What is aimed at: the cost over that of a peer, at most."""
    growth: tuple[str, float] | None = None
    """The same over our own cost on another line."""

    @property
    def is_fresh(self) -> bool:
        """Whether each round wants a new server, alone: memory counts once, idle clients have to be answered."""
        return self.kind in ("memory", "idle")

    @property
    def unit(self) -> str:
        return {"memory": "KiB", "idle": "% of a core"}.get(self.kind, "us")


LINES = {
    "broadcast": Line(
        "broadcast of 64 bytes to 1,000 WebSockets, a delivery", "broadcast", "websocket", 1000, HEARERS,
        reach=(("sockjs-tornado", 0.25), ("socketio-node", 0.8)),
    ),
    "broadcast-8": Line(
        "the same, 8 broadcasts in flight", "broadcast", "websocket", 1000, HEARERS, in_flight=8,
        reach=(("sockjs-tornado", 0.1), ("socketio-node", 0.4)),
    ),
    "broadcast-5000": Line(
        "broadcast to 5,000 WebSockets, a delivery", "broadcast", "websocket", 5000, HEARERS,
        growth=("broadcast", 1.25),
    ),
    "echo": Line(
        "echo over WebSocket, 50 clients, a message", "echo", "websocket", 50, WEBSOCKETS,
        reach=(("sockjs-tornado", 0.3),),
    ),
    "poll": Line(
        "broadcast to 200 parked polls and their next polls, a delivery", "broadcast", "poll", 200, POLLS,
        reach=(("sockjs-tornado", 0.12), ("socketio-node", 0.75)),
    ),
    **{
        f"stream-{transport}": Line(
            f"broadcast to 300 clients on {transport}, a delivery", "broadcast", transport, 300, SOCKJS,
            reach=(("sockjs-tornado", 0.35), ("sockjs-node", 0.8)),
        )
        for transport in ("xhr_streaming", "htmlfile", "eventsource")
    },
    "memory-websocket": Line(
        "memory of an idle WebSocket client, of 2,000", "memory", "websocket", 2000, SESSIONS,
        reach=(("sockjs-tornado", 0.45),),
    ),
    "memory-poll": Line(
        "memory of a client with a parked poll, of 2,000", "memory", "poll", 2000, SESSIONS,
        reach=(("sockjs-tornado", 0.45),),
    ),
    "connect-websocket": Line(
        "connect, WebSocket to open frame", "connect", "websocket", 1, CONNECTS, reach=(("sockjs-tornado", 0.75),)
    ),
    "connect-poll": Line(
        "connect, poll to open frame", "connect", "poll", 1, CONNECTS, reach=(("sockjs-tornado", 0.75),)
    ),
}  # fmt: skip

P99_MS = 10
LEAST_OVER_MOST = 0.9
"""What an echo aims at beside its cost: how long an answer may take, and how evenly clients are served."""

#: What ``bench.py scaling`` measures; the end of a name is the size.
_SCALED = ("polysock", "polysock-io", "sockjs-tornado", "socketio-node")
_HUBS = ("polysock-io", "socketio-node")
SCALING = {
    **{
        f"fan-out-{size}": Line(
            f"broadcast to {size:,} WebSockets, a delivery", "broadcast", "websocket", size, _SCALED
        )
        for size in (100, 1000, 5000)
    },
    **{
        f"rooms-{rooms}": Line(
            f"emit to a room of 10 where {rooms:,} exist, a delivery", "broadcast", "websocket", 10, _HUBS, rooms=rooms
        )
        for rooms in (1, 100, 10_000)
    },
    "idle-10000": Line(
        "10,000 idle WebSocket sessions, a heartbeat each in 25 s", "idle", "websocket", 10_000, _SCALED, heartbeat_s=25
    ),
}  # fmt: skip
