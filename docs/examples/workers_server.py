import asyncio

import tornado.httpserver
import tornado.web

import polysock


async def serve(worker):
    io = polysock.Server(backplane=worker.backplane)

    @io.on("connection")
    def connected(socket):
        socket.on("say", lambda text: io.emit("said", text))

    application = tornado.web.Application(io.routes())
    await io.start(application)
    server = tornado.httpserver.HTTPServer(application)
    server.add_sockets(worker.sockets)
    await worker.until_stop()  # it serves now, until it is told to end
    server.stop()  # the others accept on
    io.close()
    await io.stop()
    await asyncio.sleep(0.5)  # requests that came just before are answered
    await server.close_all_connections()


if __name__ == "__main__":
    polysock.workers.run(serve, workers=4, port=8888)
