/* Manager: one connection, the namespaces on it, and coming back. Its events are those of its sockets. */

var CONNECT_REPLY_MS = 20000;
var QUICK_LOSSES = 2;             /* a transport that is lost so often before a namespace answered is tried last */

var IO_DEFAULTS = merged(RECONNECTION, {
  path: '/polysock', reconnection: true, autoConnect: true, timeout: CONNECT_REPLY_MS,
  bufferMessages: 1000, bufferBytes: 1000000
});

/* What Socket.IO 0.9 called them. */
var OLD_NAMES = {
  reconnect: 'reconnection', 'reconnection delay': 'reconnectionDelay', 'reconnection limit': 'reconnectionDelayMax',
  'max reconnection attempts': 'reconnectionAttempts', 'auto connect': 'autoConnect', 'connect timeout': 'timeout',
  'force new connection': 'forceNew', resource: 'path'
};

function readOptions(given) {
  var options = merged(given), name;
  for (name in OLD_NAMES) {
    if (has(options, name) && !has(options, OLD_NAMES[name])) { options[OLD_NAMES[name]] = options[name]; }
  }
  delete options.reconnect;         /* PolySock's own, which must not work beside ours */
  options.path = '/' + String(options.path || IO_DEFAULTS.path).replace(/^\/+|\/+$/g, '');
  return merged(options, IO_DEFAULTS);
}

function Manager(address, options) {
  var self = this;
  this.options = options;
  this.url = address.origin + options.path + address.query;
  this.transport = null;
  this._prefix = address.origin + options.path;
  this._sockets = {};
  this._line = null;
  this._state = 'idle';             /* idle, opening, open, waiting */
  this._attempts = 0;
  this._avoid = [];
  this._quick = {};
  this._outbox = [];
  this._timer = null;
  this._replyTimer = null;
  addWindowListener('online', function () {
    self._avoid = [];               /* another network, perhaps */
    if (self._state === 'waiting') { self._retryNow(); }
  });
}

Manager.prototype.socket = function (name) {
  var key = '$' + name;
  if (!has(this._sockets, key)) { this._sockets[key] = new Socket(this, name); }
  return this._sockets[key];
};

/* Those that want to be connected. */
Manager.prototype._active = function () {
  var list = [], key;
  for (key in this._sockets) {
    if (has(this._sockets, key) && this._sockets[key]._wanted) { list.push(this._sockets[key]); }
  }
  return list;
};

Manager.prototype._each = function (work) {
  var list = this._active(), i;
  for (i = 0; i < list.length; i += 1) { work(list[i]); }
};

/* Not at once: whoever asks for a socket has not yet said what to call. Those of one turn share the first attempt. */
Manager.prototype._join = function (socket) {
  var self = this;
  setTimeout(function () {
    if (!socket._wanted || socket._asked) { return; }
    if (self._state === 'idle') {
      self._open();
    } else if (self._state === 'waiting') {
      self._retryNow();
    } else {
      self._announce(socket, self.transport || self._guess());
      if (self._state === 'open' && socket._asked) {
        socket._sendConnect();
        self._watchReply();
      }
    }
  }, 0);
};

Manager.prototype._announce = function (socket, transport) {
  socket._asked = true;
  socket._tell('connecting', [transport]);
};

/* What will be tried first, as far as that can be said before asking /info. */
Manager.prototype._guess = function () {
  var names = transportOrder(this._prefix, merged({ avoid: this._avoid }, this.options)), i;
  for (i = 0; i < names.length; i += 1) {
    if (!ladderStep(names[i]).needs(this._prefix, {})) { return names[i]; }
  }
  return undefined;
};

Manager.prototype._retryNow = function () {
  clearTimeout(this._timer);
  this._open();
};

Manager.prototype._open = function () {
  var self = this, line, guess = this._guess();
  this._state = 'opening';
  this._each(function (socket) { self._announce(socket, guess); });
  if (this._state !== 'opening') { return; }      /* a handler gave up */
  line = this._line = new PolySock(this.url, merged({ avoid: this._avoid }, this.options));
  this._reader = new PacketReader();
  line.onopen = function () {
    if (self._line !== line) { return; }
    self._state = 'open';
    self.transport = line.transport;
    self._each(function (socket) { if (socket._asked) { socket._sendConnect(); } });
    self._watchReply();
  };
  line.onmessage = function (event) {
    if (self._line === line) { self._take(event.data); }
  };
  line.onclose = function (event) {
    if (self._line === line) { self._lost(event.code, event.reason, event.error); }
  };
};

/* The answer to CONNECT is the proof that the transport carries both ways. */
Manager.prototype._watchReply = function () {
  var self = this;
  clearTimeout(this._replyTimer);
  this._replyTimer = setTimeout(function () {
    var waiting = false;
    self._each(function (socket) { waiting = waiting || !socket.connected; });
    if (!waiting || self._state !== 'open') { return; }
    self._blame();
    self._drop(1006, 'No answer', failure('joining a namespace', 'no answer within ' + self.options.timeout + ' ms', {
      transport: self.transport, hint: 'look whether a polysock Server is mounted at ' + self._prefix + ', and for slow authorize hooks'
    }));
  }, this.options.timeout);
};

