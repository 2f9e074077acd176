/*
 * Holds one conversation with sockjs-client under Node, and tells what happened.
 *
 *     node sockjs_client.js URL TRANSPORT < PLAN
 *
 * PLAN is JSON: {"send": [text, ...], "expect": count, "close": [code, reason] | null}. Sends everything on open, waits for
 * as many messages, then closes if the plan says so; else the server has to. The one line on standard output is JSON:
 * {"events": ["open", "message", ...], "messages", "transport", "close": {"code", "reason", "wasClean"}}.
 * sockjs-client is found through NODE_PATH; nothing here knows polysock.
 */
'use strict';

var SockJS = require('sockjs-client');

// By itself it gives a transport a few of the round trips that it has measured: less than a busy machine may take.
var OPEN_MS = 10000;

var plan = JSON.parse(require('fs').readFileSync(0, 'utf8'));
var outcome = { events: [], messages: [], transport: null, close: null };
var socket = new SockJS(process.argv[2], null, { transports: [process.argv[3]], timeout: OPEN_MS });

function closeWhenComplete() {
  if (plan.close && outcome.messages.length === plan.expect) {
    socket.close(plan.close[0], plan.close[1]);
  }
}

socket.onopen = function () {
  outcome.events.push('open');
  outcome.transport = socket.transport;
  plan.send.forEach(function (text) { socket.send(text); });
  closeWhenComplete();
};

socket.onmessage = function (event) {
  if (outcome.events[outcome.events.length - 1] !== 'message') {
    outcome.events.push('message');
  }
  outcome.messages.push(event.data);
  closeWhenComplete();
};

socket.onclose = function (event) {
  outcome.events.push('close');
  outcome.close = { code: event.code, reason: event.reason, wasClean: event.wasClean };
  console.log(JSON.stringify(outcome));
};
