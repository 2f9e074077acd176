import asyncio
import os

from tornado.web import Application

import polysock


async def serve(worker):
    io = polysock.Server(backplane=worker.backplane)

    @io.on("connection")
    def connected(socket):
        socket.on("say", lambda text: io.emit("said", text))

    application = Application(io.routes())
    await io.start(application)
    server = polysock.HTTPServer(application)
    server.add_sockets(worker.sockets)
    await worker.until_stop()  # this worker serves now, until it is told to end
    server.stop()  # the other workers accept on
    io.close()  # clients are told that this server goes away, and come back to another worker
    await io.stop()
    await asyncio.sleep(0.5)  # requests that came just before are answered
    await server.close_all_connections()


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8888"))
    polysock.workers.run(serve, workers=4, port=port, address="127.0.0.1")
