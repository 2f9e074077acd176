import asyncio
import os

from tornado.web import Application, StaticFileHandler

import polysock

io = polysock.Server()


@io.on("connection")
def connected(socket):
    socket.join("lobby")
    # What a handler returns is the ack: here, how many heard it.
    socket.on("say", lambda text: io.to("lobby").emit("said", socket.id, text))


async def main():
    page = ("/()", StaticFileHandler, {"path": "index.html"})
    Application([*io.routes(), page]).listen(int(os.environ.get("PORT", "8888")), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
