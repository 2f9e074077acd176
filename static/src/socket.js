/* Socket: one namespace, as Socket.IO's clients know it: on, once, off, emit, send, of, disconnect, acks.

   First connection  connecting -> connect
   On loss           disconnect(reason, details) -> reconnecting(delay, attempt, error), once for each attempt
                     -> connecting -> reconnect(transport, attempts) -> connect
   A first connection that fails: connect_failed(error, true if it will be tried again) -> reconnecting -> connecting -> connect */

function Socket(manager, name) {
  var self = this;
  Emitter.call(this);
  this.io = manager;
  this.nsp = this.name = name;
  this.id = null;
  this.connected = false;
  this.disconnected = true;
  /* "volatile" is a reserved word of ES3, hence the brackets. What it emits while offline is dropped. */
  this['volatile'] = { emit: function () {
    if (self.connected) { self.emit.apply(self, arguments); }
    return self;
  } };
  this._wanted = false;
  this._asked = false;              /* is part of the present attempt */
  this._returns = false;            /* was connected and has lost it */
  this._acks = {};
  this._nextId = 0;
  this._buffer = [];
  this._bufferBytes = 0;
  this._limit = manager.options.maxMessageBytes || 0;
}

Socket.prototype = (function () {
  function Surrogate() {}
  Surrogate.prototype = Emitter.prototype;
  return new Surrogate();
}());
Socket.prototype.constructor = Socket;

Socket.prototype.connect = Socket.prototype.open = function () {
  if (!this._wanted) {
    this._wanted = true;
    this.io._join(this);
  }
  return this;
};

/* A deliberate end: there is no coming back but by connect(). */
Socket.prototype.disconnect = Socket.prototype.close = function () {
  var manager = this.io;
  if (!this._wanted) { return this; }
  if (manager._state === 'open') { manager._send({ type: DISCONNECT, nsp: this.nsp }, []); }
  this._leave('io client disconnect', { code: 1000, reason: '', transport: manager.transport });
  manager._closeIfUnused();
  return this;
};

/* Another namespace on the same connection. */
Socket.prototype.of = function (name) {
  return this.io.socket(namespaceName(name)).connect();
};

Socket.prototype.send = function () {
  var args = ['message'], i;
  for (i = 0; i < arguments.length; i += 1) { args.push(arguments[i]); }
  return this.emit.apply(this, args);
};
Socket.prototype.write = Socket.prototype.send;

/* The last argument may be a function: it gets the answer. */
Socket.prototype.emit = function () {
  this._emit(arguments, 0);
  return this;
};

/* socket.timeout(5000).emit('name', value, function (error, answer) {...}) */
Socket.prototype.timeout = function (ms) {
  var self = this;
  return { emit: function () {
    self._emit(arguments, ms);
    return self;
  } };
};

Socket.prototype._emit = function (args, timeout) {
  var data = [], blobs, packet, texts, callback = null, size = 0, longest = 0, bytes, self = this, i;
  for (i = 0; i < args.length; i += 1) { data.push(args[i]); }
  if (isFunction(data[data.length - 1])) { callback = data.pop(); }
  if (typeof data[0] !== 'string' || has(RESERVED, '$' + data[0])) {
    throw new TypeError('an event needs a name that is not reserved; ' + data[0] + ' is none');
  }
  packet = { type: EVENT, nsp: this.nsp, data: data };
  blobs = findBlobs(data, null, 0, []);
  if (blobs.length) {
    packet.data = data = takeBlobs(data);         /* reading must not change what the page gave us */
    blobs = findBlobs(data, null, 0, []);
  }
  if (callback) {
    packet.id = this._nextId;
    this._nextId += 1;
  }
  texts = blobs.length ? null : encodePacket(packet);
  for (i = 0; texts && i < texts.length; i += 1) {
    bytes = utf8Length(texts[i]);
    size += bytes;
    longest = Math.max(longest, bytes);
  }
  if (this._limit && longest > this._limit) {
    this._cannotSend(data[0], 'the message has ' + longest + ' bytes, and the server takes ' + this._limit,
      'send less at a time, or raise max_message_bytes of the server', callback, timeout);
    return;
  }
  if (!this.connected && (this._buffer.length >= this.io.options.bufferMessages || this._bufferBytes + size > this.io.options.bufferBytes)) {
    this._cannotSend(data[0], 'not connected, and the buffer for offline messages is full', 'see bufferMessages and bufferBytes',
      callback, timeout);
    return;
  }
  if (callback) {
    this._acks['$' + packet.id] = { callback: callback, told: Boolean(timeout), timer: timeout ? setTimeout(function () {
      self._failAck(packet.id, failure('waiting for the answer to "' + data[0] + '"', 'none within ' + timeout + ' ms',
        { transport: self.io.transport || undefined }));
    }, timeout) : null };
  }
  if (this.connected) {
    this.io._send(packet, blobs, texts);
  } else {
    this._buffer.push({ packet: packet, blobs: blobs, texts: texts, size: size });
    this._bufferBytes += size;
  }
};

Socket.prototype._cannotSend = function (name, text, hint, callback, timeout) {
  var error = failure('sending "' + name + '"', text, { transport: this.io.transport || undefined, hint: hint });
  this._tell('error', [error]);
  if (callback && timeout) { callOut(callback, this, [error]); }
};

Socket.prototype._failAck = function (id, error) {
  var waiting = this._acks['$' + id], i;
  if (!waiting) { return; }
  delete this._acks['$' + id];
  clearTimeout(waiting.timer);
  /* Nobody waits for it any more: it need not travel. */
  for (i = 0; i < this._buffer.length; i += 1) {
    if (this._buffer[i].packet.id === id) {
      this._bufferBytes -= this._buffer[i].size;
      this._buffer.splice(i, 1);
      break;
    }
  }
  if (waiting.told) { callOut(waiting.callback, this, [error]); }
};

