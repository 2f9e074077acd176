/* PolySock: the interface of the W3C's WebSocket, over whatever transport works.

   new PolySock(url[, protocols][, options]); beyond the interface: transport, the name of the one in use; error on close
   and error events. With the option reconnect it goes back to CONNECTING when the connection is lost, after an event
   "reconnecting" {delay, attempt}, and opens again; close then comes only at the end. */

var CONNECTING = 0, OPEN = 1, CLOSING = 2, CLOSED = 3;
var MAX_REASON_BYTES = 123;       /* of a WebSocket close frame */
var STATES = { CONNECTING: CONNECTING, OPEN: OPEN, CLOSING: CLOSING, CLOSED: CLOSED };
var PROTOCOL_TOKEN = /^[!#$%&'*+\-.\^_`|~0-9A-Za-z]+$/;

function domError(name, text) {
  var error = new Error(text), DomException = root.DOMException;
  if (isFunction(DomException)) {
    try { return new DomException(text, name); } catch (e) { /* one that cannot be made by scripts */ }
  }
  error.name = name;
  return error;
}

function checkProtocols(protocols) {
  var list = protocols === undefined || protocols === null ? [] : isArray(protocols) ? protocols : [String(protocols)], i;
  for (i = 0; i < list.length; i += 1) {
    if (!PROTOCOL_TOKEN.test(list[i]) || indexOf(list, list[i]) !== i) {
      throw domError('SyntaxError', 'the subprotocol "' + list[i] + '" is not a name, or there twice');
    }
  }
  return list;
}

function PolySock(url, protocols, options) {
  if (!(this instanceof PolySock)) { return new PolySock(url, protocols, options); }
  beginPolySock(this, url, protocols, options);
}

function beginPolySock(self, url, protocols, options) {
  var address, names;
  if (protocols && typeof protocols === 'object' && !isArray(protocols) && options === undefined) {
    options = protocols;
    protocols = undefined;
  }
  options = merged(options, RECONNECTION);
  try { address = parseUrl(url); } catch (e) { throw domError('SyntaxError', e.message); }
  names = checkProtocols(protocols);
  transportOrder('', options);      /* throws for a name that does not exist */
  self.url = (/^\s*wss?:/i.test(String(url)) ? address.origin.replace(/^http/, 'ws') : address.origin) + address.path + address.query;
  self.protocol = options.protocol && indexOf(names, options.protocol) >= 0 ? options.protocol : '';
  self.extensions = '';
  self.binaryType = 'blob';
  self.bufferedAmount = 0;
  self.readyState = CONNECTING;
  self.transport = null;
  self.onopen = self.onmessage = self.onerror = self.onclose = null;
  self._listeners = {};
  self._attempt = 0;
  self._lateBytes = 0;
  self._address = address;
  self._options = options;
  self._life = {
    suspend: function () { if (self._line) { self._line.drop(); self._gone = true; } },
    resume: function () { if (self._gone) { lineEnded(self, 1006, 'The page was away', false, failure('receiving', 'the page was away')); } }
  };
  watchPage(self._life);
  /* Not at once: whoever made it has not yet said what to call. */
  self._timer = setTimeout(function () { openLine(self); }, 0);
}

function openLine(self) {
  self._gone = false;
  self._line = dial(self._address, self._options, {
    trying: function (name) { tellPolySock(self, 'trying', { transport: name }); },
    opened: function (name) {
      if (self.readyState !== CONNECTING) { return; }
      self.readyState = OPEN;
      self.transport = name;
      self._attempt = 0;
      tellPolySock(self, 'open', {});
    },
    message: function (text) {
      if (self.readyState === OPEN) { tellPolySock(self, 'message', { data: text, origin: self._address.origin, lastEventId: '' }); }
    },
    ended: function (code, reason, clean, error) { lineEnded(self, code, reason, clean, error); }
  });
}

function lineEnded(self, code, reason, clean, error) {
  var options = self._options, delay;
  if (self.readyState === CLOSED) { return; }
  self._line = null;
  self._gone = false;
  if (options.reconnect && self.readyState !== CLOSING && mayReturn(code, reason) && self._attempt < options.reconnectionAttempts) {
    self.readyState = CONNECTING;
    self._attempt += 1;
    delay = backoffDelay(self._attempt, options, Math.random());
    self._timer = setTimeout(function () { openLine(self); }, delay);
    tellPolySock(self, 'reconnecting', { delay: delay, attempt: self._attempt, code: code, reason: reason, error: error });
    return;
  }
  self.readyState = CLOSED;
  unwatchPage(self._life);
  if (error) { tellPolySock(self, 'error', { error: error, message: error.message }); }
  tellPolySock(self, 'close', { code: code, reason: reason, wasClean: clean, error: error });
}

function tellPolySock(self, type, facts) {
  facts.type = type;
  self.dispatchEvent(facts);
}

PolySock.prototype.addEventListener = function (type, listener, options) {
  var list = this._listeners['$' + type] || [], i;
  if (!listener) { return; }
  for (i = 0; i < list.length; i += 1) {
    if (list[i].listener === listener) { return; }
  }
  this._listeners['$' + type] = list.concat([{ listener: listener, once: Boolean(options && options.once) }]);
};

PolySock.prototype.removeEventListener = function (type, listener) {
  var list = this._listeners['$' + type] || [], kept = [], i;
  for (i = 0; i < list.length; i += 1) {
    if (list[i].listener !== listener) { kept.push(list[i]); }
  }
  this._listeners['$' + type] = kept;
};

PolySock.prototype.dispatchEvent = function (event) {
  var list = this._listeners['$' + event.type] || [], i;
  try { event.target = event.currentTarget = event.srcElement = this; } catch (e) { /* a real Event, which has its own */ }
  if (isFunction(this['on' + event.type])) { callOut(this['on' + event.type], this, [event]); }
  for (i = 0; i < list.length; i += 1) {
    if (list[i].once) { this.removeEventListener(event.type, list[i].listener); }
    if (isFunction(list[i].listener)) {
      callOut(list[i].listener, this, [event]);
    } else if (isFunction(list[i].listener.handleEvent)) {
      callOut(list[i].listener.handleEvent, list[i].listener, [event]);
    }
  }
  return true;
};

PolySock.prototype.send = function (data) {
  if (!arguments.length) { throw new TypeError('send() needs the message'); }
  if (isBinary(data)) {
    throw domError('NotSupportedError', 'SockJS carries text only; io() sends binary over it, or encode it yourself');
  }
  data = String(data);
  if (this.readyState === CONNECTING) { throw domError('InvalidStateError', 'send() before the open event'); }
  if (this.readyState !== OPEN) { this._lateBytes += utf8Length(data); } else { this._line.send(data); }
  countBuffered(this);
};

/* ES3 has no getters: the number is brought up to date at each send, and again while something waits. */
function countBuffered(self) {
  var unsent = self._line ? self._line.unsent() : 0;
  self.bufferedAmount = unsent + self._lateBytes;
  if (unsent && !self._counting) {
    self._counting = setTimeout(function () {
      self._counting = null;
      countBuffered(self);
    }, 20);
  }
}

PolySock.prototype.close = function (code, reason) {
  var self = this, line = self._line;
  if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
    throw domError('InvalidAccessError', 'close() takes the codes 1000 and 3000 to 4999, not ' + code);
  }
  reason = reason === undefined ? '' : String(reason);
  if (utf8Length(reason) > MAX_REASON_BYTES) { throw domError('SyntaxError', 'the reason is longer than ' + MAX_REASON_BYTES + ' bytes'); }
  if (self.readyState >= CLOSING) { return; }
  function finish(number, clean) {
    self._line = null;
    setTimeout(function () { lineEnded(self, number, clean ? reason : '', clean, null); }, 0);
  }
  clearTimeout(self._timer);
  /* As with a WebSocket: closing before it was open is a failure. */
  if (self.readyState === CONNECTING) {
    self.readyState = CLOSING;
    if (line) { line.drop(); }
    finish(1006, false);
    return;
  }
  self.readyState = CLOSING;
  line.close(function () { finish(code === undefined ? 1005 : code, true); });
};

(function () {
  var name;
  for (name in STATES) {
    if (has(STATES, name)) { PolySock[name] = PolySock.prototype[name] = STATES[name]; }
  }
}());
