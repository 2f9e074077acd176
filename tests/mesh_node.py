"""A node of a local backplane in a process of its own, for the tests that stop and kill one.

    python mesh_node.py FOLDER ID CHANNEL...

Says "ready" once it has started.  Counts what comes, and publishes the count on ``count`` for each message on ``ask``;
a message on ``join`` or ``leave`` names a channel.
"""

from __future__ import annotations

import asyncio
import sys

from polysock.backplane_local import LocalBackplane


async def main(folder: str, node_id: str, channels: list[str]) -> None:
    backplane = LocalBackplane(folder)
    count = 0

    def receive(channel: str, data: bytes) -> None:
        nonlocal count
        if channel == "ask":
            backplane.publish("count", b"%d" % count)
        elif channel == "join":
            backplane.subscribe(data.decode())
        elif channel == "leave":
            backplane.unsubscribe(data.decode())
        else:
            count += 1

    for channel in ("ask", "join", "leave", *channels):
        backplane.subscribe(channel)
    await backplane.start(node_id, receive)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
