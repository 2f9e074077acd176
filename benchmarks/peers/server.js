// One of the servers on Node under measurement, in a process of its own: node server.js NAME HEARTBEAT_SECONDS.
// The counterpart of ../servers.py: the same application, settings and commands; see there.
'use strict';

const http = require('http');

const RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024;
const BACKLOG = 4096;
const [name, heartbeat] = [process.argv[2], Number(process.argv[3]) * 1000];
const server = http.createServer();
// As long as the servers in Python let a connection be idle; Node's own five seconds would fall into a round.
server.keepAliveTimeout = 3600 * 1000;
server.requestTimeout = 0;

// Each answers { say(text), rooms(count) }.
const applications = {
  'sockjs-node'() {
    const members = new Set();
    const endpoint = require('sockjs').createServer({
      log() {}, prefix: '/bench', heartbeat_delay: heartbeat, response_limit: RESPONSE_LIMIT_BYTES, jsessionid: false,
    });
    endpoint.on('connection', (connection) => {
      members.add(connection);
      connection.on('data', (message) => connection.write(message));
      connection.on('close', () => members.delete(connection));
    });
    endpoint.installHandlers(server);
    return { say(text) { for (const member of members) member.write(text); } };
  },

  'socketio-node'() {
    const { Server } = require('socket.io');
    const io = new Server(server, {
      pingInterval: heartbeat, pingTimeout: 20000, perMessageDeflate: false, httpCompression: false, serveClient: false,
    });
    const sockets = [];
    io.on('connection', (socket) => {
      sockets.push(socket);
      socket.join('hall');
      socket.on('said', (message) => socket.emit('said', message));
      socket.on('disconnect', () => sockets.splice(sockets.indexOf(socket), 1));
    });
    return {
      say(text) { io.to('hall').emit('said', text); },
      rooms(count) { for (let i = 1; i < count; i++) sockets[i % sockets.length].join(`room ${i}`); },
    };
  },

  'ws-node'() {
    const { WebSocketServer } = require('ws');
    const endpoint = new WebSocketServer({ server, path: '/bench', perMessageDeflate: false });
    endpoint.on('connection', (socket) => {
      socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
    });
    return { say(text) { for (const client of endpoint.clients) client.send(text); } };
  },
};

const application = applications[name]();
let unread = '';
process.stdin.setEncoding('ascii');
process.stdin.on('end', () => process.exit(0));
process.stdin.on('data', (data) => {
  const lines = (unread + data).split('\n');
  unread = lines.pop();
  for (const line of lines) {
    const [command, argument] = line.split(' ');
    if (command === 'say') {
      application.say(argument);
    } else {
      if (command === 'rooms') application.rooms(Number(argument));
      else global.gc();
      process.stdout.write('done\n');
    }
  }
});
server.listen(0, '127.0.0.1', BACKLOG, () => process.stdout.write(`${server.address().port}\n`));