/* Tell the listeners. An error that nobody hears goes to the console. */
Socket.prototype._tell = function (name, args) {
  if (!trigger(this, name, args) && args[0] && args[0].message && /^(error|connect_failed|reconnect_failed)$/.test(name)) {
    warn(name + ': ' + args[0].message);
  }
};

/* -- what the manager tells */

Socket.prototype._sendConnect = function () {
  var self = this, auth = this.io.options.auth, line = this.io._line;
  function send(data) {
    if (self.io._line === line && self._wanted && line.readyState === OPEN) {
      self.io._send({ type: CONNECT, nsp: self.nsp, data: data }, []);
    }
  }
  /* A function is asked at each connection, so that tokens do not go stale. */
  if (isFunction(auth)) { auth(send); } else { send(auth); }
};

Socket.prototype._connected = function (facts) {
  var waiting = this._buffer, manager = this.io, attempts = manager._attempts, returned = this._returns, i;
  if (this.connected) { return; }
  this.id = facts.sid || null;
  // The page may ask for less than the server takes, and never for more.
  if (facts.maxMessage > 0 && !(this._limit > 0 && this._limit < facts.maxMessage)) { this._limit = facts.maxMessage; }
  this.connected = true;
  this.disconnected = this._returns = false;
  this._buffer = [];
  this._bufferBytes = 0;
  /* First, so that what a handler of connect sends does not overtake it. */
  for (i = 0; i < waiting.length; i += 1) { manager._send(waiting[i].packet, waiting[i].blobs, waiting[i].texts); }
  if (returned) { this._tell('reconnect', [manager.transport, attempts]); }
  if (this.connected) { this._tell('connect', []); }
};

Socket.prototype._refused = function (facts) {
  var text = facts && facts.message !== undefined ? String(facts.message) : String(facts), error;
  error = failure('joining the namespace ' + this.nsp, text, {
    transport: this.io.transport || undefined, data: facts && facts.data,
    hint: text === 'Invalid namespace' ? 'look whether the server has it; the path of the URL is the namespace' :
      'the server refused; look at its authorize hook'
  });
  this._wanted = false;
  this._asked = false;
  this._tell(this._returns ? 'reconnect_failed' : 'connect_failed', [error, false]);
  this.io._closeIfUnused();
};

/* This namespace alone is over, deliberately. */
Socket.prototype._leave = function (text, details) {
  var was = this.connected;
  this._wanted = this._asked = this._returns = false;
  this._offline();
  if (was) { this._tell('disconnect', [text, details]); }
};

Socket.prototype._lineLost = function (text, details) {
  this._asked = false;
  if (this.connected) {
    this._returns = true;
    this._offline();
    this._tell('disconnect', [text, details]);
    if (details.code === 1009) { this._tell('error', [details.error]); }
  } else if (!this._returns) {
    this._tell('connect_failed', [details.error, details.returns]);
  }
};

Socket.prototype._gaveUp = function (error, details) {
  if (this._returns && mayReturn(details.code, details.reason)) { this._tell('reconnect_failed', [error]); }
  this._returns = false;
};

/* Answers that were asked for will not come: the server forgets who asked. */
Socket.prototype._offline = function () {
  var id, error = failure('waiting for an answer', 'the connection was lost'), buffered = {}, i;
  this.connected = false;
  this.disconnected = true;
  this.id = null;
  for (i = 0; i < this._buffer.length; i += 1) { buffered['$' + this._buffer[i].packet.id] = true; }
  for (id in this._acks) {
    if (has(this._acks, id) && !buffered[id]) { this._failAck(Number(id.slice(1)), error); }
  }
};

Socket.prototype._event = function (packet) {
  var self = this, args = packet.data.slice(1), name = String(packet.data[0]), answered = false;
  if (!this.connected || has(RESERVED, '$' + name)) { return; }
  if (packet.id !== undefined) {
    args.push(function () {
      var data = [], i;
      if (answered || !self.connected) { return; }
      answered = true;
      for (i = 0; i < arguments.length; i += 1) { data.push(arguments[i]); }
      data = takeBlobs(data);
      self.io._send({ type: ACK, nsp: self.nsp, id: packet.id, data: data }, findBlobs(data, null, 0, []));
    });
  }
  this._tell(name, args);
};

Socket.prototype._answered = function (packet) {
  var waiting = this._acks['$' + packet.id];
  if (!waiting) { return; }
  delete this._acks['$' + packet.id];
  clearTimeout(waiting.timer);
  callOut(waiting.callback, this, waiting.told ? [null].concat(packet.data) : packet.data);
};

function namespaceName(name) {
  name = '/' + String(name || '').replace(/^\/+|\/+$/g, '');
  if (name.indexOf(',') >= 0) { throw failure('naming the namespace ' + name, 'a comma cannot be in it'); }
  return name;
}

/* A copy of arrays and plain objects; everything else as it is. */
function takeBlobs(value) {
  var copy, name, i;
  if (isArray(value)) {
    copy = [];
    for (i = 0; i < value.length; i += 1) { copy.push(takeBlobs(value[i])); }
    return copy;
  }
  if (!value || kindOf(value) !== 'Object' || isFunction(value.toJSON)) { return value; }
  copy = {};
  for (name in value) {
    if (has(value, name)) { copy[name] = takeBlobs(value[name]); }
  }
  return copy;
}
