/*
 * Holds one WebSocket conversation with a library that people use in Node, and tells what happened.
 *
 *     node websocket_client.js ws|websocket URL < PLAN
 *
 * PLAN is JSON: {"protocols": [...], "send": [{"text": ...} | {"binary": base64}], "close": [code, reason] | null}.
 * Sends everything, waits for as many messages, then closes if the plan says so; else the server has to. The one line on
 * standard output is JSON: {"protocol", "extensions", "messages", "close": [code, reason] | null,
 * "error": text | null}.
 * The libraries are found through NODE_PATH; nothing here knows polysock.
 */
'use strict';

var library = process.argv[2];
var url = process.argv[3];
var plan = JSON.parse(require('fs').readFileSync(0, 'utf8'));
var outcome = { protocol: null, extensions: '', messages: [], close: null, error: null };

function finish() {
  console.log(JSON.stringify(outcome));
}

function fail(error) {
  outcome.error = String(error && error.message ? error.message : error);
}

/* Both libraries below are put behind the same three calls: sendText, sendBinary, close. */
function opened(connection, protocol) {
  outcome.protocol = protocol || null;
  plan.send.forEach(function (message) {
    if (message.text !== undefined) {
      connection.sendText(message.text);
    } else {
      connection.sendBinary(Buffer.from(message.binary, 'base64'));
    }
  });
  closeWhenComplete(connection);
}

function received(connection, message) {
  outcome.messages.push(message);
  closeWhenComplete(connection);
}

function closeWhenComplete(connection) {
  if (plan.close && outcome.messages.length === plan.send.length) {
    connection.close(plan.close[0], plan.close[1]);
  }
}

function withWs() {
  var WebSocket = require('ws');
  var socket = new WebSocket(url, plan.protocols);
  var connection = {
    sendText: function (text) { socket.send(text); },
    sendBinary: function (bytes) { socket.send(bytes); },
    close: function (code, reason) { socket.close(code, reason); }
  };
  socket.on('open', function () {
    outcome.extensions = socket.extensions;
    opened(connection, socket.protocol);
  });
  socket.on('message', function (data, isBinary) {
    received(connection, isBinary ? { binary: data.toString('base64') } : { text: data.toString() });
  });
  socket.on('error', fail);
  socket.on('close', function (code, reason) {
    outcome.close = [code, reason.toString()];
    finish();
  });
}

function withWebSocketNode() {
  var WebSocketClient = require('websocket').client;
  var client = new WebSocketClient();
  client.on('connectFailed', function (error) {
    fail(error);
    finish();
  });
  client.on('connect', function (socket) {
    var connection = {
      sendText: function (text) { socket.sendUTF(text); },
      sendBinary: function (bytes) { socket.sendBytes(bytes); },
      close: function (code, reason) { socket.close(code, reason); }
    };
    socket.on('message', function (message) {
      received(connection, message.type === 'binary'
        ? { binary: message.binaryData.toString('base64') }
        : { text: message.utf8Data });
    });
    socket.on('error', fail);
    socket.on('close', function (code, reason) {
      outcome.close = [code, reason];
      finish();
    });
    opened(connection, socket.protocol);
  });
  client.connect(url, plan.protocols);
}

({ ws: withWs, websocket: withWebSocketNode })[library]();
