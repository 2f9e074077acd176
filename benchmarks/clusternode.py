"""A node of a cluster under measurement, in a process of its own: ``python clusternode.py OPTIONS``, see ``--help``.

Whoever connects is in the hall: Socket.IO's clients in a room of the Server, SockJS's as Connections at ``/bench``.
Prints its port, and then obeys lines on its standard input, one after the other; it ends with its input:

    say TEXT        TEXT to everybody in the hall, on all nodes; with --sockjs to the Connections of this one. Answered
                    by nothing else
    nodes           how many other nodes it sees
    count TIMES     ask all nodes so often how many are in the hall; what each answer is where all are the same
    id              its id
    way             how the others pass requests on to it: unix or tcp
    relayed         how many requests it has passed on, WebSockets among them
    beats           how often it has said that it is there
    hello           how many bytes that is
    channels        how many channels it is subscribed to
    rooms COUNT     its first client joins rooms until it is in COUNT beside the hall, one in each turn of the loop;
                    answered "done" when all nodes know
    present         how many rooms the presence knows of
    collect         collect garbage; answered "done"
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import socket
import sys
from typing import Any

from servers import BACKLOG, SOCKJS
from tornado.netutil import bind_sockets
from tornado.web import Application

from polysock import Connection, HTTPServer, Server, SockJSRouter

#: So far apart that none falls into a round.
FAR_S = 3600.0


class Node:
    """The application, and what it does when told."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.io = io = Server(
            **SOCKJS,
            heartbeat_delay=FAR_S,
            backplane=options.backplane,
            cluster_secret="of the benchmark alone",
            relay="127.0.0.1:0" if options.host else None,
            cluster_heartbeat_s=options.beat,
            cluster_timeout_s=max(10 * options.beat, 10.0),
        )
        self._is_sockjs = options.sockjs
        members: set[Any] = set()

        class Bench(Connection):
            def on_open(self, info: Any) -> None:
                members.add(self)

            def on_close(self) -> None:
                members.discard(self)

        self.router = SockJSRouter(Bench, "/bench", {**SOCKJS, "heartbeat_delay": FAR_S}, server=io)
        io.share(self.router)
        self.members = members
        self.sockets: list[Any] = []
        self.beats = self.joined = 0
        self.presence = io.sockets.presence("room *") if options.presence else None

        @io.on("connection")
        def connected(client: Any) -> None:
            self.sockets.append(client)
            client.join("hall")
            client.on("disconnect", lambda *reason: self.sockets.remove(client))

        assert io.cluster is not None
        self.cluster = io.cluster
        self.cluster.on("beat", self._beat)

    def _beat(self) -> None:
        self.beats += 1

    async def start(self) -> int:
        application = Application([*self.io.routes(), *self.router.urls], log_function=lambda handler: None)
        await self.io.start(application)
        sockets = bind_sockets(0, "127.0.0.1", backlog=BACKLOG)
        HTTPServer(application).add_sockets(sockets)
        return sockets[0].getsockname()[1]

    def say(self, text: str) -> None:
        if self._is_sockjs:
            self.router.broadcast(self.members, text)
        else:
            self.io.to("hall").emit("said", text)

    async def obey(self, command: str, argument: str) -> object:
        """What is answered; None for nothing."""
        if command == "say":
            self.say(argument)
            return None
        return await getattr(self, f"answer_{command}")(*argument.split())

    async def answer_nodes(self) -> int:
        return len(self.cluster.nodes)

    async def answer_count(self, times: str) -> str:
        found = [await self.io.to("hall").count() for _ in range(int(times))]
        return str(found[0]) if all(one == found[0] and one.complete for one in found) else "not all the same"

    async def answer_id(self) -> str:
        return self.cluster.id

    async def answer_way(self) -> str:
        own = self.cluster.node
        return "unix" if own.unix and all(node.host == own.host for node in self.cluster.nodes.values()) else "tcp"

    async def answer_relayed(self) -> int:
        relay = self.io._relaying.relay
        return relay.counters["relayed"]

    async def answer_beats(self) -> int:
        return self.beats

    async def answer_hello(self) -> int:
        return len(self.cluster._hello())

    async def answer_channels(self) -> int:
        return len(self.cluster.backplane.channels)

    async def answer_rooms(self, count: str) -> str:
        for number in range(self.joined, int(count)):
            self.sockets[0].join(f"room {number}")
            await asyncio.sleep(0)
        self.joined = int(count)
        await self.cluster.settled()
        return "done"

    async def answer_present(self) -> int:
        return len(self.presence.rooms)

    async def answer_collect(self) -> str:
        gc.collect()
        return "done"


async def main(options: argparse.Namespace) -> None:
    logging.disable(logging.CRITICAL)
    if options.host:
        # Nodes with different names are on different machines, for all they know.
        socket.gethostname = lambda: options.host
    node = Node(options)
    print(await node.start(), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode("ascii").rstrip("\n"):
        answer = await node.obey(*line.partition(" ")[::2])
        if answer is not None:
            print(answer, flush=True)
    await node.io.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A node of a cluster, started by the benchmark.")
    parser.add_argument("backplane")
    parser.add_argument(
        "--host", help="the machine that it takes itself to be on; it takes relayed requests by TCP then"
    )
    parser.add_argument("--beat", type=float, default=FAR_S, help="seconds between two heartbeats of the cluster")
    parser.add_argument("--sockjs", action="store_true", help="speak to Connections")
    parser.add_argument("--presence", action="store_true", help="keep a presence of all rooms but the hall")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(parser.parse_args()))