Manager.prototype._blame = function () {
  if (this.transport && indexOf(this._avoid, this.transport) < 0) { this._avoid.push(this.transport); }
  rememberTransport(this._prefix, null);
};

Manager.prototype._drop = function (code, reason, error) {
  var line = this._line;
  this._line = null;
  if (line) {
    line.onopen = line.onmessage = line.onclose = null;
    line.close();
  }
  this._lost(code, reason, error);
};

Manager.prototype._take = function (text) {
  var packet, socket;
  try {
    packet = this._reader.feed(text);
  } catch (e) {
    this._drop(1002, 'Protocol error', e);
    return;
  }
  if (!packet) { return; }
  socket = has(this._sockets, '$' + packet.nsp) ? this._sockets['$' + packet.nsp] : null;
  if (!socket || !socket._wanted) { return; }
  if (packet.type === CONNECT) {
    this._quick = {};
    socket._connected(packet.data || {});
  } else if (packet.type === CONNECT_ERROR) {
    socket._refused(packet.data);
  } else if (packet.type === DISCONNECT) {
    socket._leave('io server disconnect', { code: 3000, reason: 'The server ended it', transport: this.transport });
    this._closeIfUnused();
  } else if (packet.type === EVENT) {
    socket._event(packet);
  } else if (packet.type === ACK) {
    socket._answered(packet);
  }
};

Manager.prototype._lost = function (code, reason, error) {
  var self = this, transport = this.transport, details, text, attempt, delay, returns;
  var wasOpen = this._state === 'open', list = this._active(), answered = false, i;
  clearTimeout(this._replyTimer);
  clearTimeout(this._timer);
  this._line = null;
  this._outbox = [];
  this._state = 'idle';
  this.transport = null;
  error = error || failure(wasOpen ? 'receiving' : 'connecting to ' + this.url,
    'the server closed the connection with ' + code + (reason ? ' ' + reason : ''), {
      transport: transport || undefined, hint: code === 1009 ? 'look at max_message_bytes of the server' :
        code === 1008 ? 'the server refused this client; look at authorize and "origins"' : undefined
    });
  error.code = code;
    text = code >= 3000 && code < 4000 ? 'io server disconnect' : /heartbeat/.test(error.message) ? 'ping timeout' : 'transport close';
  for (i = 0; i < list.length; i += 1) { answered = answered || list[i].connected; }
  if (wasOpen && !answered) {
    this._quick[transport] = (this._quick[transport] || 0) + 1;
    if (this._quick[transport] >= QUICK_LOSSES) { this.transport = transport; this._blame(); this.transport = null; }
  }
  if (answered) { this._attempts = 0; }
  attempt = this._attempts + 1;
  returns = mayReturn(code, reason) && this.options.reconnection && attempt <= this.options.reconnectionAttempts;
  details = { code: code, reason: reason, transport: transport, error: error, returns: returns };
  for (i = 0; i < list.length; i += 1) {
    if (!returns) { list[i]._wanted = false; }
    list[i]._lineLost(text, details);
  }
  list = returns ? this._active() : list;       /* without those whose handlers left */
  if (this._state !== 'idle') { return; }       /* a handler began anew */
  if (!returns) {
    this._attempts = 0;
    for (i = 0; i < list.length; i += 1) { list[i]._gaveUp(error, details); }
    return;
  }
  if (!list.length) { return; }
  this._attempts = attempt;
  delay = backoffDelay(attempt, this.options, Math.random());
  this._state = 'waiting';
  this._timer = setTimeout(function () { self._open(); }, delay);
  for (i = 0; i < list.length; i += 1) { list[i]._tell('reconnecting', [delay, attempt, error]); }
};

Manager.prototype._closeIfUnused = function () {
  var line = this._line;
  if (this._active().length) { return; }
  clearTimeout(this._timer);
  clearTimeout(this._replyTimer);
  this._state = 'idle';
  this._attempts = 0;
  this._outbox = [];
  this._line = null;
  this.transport = null;
  if (line) {
    line.onopen = line.onmessage = line.onclose = null;
    line.close();
  }
};

/* Blobs are read before their packet goes, and what comes later waits behind it. */
Manager.prototype._send = function (packet, blobs, texts) {
  this._outbox.push({ texts: texts || (blobs.length ? null : encodePacket(packet)), packet: packet, blobs: blobs });
  this._pump();
};

Manager.prototype._pump = function () {
  var self = this, item, i;
  while (this._outbox.length && this._line) {
    item = this._outbox[0];
    if (item.blobs.length) {
      if (!item.reading) {
        item.reading = true;
        readBlob(item.blobs[0][0][item.blobs[0][1]], function (bytes) {
          item.reading = false;
          item.blobs[0][0][item.blobs[0][1]] = bytes;
          item.blobs.shift();
          self._pump();
        });
      }
      return;
    }
    this._outbox.shift();
    item.texts = item.texts || encodePacket(item.packet);
    for (i = 0; i < item.texts.length; i += 1) { this._line.send(item.texts[i]); }
  }
};
