import asyncio
import os

from tornado.web import Application, StaticFileHandler

import polysock

io = polysock.Server()


@io.on("connection")
def connected(socket):
    socket.join("lobby")

    @socket.on("say")
    def say(text):
        return io.to("lobby").emit("said", socket.id, text)  # the ack: how many heard it


async def main():
    page = ("/()", StaticFileHandler, {"path": "index.html"})
    Application([*io.routes(), page]).listen(int(os.environ.get("PORT", "8888")), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
