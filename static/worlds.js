/* Two worlds: two chats (chat.html in frames), one on JSONP and one on WebSocket, that talk to each other.
   ECMAScript 3 throughout; knows of the chat what window.polychat of a frame offers. */
(function () {
  var READ_MS = 900, LOOK_MS = 50;
  /* Where there is no WebSocket the new world takes the next best, and the page says so. */
  var NEW_WORLD = 'websocket,xhr-streaming,eventsource,htmlfile,xhr-polling,jsonp-polling';
  var LINES = {
    old: [
      'Hello? I only have script tags. Can anybody hear me?',
      'What is a WebSocket?',
      'I ask again after every answer. It keeps me young.',
      'I put a form into an invisible frame. Do not tell anybody.',
      'Will you still talk to me tomorrow?'
    ],
    now: [
      'Loud and clear! I came over a WebSocket.',
      'Like your polling, but I only had to ask once.',
      'And how do you speak?',
      'Elegant! In its way.',
      'As long as there is a room. \u2665'
    ]
  };
  var sides, room, talking = false, started = false;

  function byId(id) {
    return document.getElementById(id);
  }

  function setText(id, text) {
    var node = byId(id);
    while (node.firstChild) { node.removeChild(node.firstChild); }
    node.appendChild(document.createTextNode(text));
  }

  function now() {
    return new Date().getTime();
  }

  function side(name, frame, label, nick) {
    return { name: name, frame: byId(frame), label: label, nick: nick, next: 0, inside: false, sentAt: 0, requests: 0, id: null };
  }

  function other(one) {
    return one === sides.old ? sides.now : sides.old;
  }

  function chatOf(one) {
    try { return one.frame.contentWindow.polychat || null; } catch (e) { return null; }
  }

  function sendFrom(one) {
    var text = LINES[one.name][one.next % LINES[one.name].length];
    if (!one.inside) { return; }
    one.next += 1;
    one.sentAt = now();
    chatOf(one).say(text);
  }

  /* A message has arrived at this side. */
  function heard(one, said) {
    var from = other(one), took;
    if (said.from !== from.id) { return; }
    if (from.sentAt) {
      took = now() - from.sentAt;
      from.sentAt = 0;
      setText('verdict-line', 'From the ' + from.label + ' world to the ' + one.label + ' in ' + took + ' ms. Requests so far: ' +
        sides.old.requests + ' in the old world, ' + sides.now.requests + ' in the new.');
    }
    if (talking) {
      if (one.next >= LINES[one.name].length && from.next >= LINES[from.name].length) { stop(); return; }
      setTimeout(function () { if (talking) { sendFrom(one); } }, READ_MS);
    }
  }

  function stop() {
    talking = false;
    setText('talk-both', 'Let them talk again');
  }

  function talk() {
    if (talking) { stop(); return; }
    if (!sides.old.inside || !sides.now.inside) { return; }
    talking = true;
    setText('talk-both', 'Enough');
    sides.old.next = sides.now.next = 0;
    sendFrom(sides.old);
  }

  function entered(one, me) {
    one.inside = true;
    one.id = me.id;
    if (one === sides.now && me.transport !== 'websocket') {
      setText('new-how', 'This browser has no WebSocket that works, so this side took the best it has: ' + chatOf(one).transport() + '.');
    }
    if (sides.old.inside && sides.now.inside && !started) {
      started = true;
      setText('verdict-line', 'Both are in. Let one of them speak.');
    }
  }

  function listen(one) {
    /* A frame's script may run long after its load event, and not every old browser tells of that event. */
    var chat = chatOf(one);
    if (!chat) { setTimeout(function () { listen(one); }, LOOK_MS); return; }
    chat.onevent = function (what, value) {
      if (what === 'traffic') { one.requests = value; }
      if (what === 'entered') { entered(one, value); }
      if (what === 'heard') { heard(one, value); }
    };
    if (chat.me()) { entered(one, chat.me()); }
  }

  function open(one, transport, extra) {
    one.frame.src = '/chat.html?compact=1&wire=1&transport=' + transport + '&room=' + encodeURIComponent(room) + '&nick=' +
      encodeURIComponent(one.nick) + (extra || '');
    listen(one);
  }

  function start() {
    var number = String(Math.random()).slice(2, 7);
    room = 'two worlds ' + number;
    sides = { old: side('old', 'old-frame', 'old', 'Old-timer ' + number), now: side('now', 'new-frame', 'new', 'Newcomer ' + number) };
    byId('worlds').style.display = 'block';
    byId('join').href = '/chat.html?room=' + encodeURIComponent(room);
    byId('old-send').onclick = function () { sendFrom(sides.old); };
    byId('new-send').onclick = function () { sendFrom(sides.now); };
    byId('talk-both').onclick = talk;
    open(sides.old, 'jsonp-polling', '&look=old');
    open(sides.now, NEW_WORLD);
  }

  window.onload = function () { setTimeout(start, 0); };
}());
