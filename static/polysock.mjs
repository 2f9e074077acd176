/*! polysock 0.1.0, MIT license. Made from static/src by make client: edit there. */
/* What all parts lean on: the page, small functions, timers, random text.
   The files of static/src are parts of one function (see tests/tools/build_client.mjs) and share its scope.
   ECMAScript 3 throughout: the browsers that need the fallbacks most parse nothing newer. */

var VERSION = '0.1.0';

var root = typeof window !== 'undefined' ? window : typeof self !== 'undefined' ? self :
  typeof globalThis !== 'undefined' ? globalThis : typeof global !== 'undefined' ? global : {};
var page = root.document ? root.location : null;
var hasOwn = Object.prototype.hasOwnProperty;

function nothing() {}

function now() {
  return new Date().getTime();
}

function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

function isArray(value) {
  return kindOf(value) === 'Array';
}

function isFunction(value) {
  return typeof value === 'function';
}

function has(object, name) {
  return hasOwn.call(object, name);
}

function indexOf(list, wanted) {
  var i;
  for (i = 0; i < list.length; i += 1) {
    if (list[i] === wanted) { return i; }
  }
  return -1;
}

/* The values of several objects in a new one; the first that has a name wins. */
function merged() {
  var result = {}, i, name;
  for (i = 0; i < arguments.length; i += 1) {
    for (name in arguments[i]) {
      if (has(arguments[i], name) && !has(result, name) && arguments[i][name] !== undefined) {
        result[name] = arguments[i][name];
      }
    }
  }
  return result;
}

function randomText(alphabet, length) {
  var text = '', numbers, i;
  if (root.crypto && root.crypto.getRandomValues && root.Uint8Array) {
    numbers = root.crypto.getRandomValues(new root.Uint8Array(length));
  }
  for (i = 0; i < length; i += 1) {
    text += alphabet.charAt(numbers ? numbers[i] % alphabet.length : Math.floor(Math.random() * alphabet.length));
  }
  return text;
}

/* Bytes of a text in UTF-8. */
function utf8Length(text) {
  var bytes = text.length, i, unit;
  for (i = 0; i < text.length; i += 1) {
    unit = text.charCodeAt(i);
    if (unit > 0x7f) { bytes += 1; }
    if (unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff)) { bytes += 1; }
  }
  return bytes;
}

/* Tell the developer. Old consoles exist only while their window is open. */
function warn(text) {
  if (root.console && root.console.warn) {
    try { root.console.warn('polysock: ' + text); } catch (e) { /* a console that wants another this */ }
  }
}

/* Call what a page gave us. What it throws must reach window.onerror, and must not stop us. */
function callOut(fn, self_, args) {
  try {
    fn.apply(self_, args);
  } catch (e) {
    setTimeout(function () { throw e; }, 0);
  }
}

/* One shape for every error: what was being done, over which transport, what HTTP said, where to look. */

/* facts: transport, status, hint, code, data - all optional. */
function failure(step, text, facts) {
  var message = step + (facts && facts.transport ? ' over ' + facts.transport : '') + ': ' + text, error, name;
  if (facts && facts.status > 0 && text.indexOf('HTTP ') < 0) { message += ' (HTTP ' + facts.status + ')'; }
  if (facts && facts.hint) { message += '; ' + facts.hint; }
  error = new Error(message);
  error.message = message;    /* IE 5.5 and some engines of its time keep it elsewhere */
  error.name = 'PolySockError';
  error.step = step;
  for (name in facts) {
    if (has(facts, name)) { error[name] = facts[name]; }
  }
  return error;
}

function advice(status, crossOrigin) {
  if (!status) {
    return crossOrigin ?
      'look whether the server runs, whether its "origins" setting allows this page (CORS), and for a blocking extension' :
      'look whether the server runs, and for a proxy or an extension that stands between';
  }
  if (status === 401 || status === 407) { return 'look at the login that the server or a proxy asks for'; }
  if (status === 403) { return 'refused; look at the "origins" setting of the server and at its login'; }
  if (status === 404) { return 'look at the URL: is the endpoint mounted at this path, and this transport switched on?'; }
  if (status === 405) { return 'the address does not take this method; look at the routes of the server'; }
  if (status === 413) { return 'too long; look at max_message_bytes and max_payload_bytes of the server and at limits of proxies'; }
  if (status === 429) { return 'too many connections from this address'; }
  if (status >= 500) { return 'look at the log of the server, or of the proxy before it'; }
  if (status >= 400) { return 'refused; look at the log of the server'; }
  return 'look for something that holds back or changes the body (a proxy, compression)';
}

/* Emitter: on, once, off. What a handler throws reaches window.onerror and stops no other handler. */

function Emitter() {
  this._handlers = {};
}

Emitter.prototype.on = Emitter.prototype.addListener = function (name, handler) {
  return listen(this, name, handler, false);
};

Emitter.prototype.once = function (name, handler) {
  return listen(this, name, handler, true);
};

Emitter.prototype.off = Emitter.prototype.removeListener = Emitter.prototype.removeAllListeners = function (name, handler) {
  var kept = [], list, i;
  if (name === undefined) { this._handlers = {}; return this; }
  list = this._handlers['$' + name] || [];
  for (i = 0; handler && i < list.length; i += 1) {
    if (list[i].handler !== handler) { kept.push(list[i]); }
  }
  if (kept.length) { this._handlers['$' + name] = kept; } else { delete this._handlers['$' + name]; }
  return this;
};

Emitter.prototype.listeners = function (name) {
  var list = this._handlers['$' + name] || [], found = [], i;
  for (i = 0; i < list.length; i += 1) { found.push(list[i].handler); }
  return found;
};

/* The $ keeps names such as "constructor" apart from what every object has. */
function listen(emitter, name, handler, once) {
  var list = emitter._handlers['$' + name] || [], i;
  if (!isFunction(handler)) { throw new TypeError('the handler of "' + name + '" is not a function'); }
  for (i = 0; i < list.length; i += 1) {
    if (list[i].handler === handler && !list[i].once && !once) {
      warn('the same function listens to "' + name + '" twice and will be called twice; is on() called at each connect?');
      break;
    }
  }
  emitter._handlers['$' + name] = list.concat([{ handler: handler, once: once }]);
  return emitter;
}

/* Returns whether anybody listened. */
function trigger(emitter, name, args) {
  var list = emitter._handlers['$' + name] || [], i, at;
  for (i = 0; i < list.length; i += 1) {
    if (list[i].once) {
      at = indexOf(emitter._handlers['$' + name] || [], list[i]);
      if (at < 0) { continue; }
      emitter._handlers['$' + name] = emitter._handlers['$' + name].slice(0, at).concat(
        emitter._handlers['$' + name].slice(at + 1));
    }
    callOut(list[i].handler, emitter, args);
  }
  return list.length > 0;
}

/* JSON for browsers that have none (IE 6 and 7, Firefox 3.0, Safari 3), and safe on the wire for all. */

/* What SockJS escapes: a browser or a proxy exists that mangles each of them. Made from text, because some old
   engines drop format characters from a literal. */
var UNSAFE = new RegExp('[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0604\\u070f\\u17b4\\u17b5\\u200b-\\u200f' +
  '\\u2028-\\u202f\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff0-\\uffff]', 'g');

/* Not JSON itself where another library has put half of it there. */
var nativeJson = root.JSON && isFunction(root.JSON.parse) && isFunction(root.JSON.stringify) ? root.JSON : null;

var MAX_JSON_DEPTH = 500;

function escapeUnit(unit) {
  return '\\u' + ('0000' + unit.charCodeAt(0).toString(16)).slice(-4);
}

function quote(text) {
  return '"' + text.replace(/["\\]/g, '\\$&').replace(UNSAFE, escapeUnit) + '"';
}

function twoDigits(number) {
  return (number < 10 ? '0' : '') + number;
}

function isoDate(date) {
  return isFinite(date.getTime()) ? date.getUTCFullYear() + '-' + twoDigits(date.getUTCMonth() + 1) + '-' +
    twoDigits(date.getUTCDate()) + 'T' + twoDigits(date.getUTCHours()) + ':' + twoDigits(date.getUTCMinutes()) + ':' +
    twoDigits(date.getUTCSeconds()) + '.' + ('00' + date.getUTCMilliseconds()).slice(-3) + 'Z' : null;
}

/* undefined for what JSON leaves out. */
function stringify(value, depth) {
  var parts = [], kind, name, text, i;
  if (depth > MAX_JSON_DEPTH) { throw new TypeError('the value is nested too deep, or holds itself'); }
  kind = value === null || value === undefined ? '' : kindOf(value);
  if (value && typeof value === 'object') {
    if (isFunction(value.toJSON)) { return stringify(value.toJSON(), depth + 1); }
    if (kind === 'Date') { return stringify(isoDate(value), depth + 1); }
    if (kind === 'String' || kind === 'Number' || kind === 'Boolean') { value = value.valueOf(); }
  }
  if (value === null) { return 'null'; }
  if (typeof value === 'string') { return quote(value); }
  if (typeof value === 'number') { return isFinite(value) ? String(value) : 'null'; }
  if (typeof value === 'boolean') { return String(value); }
  if (typeof value !== 'object') { return undefined; }
  if (kind === 'Array') {
    for (i = 0; i < value.length; i += 1) { parts.push(stringify(value[i], depth + 1) || 'null'); }
    return '[' + parts.join(',') + ']';
  }
  for (name in value) {
    if (has(value, name)) {
      text = stringify(value[name], depth + 1);
      if (text !== undefined) { parts.push(quote(name) + ':' + text); }
    }
  }
  return '{' + parts.join(',') + '}';
}

function encodeJson(value) {
  return nativeJson ? nativeJson.stringify(value).replace(UNSAFE, escapeUnit) : stringify(value, 0);
}

/* undefined when the text is not JSON. Without JSON.parse the text is evaluated, but only after it has been shown to
   hold nothing except strings, numbers, literals and punctuation. */
function decodeJson(text) {
  var bones;
  if (nativeJson) {
    try { return nativeJson.parse(text); } catch (e) { return undefined; }
  }
  text = text.replace(UNSAFE, escapeInside);
  bones = text.replace(/\\(?:["\\\/bfnrt]|u[0-9a-fA-F]{4})/g, '@').replace(/"[^"\\\n\r]*"/g, '""');
  if (/(?:^|[^\d.eE+])-?0\d/.test(bones) || !(/^[\],:{}\s]*$/).test(
      bones.replace(/""|true|false|null|-?\d+(?:\.\d+)?(?:[eE][+\-]?\d+)?/g, ']').replace(/(?:^|:|,)(?:\s*\[)+/g, ''))) {
    return undefined;
  }
  try { return new Function('return (' + text + ');')(); } catch (e2) { return undefined; }
}

/* White space between values must stay white space. */
function escapeInside(unit) {
  return unit === '\n' || unit === '\r' || unit === '\t' ? unit : escapeUnit(unit);
}

/* Bytes where the engine has them: base64 both ways, and what counts as binary. */

var BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

function isBlob(value) {
  var kind = value && typeof value === 'object' ? kindOf(value) : '';
  return kind === 'Blob' || kind === 'File';
}

function isBuffer(value) {
  if (!value || typeof value !== 'object' || !root.ArrayBuffer) { return false; }
  return kindOf(value) === 'ArrayBuffer' || (kindOf(value.buffer) === 'ArrayBuffer' && typeof value.byteLength === 'number');
}

function isBinary(value) {
  return isBuffer(value) || isBlob(value);
}

function bytesOf(value) {
  return kindOf(value) === 'ArrayBuffer' ? new root.Uint8Array(value) :
    new root.Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

function toBase64(bytes) {
  var parts = [], i, group;
  for (i = 0; i < bytes.length; i += 3) {
    group = (bytes[i] << 16) | ((bytes[i + 1] || 0) << 8) | (bytes[i + 2] || 0);
    parts.push(BASE64.charAt(group >> 18), BASE64.charAt((group >> 12) & 63),
      i + 1 < bytes.length ? BASE64.charAt((group >> 6) & 63) : '=', i + 2 < bytes.length ? BASE64.charAt(group & 63) : '=');
  }
  return parts.join('');
}

/* null where it is not base64. An ArrayBuffer, or an array of numbers where there is none. */
function fromBase64(text) {
  var bytes, length, at = 0, i, group;
  if (text.length % 4 || !/^[A-Za-z0-9+\/]*={0,2}$/.test(text)) { return null; }
  length = text.length / 4 * 3 - (/==$/.test(text) ? 2 : /=$/.test(text) ? 1 : 0);
  bytes = root.Uint8Array ? new root.Uint8Array(length) : [];
  for (i = 0; i < text.length; i += 4) {
    group = (BASE64.indexOf(text.charAt(i)) << 18) | (BASE64.indexOf(text.charAt(i + 1)) << 12) |
      (Math.max(0, BASE64.indexOf(text.charAt(i + 2))) << 6) | Math.max(0, BASE64.indexOf(text.charAt(i + 3)));
    if (at < length) { bytes[at] = (group >> 16) & 255; }
    if (at + 1 < length) { bytes[at + 1] = (group >> 8) & 255; }
    if (at + 2 < length) { bytes[at + 2] = group & 255; }
    at += 3;
  }
  return bytes.buffer && root.ArrayBuffer ? bytes.buffer : bytes;
}

/* The places of blobs in a value, as [holder, key]. */
function findBlobs(value, holder, key, found) {
  var name, i;
  if (isBlob(value)) {
    found.push([holder, key]);
  } else if (isArray(value)) {
    for (i = 0; i < value.length; i += 1) { findBlobs(value[i], value, i, found); }
  } else if (value && typeof value === 'object' && !isBuffer(value)) {
    for (name in value) {
      if (has(value, name)) { findBlobs(value[name], value, name, found); }
    }
  }
  return found;
}

/* done(bytes), null where it cannot be read */
function readBlob(blob, done) {
  var reader = new root.FileReader();
  reader.onload = function () { done(reader.result); };
  reader.onerror = function () { done(null); };
  reader.readAsArrayBuffer(blob);
}

/* Addresses: http, https, ws, wss, relative ones, and host:port. */

var URL_PARTS = /^(?:([a-z][a-z0-9+.\-]*):)?(?:\/\/([^\/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?$/i;
var AUTHORITY = /^(?:[^\s@\/]*@)?(\[[0-9a-f:.]+\]|[^\s\[\]@:\/\\<>"^`{|}]+)(?::(\d{1,5}))?$/i;
var MAX_PORT = 65535;
var DEFAULT_PORTS = { http: '80', https: '443' };

function badUrl(url, text) {
  return failure('reading the URL "' + url + '"', text, { hint: 'write it like ws://host:5555/some, http://host/path or /path' });
}

/* {origin: 'http://host:1', path: '/some', query: '?a=b'}; throws for what is no address. */
function parseUrl(url) {
  var text = String(url === undefined || url === null ? '' : url).replace(/^\s+|\s+$/g, ''), parts, scheme, authority, path, port;
  if (/^[\w.\-]+:\d+(?:[\/?#]|$)/.test(text)) { text = '//' + text; }
  parts = URL_PARTS.exec(text);
  if (!parts || /[\s\\]/.test(text)) { throw badUrl(url, 'not an address'); }
  scheme = (parts[1] || '').toLowerCase().replace(/^ws/, 'http');
  authority = parts[2];
  path = parts[3];
  if (scheme && scheme !== 'http' && scheme !== 'https') { throw badUrl(url, 'the scheme ' + scheme + ' is none of ws, wss, http, https'); }
  if (!authority) {
    if (scheme || text.indexOf('//') === 0) { throw badUrl(url, 'the host is missing'); }
    if (!page || !/^https?:$/.test(page.protocol)) { throw badUrl(url, 'a relative address needs a page from a server'); }
    scheme = page.protocol.slice(0, -1);
    authority = page.host;
    if (path.charAt(0) !== '/') {
      path = (path || parts[4] ? page.pathname.replace(/[^\/]*$/, '') : '/') + path;
      if (path.charAt(0) !== '/') { path = '/' + path; }      /* IE forgets that slash */
    }
  }
  if (!scheme) { scheme = page && page.protocol === 'https:' ? 'https' : 'http'; }
  authority = AUTHORITY.exec(authority);
  if (!authority) { throw badUrl(url, 'the host or the port is not one'); }
  return finishUrl(url, scheme, authority[1].toLowerCase(), authority[2], path, parts[4] || '');
}

function finishUrl(url, scheme, host, port, path, query) {
  var segments = path.split('/'), kept = [], i;
  if (port && (+port > MAX_PORT || +port === 0)) { throw badUrl(url, 'there is no port ' + port); }
  for (i = 0; i < segments.length; i += 1) {
    if (segments[i] === '..') { if (kept.length > 1) { kept.pop(); } } else if (segments[i] !== '.') { kept.push(segments[i]); }
  }
  return {
    origin: scheme + '://' + host + (port && port !== DEFAULT_PORTS[scheme] ? ':' + port : ''),
    path: kept.join('/') || '/',
    query: query
  };
}

function pageOrigin() {
  var port;
  if (!page || !page.host) { return null; }
  port = page.port && page.port !== DEFAULT_PORTS[page.protocol.slice(0, -1)] ? ':' + page.port : '';
  return page.protocol + '//' + page.hostname.toLowerCase() + port;
}

function isSameOrigin(url) {
  return pageOrigin() === parseUrl(url).origin;
}

function isSameScheme(url) {
  return Boolean(page) && url.split(':')[0] + ':' === page.protocol;
}

function withQuery(url, query) {
  return query ? url + (url.indexOf('?') < 0 ? '?' : '&') + query.replace(/^\?/, '') : url;
}

/* One HTTP request by XMLHttpRequest, its ActiveX forerunner, or XDomainRequest. */

function newXhr() {
  if (root.XMLHttpRequest) {
    try { return new root.XMLHttpRequest(); } catch (e) { /* IE 7 with native XMLHTTP switched off */ }
  }
  if (root.ActiveXObject) {
    try { return new root.ActiveXObject('Microsoft.XMLHTTP'); } catch (e2) { return null; }
  }
  return null;
}

function hasCors() {
  var xhr = root.XMLHttpRequest ? newXhr() : null;
  return Boolean(xhr) && 'withCredentials' in xhr;
}

/* XDomainRequest may not cross from http to https, nor back. */
function hasXdr(url) {
  return Boolean(root.XDomainRequest) && isSameScheme(url);
}

function canXhr(url) {
  return isSameOrigin(url) || !page ? Boolean(newXhr()) : hasCors();
}

function statusOf(xhr) {
  var status = 0;
  try { status = xhr.status || 0; } catch (e) { /* old IE throws before the end */ }
  return status === 1223 ? 204 : status;      /* IE's name for 204 */
}

/* null: this browser refuses to show the text yet */
function textOf(xhr) {
  try { return typeof xhr.responseText === 'string' ? xhr.responseText : null; } catch (e) { return null; }
}

/* changed(isOver, status, text) at each progress; never after stop(). */
function xhrRequest(method, url, body, credentials, changed) {
  var xhr = newXhr(), live = true;
  function stop() {
    if (!live) { return; }
    live = false;
    xhr.onreadystatechange = nothing;         /* not null: ActiveX wants a function */
    try { xhr.abort(); } catch (e) { /* it was never sent */ }
  }
  try {
    xhr.open(method, url, true);
    if (credentials && !isSameOrigin(url) && 'withCredentials' in xhr) { xhr.withCredentials = true; }
    /* text/plain needs no question (preflight) before a request to another origin. */
    if (body !== null) { xhr.setRequestHeader('Content-Type', 'text/plain;charset=UTF-8'); }
    xhr.onreadystatechange = function () {
      if (!live || xhr.readyState < 3) { return; }
      if (xhr.readyState === 4) {
        live = false;
        xhr.onreadystatechange = nothing;
        changed(true, statusOf(xhr), textOf(xhr) || '');
      } else {
        changed(false, 0, textOf(xhr));
      }
    };
    xhr.send(body);
  } catch (e) {
    live = false;
    setTimeout(function () { changed(true, 0, ''); }, 0);
  }
  return { stop: stop };
}

function xdrRequest(method, url, body, changed) {
  var xdr = new root.XDomainRequest(), live = true;
  function over(status) {
    return function () {
      if (!live) { return; }
      var text = status ? textOf(xdr) || '' : '';
      live = false;
      release();
      changed(true, status, text);
    };
  }
  function release() {
    xdr.onload = xdr.onerror = xdr.ontimeout = xdr.onprogress = nothing;
  }
  /* IE 9 forgets a request whose handlers are not all set. The status is hidden: loaded means 2xx. */
  xdr.onload = over(200);
  xdr.onerror = xdr.ontimeout = over(0);
  xdr.onprogress = function () { if (live) { changed(false, 0, textOf(xdr)); } };
  try {
    xdr.open(method, url);
    xdr.timeout = 0;
    xdr.send(body || '');
  } catch (e) {
    setTimeout(over(0), 0);
  }
  return {
    stop: function () {
      if (!live) { return; }
      live = false;
      release();
      try { xdr.abort(); } catch (e) { /* IE 9 throws when it has just ended */ }
    }
  };
}

/* With whatever can reach this address. */
function httpRequest(method, url, body, credentials, changed) {
  return canXhr(url) ? xhrRequest(method, url, body, credentials, changed) : xdrRequest(method, url, body, changed);
}

function canRequest(url) {
  return canXhr(url) || hasXdr(url);
}

function uncached(url) {
  return withQuery(url, 't=' + now().toString(36) + randomText('0123456789abcdefghijklmnopqrstuvwxyz', 4));
}

/* The sending half of every transport but WebSocket: messages wait here and leave in POSTs, one at a time, since two
   on different connections could overtake each other. */

var MAX_POST_CHARS = 256 * 1024;        /* below what servers and proxies take, counted in characters */
var MAX_POST_MESSAGES = 500;
var SEND_MS = 60000;             /* a server that is behind keeps a POST waiting; this long means that it is lost */

/* post(payload, done) sends one JSON array. A turn of the event loop ends before it starts: a burst travels together. */
function makeSender(link, post) {
  var waiting = [], chars = 0, busy = false, timer = null, answerTimer = null, whenEmpty = [];
  function flush() {
    var count = 0, size = 0;
    timer = null;
    if (busy || link.over()) { return; }
    if (!waiting.length) { tell(); return; }
    while (count < waiting.length && count < MAX_POST_MESSAGES && (!count || size + waiting[count].length <= MAX_POST_CHARS)) {
      size += waiting[count].length;
      count += 1;
    }
    busy = true;
    answerTimer = setTimeout(function () {
      link.broken('sending', undefined, '', 'no answer to a POST within ' + SEND_MS / 1000 + ' seconds');
    }, SEND_MS);
    post('[' + waiting.splice(0, count).join(',') + ']', function () {
      clearTimeout(answerTimer);
      busy = false;
      chars -= size;
      flush();
    });
  }
  function tell() {
    var list = whenEmpty;
    whenEmpty = [];
    while (list.length) { list.shift()(); }
  }
  return {
    send: function (message) {
      var text = encodeJson(message);
      waiting.push(text);
      chars += text.length;
      if (!busy && timer === null) { timer = setTimeout(flush, 0); }
    },
    unsent: function () { return chars; },
    drained: function (callback) {
      whenEmpty.push(callback);
      if (!busy && timer === null) { timer = setTimeout(flush, 0); }
    },
    stop: function () { clearTimeout(answerTimer); }
  };
}

/* Over POST /xhr_send, by XMLHttpRequest or XDomainRequest. */
function makeHttpSender(link) {
  var call = null, sender, stop;
  sender = makeSender(link, function (payload, done) {
    call = httpRequest('POST', link.address('/xhr_send'), payload, link.credentials, function (isOver, status, text) {
      if (!isOver || link.over()) { return; }
      call = null;
      if (status === 204 || status === 200) { done(); } else { link.broken('sending', status, text); }
    });
  });
  stop = sender.stop;
  sender.stop = function () {
    stop();
    if (call) { call.stop(); }
  };
  return sender;
}

/* websocket: one socket, SockJS frames both ways. */

/* Taken now, before polysock.install() may put another one there. */
var NativeWebSocket = root.WebSocket;

function webSocketTransport(link) {
  var socket = null, opened = false;
  function release() {
    var old = socket;
    if (!old) { return; }
    socket = null;
    old.onopen = old.onmessage = old.onclose = old.onerror = nothing;
    try { old.close(); } catch (e) { /* not yet open, in some drafts */ }
  }
  try {
    socket = new NativeWebSocket(link.address('/websocket').replace(/^http/, 'ws'));
  } catch (e) {
    setTimeout(function () {
      link.broken('opening', undefined, '', 'the browser refuses to open a WebSocket here (' + (e.message || e) + ')');
    }, 0);
    return { send: nothing, close: nothing, unsent: function () { return 0; }, drained: function (callback) { callback(); } };
  }
  if (!('binaryType' in socket)) {
    setTimeout(function () {
      link.broken('opening', undefined, '', 'this WebSocket is a draft (hixie or early hybi) that servers no longer speak');
    }, 0);
  }
  socket.onopen = function () { opened = true; };
  socket.onmessage = function (event) {
    if (typeof event.data === 'string' && event.data) { link.frame(event.data); }
  };
  socket.onerror = nothing;
  socket.onclose = function (event) {
    link.broken(opened ? 'receiving' : 'opening', undefined, '', opened ? 'the WebSocket closed with code ' + event.code :
      'the WebSocket did not open; look for a proxy that drops the Upgrade header, and at "origins" of the server');
  };
  return {
    send: function (message) { socket.send('[' + encodeJson(message) + ']'); },
    close: release,
    unsent: function () { return socket ? socket.bufferedAmount || 0 : 0; },
    drained: function (callback) { callback(); }       /* close() of a WebSocket sends what waits first */
  };
}

/* xhr-streaming and xdr-streaming: one endless answer to receive, a POST for each send. */

function streamingTransport(start) {
  return function (link) {
    var sender = makeHttpSender(link), stream = null, timer = null;
    function again() {
      var seen = 0;
      stream = start('POST', link.address('/xhr_streaming'), link, function (isOver, status, text) {
        var end;
        if (link.over()) { return; }
        end = text ? text.lastIndexOf('\n') + 1 : 0;
        if (end > seen) {
          text = text.slice(seen, end);
          seen = end;
          link.lines(text);
        }
        if (!isOver || link.over()) { return; }
        stream = null;
        /* The server ends an answer that has become long; the next one goes on. */
        if (status === 200 && seen) { timer = setTimeout(again, 0); } else { link.broken('receiving', status, text); }
      });
    }
    again();
    return {
      send: sender.send,
      unsent: sender.unsent,
      drained: sender.drained,
      close: function () {
        clearTimeout(timer);
        if (stream) { stream.stop(); }
        sender.stop();
      }
    };
  };
}

function startXhr(method, url, link, changed) {
  return xhrRequest(method, url, '', link.credentials, changed);
}

function startXdr(method, url, link, changed) {
  return xdrRequest(method, url, '', changed);
}

/* xhr-polling and xdr-polling: a request that is answered when there is news. */

function pollingTransport(start) {
  return function (link) {
    var sender = makeHttpSender(link), poll = null, timer = null;
    function again() {
      poll = start('POST', link.address('/xhr'), link, function (isOver, status, text) {
        if (!isOver || link.over()) { return; }
        poll = null;
        if (status !== 200 || !text) { link.broken('receiving', status, text); return; }
        link.lines(text);
        /* Not from within: IE runs out of stack when answers come from its cache of connections at once. */
        if (!link.over()) { timer = setTimeout(again, 0); }
      });
    }
    again();
    return {
      send: sender.send,
      unsent: sender.unsent,
      drained: sender.drained,
      close: function () {
        clearTimeout(timer);
        if (poll) { poll.stop(); }
        sender.stop();
      }
    };
  };
}

/* eventsource: Server-Sent Events to receive, a POST for each send. */

function eventSourceTransport(link) {
  var sender = makeHttpSender(link), source = null, timer = null;
  function release() {
    clearTimeout(timer);
    if (source) {
      source.onmessage = source.onerror = nothing;
      source.close();
      source = null;
    }
  }
  function again() {
    var heard = 0, url = link.address('/eventsource');
    source = link.credentials && !isSameOrigin(url) ? new root.EventSource(url, { withCredentials: true }) :
      new root.EventSource(url);
    source.onmessage = function (event) {
      heard += 1;
      link.frame(String(event.data));
    };
    source.onerror = function () {
      /* Left alone it would come back by itself, but only after its retry time. */
      release();
      if (link.over()) { return; }
      if (heard) { timer = setTimeout(again, 0); } else { link.broken('receiving', 0, ''); }
    };
  }
  again();
  return {
    send: sender.send,
    unsent: sender.unsent,
    drained: sender.drained,
    close: function () {
      release();
      sender.stop();
    }
  };
}

/* Where JSONP answers and forever frames find us: window._polysock, made when the first of them needs it. */

var CALLBACKS = '_polysock', callbackCount = 0;

/* {name: what to put into the URL, set: function (value), drop: function ()} */
function newCallback(value) {
  var table = root[CALLBACKS] = root[CALLBACKS] || {}, key;
  callbackCount += 1;
  key = 'c' + randomText('abcdefghijklmnopqrstuvwxyz0123456789', 4) + callbackCount.toString(36);
  table[key] = value;
  return {
    name: CALLBACKS + '.' + key,
    table: table,
    /* Stays as an empty one for a while: an answer may be under way, and its call must not be an error. */
    drop: function (empty) {
      table[key] = empty;
      setTimeout(function () {
        table[key] = undefined;
        try { delete table[key]; } catch (e) { /* IE 6 to 8, where the table is a host object's */ }
      }, CALLBACK_GRACE_MS);
    }
  };
}

var CALLBACK_GRACE_MS = 60000;

/* htmlfile: an endless page of script elements in a hidden frame to receive, a POST for each send.
   In IE 6 to 9 the frame lives in a document apart (ActiveXObject "htmlfile"): no click sound, no endless throbber. */

function newHtmlfile() {
  try { return new root.ActiveXObject('htmlfile'); } catch (e) { return null; }
}

function htmlfileTransport(link) {
  var sender = makeHttpSender(link), doc = root.document, timer = null, callback = null, frame = null, apart = null;
  function release() {
    var oldFrame = frame, oldDocument = apart;
    clearTimeout(timer);
    if (callback) { callback.drop({ start: nothing, message: nothing, stop: nothing }); }
    callback = frame = apart = null;
    if (!oldFrame) { return; }
    oldFrame.onload = nothing;
    /* The call may come from a script of that very frame: let it end first. */
    setTimeout(function () {
      if (oldFrame.parentNode) { oldFrame.parentNode.removeChild(oldFrame); }
      if (oldDocument && root.CollectGarbage) { root.CollectGarbage(); }
    }, 0);
  }
  function again() {
    var heard = 0, holder, url;
    function ended() {
      release();
      if (link.over()) { return; }
      if (heard) { timer = setTimeout(again, 0); } else { link.broken('receiving', 0, ''); }
    }
    callback = newCallback({
      start: nothing,
      message: function (text) {
        heard += 1;
        link.frame(String(text));
      },
      stop: ended
    });
    url = withQuery(link.address('/htmlfile'), 'c=' + callback.name);
    apart = root.ActiveXObject ? newHtmlfile() : null;
    if (apart) {
      apart.open();
      apart.write('<html><s' + 'cript>document.domain="' + doc.domain + '";</s' + 'cript></html>');
      apart.close();
      apart.parentWindow[CALLBACKS] = callback.table;
      holder = apart.createElement('div');
      apart.body.appendChild(holder);
      frame = apart.createElement('iframe');
      holder.appendChild(frame);
      frame.src = url;
    } else {
      /* The frame assigns document.domain; unless its parent does too, the two may not touch. */
      try { doc.domain = doc.domain; } catch (e) { /* some hosts are refused */ }
      frame = hiddenFrame(url);
      frame.onload = ended;
      doc.body.appendChild(frame);
    }
  }
  again();
  return {
    send: sender.send,
    unsent: sender.unsent,
    drained: sender.drained,
    close: function () {
      release();
      sender.stop();
    }
  };
}

function hiddenFrame(url) {
  var frame = root.document.createElement('iframe');
  frame.style.display = 'none';
  frame.style.position = 'absolute';
  if (url) { frame.src = url; }
  return frame;
}

/* jsonp-polling: script elements to receive, a hidden form into a hidden frame to send. Works almost everywhere, also
   to another origin. */

var SCRIPT_GRACE_MS = 500;        /* some browsers say "loaded" before they run the script */
var UNSENT_TURNS = 20, UNSENT_TURN_MS = 5;

/* done(text): what came back, null where it cannot be read. */
function postForm(url, payload, done) {
  var doc = root.document, name = '_polysock_' + randomText('abcdefghijklmnopqrstuvwxyz', 8), live = true, frame, form, area;
  function stop() {
    if (!live) { return; }
    live = false;
    frame.onload = frame.onerror = frame.onreadystatechange = nothing;
    setTimeout(function () {
      if (form.parentNode) { form.parentNode.removeChild(form); }
      if (frame.parentNode) { frame.parentNode.removeChild(frame); }
    }, 0);
  }
  function finish() {
    var text = null;
    if (!live) { return; }
    try { text = isSameOrigin(url) ? frame.contentWindow.document.body.innerHTML : null; } catch (e) { text = null; }
    stop();
    done(text);
  }
  try {
    frame = doc.createElement('<iframe name="' + name + '">');   /* IE 6 and 7 ignore a name set later */
  } catch (e) {
    frame = doc.createElement('iframe');
    frame.name = name;
  }
  frame.style.display = 'none';
  form = doc.createElement('form');
  form.style.display = 'none';
  form.method = 'POST';
  form.action = url;
  form.target = name;
  form.enctype = 'application/x-www-form-urlencoded';
  form.acceptCharset = 'UTF-8';
  area = doc.createElement('textarea');
  area.name = 'd';
  area.value = payload;
  form.appendChild(area);
  doc.body.appendChild(frame);
  doc.body.appendChild(form);
  form.submit();
  /* Only now: the empty frame has a load event of its own. */
  frame.onload = frame.onerror = finish;
  frame.onreadystatechange = function () {
    if (frame.readyState === 'complete') { finish(); }
  };
  return { stop: stop };
}

function jsonpTransport(link) {
  var form = null, script = null, callback = null, timer = null, grace = null, sender;
  sender = makeSender(link, function (payload, done) {
    form = postForm(link.address('/jsonp_send'), payload, function (text) {
      form = null;
      if (link.over()) { return; }
      if (text !== null && text.length && !/\bok\b/i.test(text)) { link.broken('sending', undefined, text); } else { done(); }
    });
  });
  function release() {
    var old = script;
    clearTimeout(timer);
    clearTimeout(grace);
    script = null;
    if (callback) { callback.drop(nothing); }
    callback = null;
    if (!old) { return; }
    old.onload = old.onerror = old.onreadystatechange = nothing;
    /* IE 6 crashes when a running script is taken out of the document. */
    setTimeout(function () { if (old.parentNode) { old.parentNode.removeChild(old); } }, 0);
  }
  /* What waits to be sent goes first: an engine that blocks while it loads a script could not send it later. */
  function soon(turns) {
    timer = setTimeout(function () {
      if (turns && sender.unsent()) { soon(turns - 1); } else { again(); }
    }, turns === UNSENT_TURNS ? 0 : UNSENT_TURN_MS);
  }
  function again() {
    function unanswered() {
      if (!script) { return; }
      release();
      link.broken('receiving', undefined, '', 'the script did not load or did not answer');
    }
    callback = newCallback(function (text) {
      release();
      link.frame(String(text));
      if (!link.over()) { soon(UNSENT_TURNS); }
    });
    script = root.document.createElement('script');
    script.type = 'text/javascript';
    script.charset = 'UTF-8';
    script.onerror = unanswered;            /* IE 6 to 8 have none: there the watch over silence finds it */
    script.onload = function () {
      clearTimeout(grace);
      grace = setTimeout(unanswered, SCRIPT_GRACE_MS);
    };
    script.onreadystatechange = function () {
      if (script && /loaded|complete/.test(script.readyState)) { script.onload(); }
    };
    script.src = withQuery(link.address('/jsonp'), 'c=' + callback.name);
    root.document.getElementsByTagName('head')[0].appendChild(script);
  }
  again();
  return {
    send: sender.send,
    unsent: sender.unsent,
    drained: sender.drained,
    close: function () {
      release();
      sender.stop();
      if (form) { form.stop(); }
    }
  };
}

/* iframe-eventsource, iframe-htmlfile, iframe-xhr-polling: for browsers that cannot cross origins but have postMessage.
   A hidden page of the server's origin (the iframe page of the SockJS endpoint, which must load this script: the
   sockjs_file or sockjs_url setting) runs the transport there. Each text between the two is the bridge's id, one letter and a body:
     up:   r ready   f frame   b broken [step, status, text, why]   d drained: how many messages   i [status, text] of /info
     down: o open [version, transport, base, query, credentials]   s send   c close   i ask /info */

var BRIDGE_PAGE = '/iframe-polysock.html';

function addWindowListener(name, handler) {
  if (root.addEventListener) { root.addEventListener(name, handler, false); } else if (root.attachEvent) { root.attachEvent('on' + name, handler); }
}

function removeWindowListener(name, handler) {
  if (root.removeEventListener) { root.removeEventListener(name, handler, false); } else if (root.detachEvent) { root.detachEvent('on' + name, handler); }
}

/* received(letter, body) */
function openBridge(prefix, query, received) {
  var id = 'p' + randomText('abcdefghijklmnopqrstuvwxyz0123456789', 10), origin = parseUrl(prefix).origin, frame;
  function listener(event) {
    /* == since IE 8 hands out several faces of one window. */
    if (!frame || event.source != frame.contentWindow || event.origin !== origin || typeof event.data !== 'string' ||
        event.data.indexOf(id) !== 0) { return; }
    received(event.data.charAt(id.length), event.data.slice(id.length + 1));
  }
  addWindowListener('message', listener);
  frame = hiddenFrame(withQuery(prefix + BRIDGE_PAGE, query) + '#' + id);
  root.document.body.appendChild(frame);
  return {
    post: function (letter, body) { if (frame) { frame.contentWindow.postMessage(id + letter + body, origin); } },
    close: function () {
      var old = frame;
      if (!old) { return; }
      frame = null;
      removeWindowListener('message', listener);
      setTimeout(function () { if (old.parentNode) { old.parentNode.removeChild(old); } }, 0);
    }
  };
}

function bridgedTransport(inner) {
  return function (link) {
    var sent = 0, unsent = 0, waiting = [], bridge;
    bridge = openBridge(link.prefix, link.query, function (letter, body) {
      var facts;
      if (link.over()) { return; }
      if (letter === 'r') {
        bridge.post('o', encodeJson([VERSION, inner, link.base, link.query, link.credentials]));
      } else if (letter === 'f') {
        link.frame(body);
      } else if (letter === 'b') {
        facts = decodeJson(body) || [];
        link.broken(facts[0], facts[1] === null ? undefined : facts[1], facts[2], facts[3]);
      } else if (letter === 'd' && Number(body) === sent) {
        unsent = 0;
        while (waiting.length) { waiting.shift()(); }
      }
    });
    return {
      send: function (message) {
        sent += 1;
        unsent += message.length;
        bridge.post('s', encodeJson(message));
      },
      unsent: function () { return unsent; },
      drained: function (callback) { if (unsent) { waiting.push(callback); } else { callback(); } },
      close: bridge.close
    };
  };
}

/* The other end, inside the hidden page. Its only master is the window that holds it, at one origin. */
function bootstrapIframe() {
  var id = (root.location.hash || '').slice(1), master = null, driver = null, isOver = false, received = 0;
  function post(letter, body) { root.parent.postMessage(id + letter + body, master || '*'); }
  function start(facts) {
    var link;
    if (!facts || !has(BRIDGED, facts[1]) || !isSameOrigin(facts[2])) {
      post('b', encodeJson(['opening', null, '', 'the iframe page was asked for what it does not have']));
      return;
    }
    if (facts[0] !== VERSION) {
      post('b', encodeJson(['opening', null, '', 'the iframe page loads polysock ' + VERSION + ', this page ' + facts[0]]));
      return;
    }
    link = {
      base: facts[2], query: facts[3], credentials: false,
      over: function () { return isOver; },
      address: function (path) { return uncached(withQuery(facts[2] + path, facts[3])); },
      frame: function (text) { post('f', text); },
      lines: function (text) { eachLine(text, link.frame); },
      broken: function (step, status, text, why) {
        if (!isOver) {
          end();
          post('b', encodeJson([step, status === undefined ? null : status, (text || '').slice(0, 200), why || '']));
        }
      }
    };
    driver = BRIDGED[facts[1]](link);
  }
  function end() {
    isOver = true;
    if (driver) { driver.close(); }
  }
  if (!/^p[a-z0-9]{10}$/.test(id) || !root.postMessage || root.parent === root) { return; }
  addWindowListener('message', function (event) {
    var letter, body;
    if (event.source != root.parent || typeof event.data !== 'string' || event.data.indexOf(id) !== 0) { return; }
    if (master && event.origin !== master) { return; }
    master = event.origin === 'null' ? '*' : event.origin;
    letter = event.data.charAt(id.length);
    body = event.data.slice(id.length + 1);
    if (letter === 'o' && !driver && !isOver) { start(decodeJson(body)); }
    if (letter === 'c') { end(); }
    if (letter === 's' && driver && !isOver) {
      driver.send(decodeJson(body));
      received += 1;
      driver.drained((function (count) { return function () { post('d', String(count)); }; }(received)));
    }
    if (letter === 'i') {
      /* The address of this very page tells where the endpoint is. */
      xhrRequest('GET', uncached(root.location.href.replace(/\/iframe[^\/]*$/, '/info')), null, false, function (done, status, text) {
        if (done) { post('i', encodeJson([status, text])); }
      });
    }
  });
  post('r', '');
}

/* What worked last with which server. In localStorage where that can be used; it is forgotten after a while, since
   people carry their machines to other networks. */

var MEMORY_KEY = 'polysock', MEMORY_MS = 3600000, MEMORY_ENTRIES = 20;
var memory = null;

function recall() {
  if (!memory) {
    try { memory = decodeJson(root.localStorage.getItem(MEMORY_KEY)); } catch (e) { /* none, or forbidden */ }
    if (!memory || typeof memory !== 'object' || isArray(memory)) { memory = {}; }
  }
  return memory;
}

function recallTransport(url) {
  var entry = has(recall(), url) ? memory[url] : null;
  return isArray(entry) && now() - entry[1] < MEMORY_MS && now() >= entry[1] ? entry[0] : null;
}

/* transport null: forget */
function rememberTransport(url, transport) {
  var oldest = null, count = 0, name;
  recall();
  if (transport) { memory[url] = [transport, now()]; } else { delete memory[url]; }
  for (name in memory) {
    if (has(memory, name)) {
      count += 1;
      if (oldest === null || memory[name][1] < memory[oldest][1]) { oldest = name; }
    }
  }
  if (count > MEMORY_ENTRIES) { delete memory[oldest]; }
  try { root.localStorage.setItem(MEMORY_KEY, encodeJson(memory)); } catch (e) { /* then for this page only */ }
}

/* One SockJS session over one transport: frames in, messages out. Knows the wire, and nothing of choosing. */

var HEARTBEAT_MS = 25000;         /* the default of SockJS servers; silence is judged by it */
var SILENCE_BEATS = 2.8;
var LATE_MS = 5000, GRACE_MS = 10000;
var DRAIN_MS = 3000;
var TOO_LONG = 413;               /* HTTP's name for what a WebSocket calls 1009 */

function eachLine(text, take) {
  var lines = text.split('\n'), i;
  for (i = 0; i < lines.length; i += 1) {
    if (lines[i]) { take(lines[i]); }
  }
}

/* events: opened(), message(text), ended(code, reason, clean, error). ended comes once at most, and not after drop().
   settings: prefix, query, credentials, openMs, silenceMs. */
function openSession(name, driver, settings, events) {
  var over = false, opened = false, transport = null, openTimer, silenceTimer = null, heardAt, link;

  function drop() {
    over = true;
    clearTimeout(openTimer);
    clearTimeout(silenceTimer);
    if (transport) { transport.close(); }
  }

  function end(code, reason, clean, error) {
    if (over) { return; }
    drop();
    events.ended(code, reason, clean, error);
  }

  function lost(step, status, why, hint) {
    end(status === TOO_LONG ? 1009 : 1006, why, false, failure(step, why, { transport: name, status: status, hint: hint }));
  }

  /* A timer that runs late tells that the machine slept or the page was frozen: give the network a moment then. */
  function watchSilence(ms) {
    var due = now() + ms;
    silenceTimer = setTimeout(function () {
      var quiet = now() - heardAt;
      if (quiet < settings.silenceMs) { watchSilence(settings.silenceMs - quiet); return; }
      if (now() - due > LATE_MS) { watchSilence(GRACE_MS); return; }
      lost('receiving', undefined, 'nothing came for ' + Math.round(quiet / 1000) + ' seconds, not even a heartbeat',
        'look at the network, and for a proxy that holds back answers');
    }, ms);
  }

  function take(text) {
    var kind = text.charAt(0), value, i;
    if (over) { return; }
    heardAt = now();
    if (kind === 'h') { return; }
    if (text === 'o') {
      if (opened) { lost('receiving', undefined, 'the server has lost the session and began another'); return; }
      opened = true;
      clearTimeout(openTimer);
      if (settings.silenceMs) { watchSilence(settings.silenceMs); }
      events.opened();
      return;
    }
    value = text.length > 1 ? decodeJson(text.slice(1)) : undefined;
    if (kind === 'c' && isArray(value)) { end(Number(value[0]) || 1005, String(value[1] || ''), true, null); return; }
    if (kind === 'm') { value = [value]; }
    if (!opened || (kind !== 'a' && kind !== 'm') || !isArray(value)) {
      lost('reading a frame', undefined, 'not SockJS: ' + text.slice(0, 60), 'look whether the URL is that of a SockJS endpoint');
      return;
    }
    for (i = 0; i < value.length && !over; i += 1) {
      if (typeof value[i] === 'string') { events.message(value[i]); }
    }
  }

  link = {
    prefix: settings.prefix,
    query: settings.query,
    credentials: settings.credentials,
    base: settings.prefix + '/' + randomText('0123456789', 3) + '/' +
      randomText('abcdefghijklmnopqrstuvwxyz0123456789', 16),
    over: function () { return over; },
    address: function (path) {
      var url = withQuery(link.base + path, link.query);
      return path === '/websocket' ? url : uncached(url);
    },
    frame: take,
    lines: function (text) { eachLine(text, take); },
    broken: function (step, status, text, why) {
      var crossOrigin = !isSameOrigin(settings.prefix);
      if (status === 404 && opened) {
        lost(step, status, 'the server no longer knows the session', 'it was restarted, or another process behind a balancer answered');
      } else {
        lost(step, status, why || (status ? 'HTTP ' + status + (text ? ' ' + text.slice(0, 100) : '') : 'no answer'),
          why && status === undefined ? undefined : advice(status, crossOrigin));
      }
    }
  };

  openTimer = setTimeout(function () {
    lost('opening', undefined, 'nothing came within ' + settings.openMs + ' ms', 'look for a proxy that holds back answers');
  }, settings.openMs);
  try {
    transport = driver(link);
  } catch (e) {
    transport = null;
    setTimeout(function () { lost('opening', undefined, 'the browser threw: ' + (e.message || e)); }, 0);
  }
  if (over && transport) { transport.close(); }

  return {
    send: function (text) { if (!over && transport) { transport.send(text); } },
    unsent: function () { return transport && !over ? transport.unsent() : 0; },
    drop: drop,
    /* Politely: what waits is sent first. done() comes once. */
    close: function (done) {
      var timer;
      function finish() {
        if (!done) { return; }
        var tell = done;
        done = null;
        clearTimeout(timer);
        drop();
        tell();
      }
      if (over || !opened || !transport.unsent()) { finish(); return; }
      timer = setTimeout(finish, DRAIN_MS);
      transport.drained(finish);
    }
  };
}

/* Which transport? Asks /info, walks down the ladder from the best that this browser has, and keeps to what works.
   A transport counts as working when the open frame of SockJS has come through it: a WebSocket that opens and carries
   nothing does not. */

var MIN_OPEN_MS = 3000, MAX_OPEN_MS = 15000, INFO_MS = 10000, UNKNOWN_RTT_MS = 1000;
var OPEN_TRIPS = 6, FRAME_TRIPS = 12;       /* round trips that opening may take, tripled for bad networks */

function needsXhr(address) {
  return canXhr(address) ? '' : 'no XMLHttpRequest that reaches this origin';
}

/* Reading an answer while it grows came to browsers together with withCredentials. */
function needsProgress() {
  if (root.opera) { return 'old Opera tells of the first piece of an answer only'; }
  return hasCors() ? '' : 'no XMLHttpRequest that can be read while it grows';
}

function needsXdr(address, info) {
  if (!hasXdr(address)) { return root.XDomainRequest ? 'XDomainRequest cannot go from http to https or back' : 'no XDomainRequest'; }
  return info.cookie_needed ? 'the server needs a cookie, and XDomainRequest sends none' : '';
}

function needsEventSource(address) {
  if (!root.EventSource) { return 'no EventSource'; }
  return canRequest(address) ? '' : 'nothing to send with to this origin';
}

function needsHtmlfile(address) {
  if (!root.document) { return 'no document'; }
  if (root.ActiveXObject && !newHtmlfile()) { return 'no "htmlfile" object'; }
  return '';
}

function needsBridge(inner) {
  return function (address, info) {
    if (!root.document || !root.postMessage) { return 'no postMessage'; }
    return isSameOrigin(address) ? 'the page is of the same origin' : inner(pageOrigin() || address, info);
  };
}

var LADDER = [
  { name: 'websocket', driver: webSocketTransport, trips: OPEN_TRIPS, needs: function (address, info) {
    if (!NativeWebSocket) { return 'no WebSocket'; }
    return info.websocket === false ? 'the server has it switched off' : '';
  } },
  { name: 'xhr-streaming', driver: streamingTransport(startXhr), trips: OPEN_TRIPS, needs: needsProgress },
  { name: 'eventsource', driver: eventSourceTransport, trips: OPEN_TRIPS, needs: needsEventSource },
  { name: 'htmlfile', driver: htmlfileTransport, trips: OPEN_TRIPS, needs: function (address) {
    return isSameOrigin(address) ? needsHtmlfile(address) || needsXhr(address) : 'the page is of another origin';
  } },
  { name: 'xdr-streaming', driver: streamingTransport(startXdr), trips: OPEN_TRIPS, needs: needsXdr },
  { name: 'iframe-eventsource', driver: bridgedTransport('eventsource'), trips: FRAME_TRIPS, needs: needsBridge(needsEventSource) },
  { name: 'iframe-htmlfile', driver: bridgedTransport('htmlfile'), trips: FRAME_TRIPS, needs: needsBridge(function (address) {
    return needsHtmlfile(address) || needsXhr(address);
  }) },
  { name: 'xhr-polling', driver: pollingTransport(startXhr), trips: OPEN_TRIPS, needs: needsXhr },
  { name: 'xdr-polling', driver: pollingTransport(startXdr), trips: OPEN_TRIPS, needs: needsXdr },
  { name: 'iframe-xhr-polling', driver: bridgedTransport('xhr-polling'), trips: FRAME_TRIPS, needs: needsBridge(needsXhr) },
  { name: 'jsonp-polling', driver: jsonpTransport, trips: OPEN_TRIPS, needs: function () { return root.document ? '' : 'no document'; } }
];

/* What the hidden page of a bridge can run. */
var BRIDGED = {
  eventsource: eventSourceTransport,
  htmlfile: htmlfileTransport,
  'xhr-polling': pollingTransport(startXhr)
};

function ladderStep(name) {
  var i;
  for (i = 0; i < LADDER.length; i += 1) {
    if (LADDER[i].name === name) { return LADDER[i]; }
  }
  throw failure('reading the option transports', 'there is no "' + name + '"', { hint: 'there are ' + transportNames().join(', ') });
}

function transportNames() {
  var names = [], i;
  for (i = 0; i < LADDER.length; i += 1) { names.push(LADDER[i].name); }
  return names;
}

/* A page that names its transports means them, in that order: it neither asks the memory nor leaves its choice there for
   the other pages of the site, unless it says so. */
function usesMemory(options) {
  return options.remember === undefined ? !options.transports : !!options.remember;
}

/* The names in the order to try: what worked last first, those to avoid last. */
function transportOrder(url, options) {
  var allowed = isArray(options.transports) ? options.transports : options.transports ? [options.transports] : transportNames();
  var avoid = options.avoid || [], remembered = usesMemory(options) ? recallTransport(url) : null;
  var first = [], middle = [], last = [], i;
  for (i = 0; i < allowed.length; i += 1) {
    ladderStep(allowed[i]);
    (indexOf(avoid, allowed[i]) >= 0 ? last : allowed[i] === remembered ? first : middle).push(allowed[i]);
  }
  return first.concat(middle, last);
}

/* done(info, rttMs, credentials, error) */
function askInfo(prefix, query, options, done) {
  var url = withQuery(prefix + '/info', query), crossOrigin = !isSameOrigin(prefix), call = null, timer, startedAt, bridge = null;
  function finish(info, rtt, credentials, error) {
    if (!done) { return; }
    var tell = done;
    done = null;
    clearTimeout(timer);
    if (call) { call.stop(); }
    if (bridge) { bridge.close(); }
    tell(info, rtt, credentials, error);
  }
  function answered(status, text, credentials) {
    var info = status === 200 ? decodeJson(text) : null;
    if (info && typeof info === 'object' && !isArray(info)) { finish(info, now() - startedAt, credentials, null); return; }
    finish(null, 0, credentials, failure('asking ' + prefix + '/info', status === 200 ? 'the answer is not that of a SockJS endpoint' :
      status ? 'HTTP ' + status : 'no answer', { transport: undefined, status: status,
      hint: status === 200 ? 'look at the URL and at the path option' : advice(status, crossOrigin) }));
  }
  function ask(credentials) {
    startedAt = now();
    call = httpRequest('GET', uncached(url), null, credentials, function (isOver, status, text) {
      if (!isOver) { return; }
      call = null;
      /* A server that lets in all origins must not let in their cookies, and browsers then hide the answer. */
      if (status === 0 && credentials && crossOrigin) { ask(false); } else { answered(status, text, credentials); }
    });
  }
  timer = setTimeout(function () {
    if (bridge) { finish({}, UNKNOWN_RTT_MS, true, null); return; }      /* JSONP may still work */
    finish(null, 0, true, failure('asking ' + prefix + '/info', 'no answer within ' + INFO_MS / 1000 + ' seconds',
      { hint: advice(0, crossOrigin) }));
  }, INFO_MS);
  if (options.info && typeof options.info === 'object') {
    setTimeout(function () { finish(options.info, UNKNOWN_RTT_MS, options.credentials !== false, null); }, 0);
  } else if (canRequest(prefix)) {
    ask(options.credentials !== false);
  } else if (root.document && root.postMessage && newXhr()) {
    startedAt = now();
    bridge = openBridge(prefix, query, function (letter, body) {
      var facts = letter === 'i' ? decodeJson(body) : null;
      if (letter === 'r') { bridge.post('i', ''); }
      if (isArray(facts)) { answered(facts[0], facts[1], true); }
    });
  } else {
    /* Nothing here can ask: JSONP then finds out. */
    setTimeout(function () { finish({}, UNKNOWN_RTT_MS, true, null); }, 0);
  }
  return { stop: function () { done = null; clearTimeout(timer); if (call) { call.stop(); } if (bridge) { bridge.close(); } } };
}

/* Opens a session over the best transport that works.
   events: trying(name), opened(name), message(text), ended(code, reason, clean, error), once and last. */
function dial(address, options, events) {
  var prefix = address.origin + address.path.replace(/\/+$/, ''), over = false, session = null, question, names, failures = [];
  function end(code, reason, clean, error) {
    over = true;
    events.ended(code, reason, clean, error);
  }
  function openMs(rtt, step) {
    return options.openTimeout || Math.min(MAX_OPEN_MS, Math.max(step.trips === FRAME_TRIPS ? 2 * MIN_OPEN_MS : MIN_OPEN_MS,
      rtt * step.trips));
  }
  function next(info, rtt, credentials) {
    var name, step, lack, opened = false;
    if (over) { return; }
    session = null;
    name = names.shift();
    if (name === undefined) { giveUp(); return; }
    step = ladderStep(name);
    lack = step.needs(prefix, info);
    if (lack) {
      failures.push(failure('choosing', lack, { transport: name }));
      next(info, rtt, credentials);
      return;
    }
    events.trying(name);
    if (over) { return; }
    session = openSession(name, step.driver, {
      prefix: prefix, query: address.query, credentials: credentials, openMs: openMs(rtt, step),
      silenceMs: options.silence === undefined ? HEARTBEAT_MS * SILENCE_BEATS : options.silence
    }, {
      opened: function () {
        opened = true;
        if (usesMemory(options)) { rememberTransport(prefix, name); }
        events.opened(name);
      },
      message: function (text) { events.message(text); },
      ended: function (code, reason, clean, error) {
        if (over) { return; }
        if (opened || clean) { end(code, reason, clean, error); return; }
        failures.push(error);
        setTimeout(function () { next(info, rtt, credentials); }, 0);
      }
    });
  }
  function giveUp() {
    var tried = [], i, last;
    for (i = 0; i < failures.length; i += 1) {
      tried.push(failures[i].message);
      if (failures[i].step !== 'choosing') { last = failures[i]; }
    }
    rememberTransport(prefix, null);
    end(1006, 'No transport works', false, failure('connecting to ' + prefix, 'no transport works: ' + tried.join(' | '), {
      transport: undefined, status: last && last.status, causes: failures
    }));
  }
  names = transportOrder(prefix, options);
  question = askInfo(prefix, address.query, options, function (info, rtt, credentials, error) {
    if (over) { return; }
    if (error) { end(1006, error.message, false, error); return; }
    whenBody(function () { next(info, rtt, credentials); });
  });
  return {
    send: function (text) { if (session) { session.send(text); } },
    unsent: function () { return session ? session.unsent() : 0; },
    close: function (done) { over = true; question.stop(); if (session) { session.close(done); } else { done(); } },
    drop: function () { over = true; question.stop(); if (session) { session.drop(); } }
  };
}

/* Frames, forms and scripts need a body to be in. */
function whenBody(ready) {
  if (!root.document || root.document.body) { ready(); } else { setTimeout(function () { whenBody(ready); }, 10); }
}

/* When to come back: growing delays with jitter and a ceiling, and which close codes mean "do not". */

var NEVER_RETURN = { 1000: 1, 1003: 1, 1005: 1, 1007: 1, 1008: 1, 1009: 1, 1010: 1 };
var MAX_DOUBLINGS = 30;

/* The server's table of close reasons: 3000 to 3999 are the application's goodbye; 4008 (too slow) may return. */
function mayReturn(code, reason) {
  if (code === 1002) { return reason !== 'Protocol error'; }
  return !NEVER_RETURN[code] && !(code >= 3000 && code < 4000);
}

/* attempt counts from 1; random is a number from 0 to 1. */
function backoffDelay(attempt, options, random) {
  var delay = Math.min(options.reconnectionDelayMax, options.reconnectionDelay * Math.pow(2, Math.min(attempt - 1, MAX_DOUBLINGS)));
  var spread = delay * options.randomizationFactor;
  return Math.max(0, Math.min(options.reconnectionDelayMax, Math.round(delay - spread + 2 * spread * random)));
}

var RECONNECTION = { reconnectionDelay: 1000, reconnectionDelayMax: 10000, randomizationFactor: 0.5, reconnectionAttempts: Infinity };

/* The page goes and may come back. Modern browsers keep a page that the user leaves (back/forward cache), unless it
   listens to unload or holds connections: so let go at pagehide, and come back at pageshow. Only browsers without
   pagehide get an unload handler. */

var living = [], watching = false;

function goAway() {
  var list = living.slice(0), i;
  for (i = 0; i < list.length; i += 1) { list[i].suspend(); }
}

function comeBack() {
  var list = living.slice(0), i;
  for (i = 0; i < list.length; i += 1) { list[i].resume(); }
}

/* thing: suspend() lets its connection go without a word; resume() finds out that it is gone. */
function watchPage(thing) {
  living.push(thing);
  if (watching) { return; }
  watching = true;
  if ('onpagehide' in root) {
    addWindowListener('pagehide', goAway);
    addWindowListener('pageshow', comeBack);
  } else {
    addWindowListener('unload', goAway);
  }
}

function unwatchPage(thing) {
  var at = indexOf(living, thing);
  if (at >= 0) { living.splice(at, 1); }
}

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

/* Socket.IO's packets (protocol 5) as SockJS messages: a text, then each attachment as "b" and base64.
   Pure: values to texts and back. */

var CONNECT = 0, DISCONNECT = 1, EVENT = 2, ACK = 3, CONNECT_ERROR = 4, BINARY_EVENT = 5, BINARY_ACK = 6;
var PACKET_HEAD = /^([0-6])(?:(\d{1,6})-)?(?:(\/[^,]*)(?:,|$))?(\d{1,15})?/;
var MAX_ATTACHMENTS = 1000;
var MAX_PACKET_DEPTH = 500;
var RESERVED = { $connect: 1, $connect_error: 1, $disconnect: 1, $disconnecting: 1, $newListener: 1, $removeListener: 1 };

/* A copy with placeholders where bytes were; the value itself where there are none. */
function takeBinary(value, attachments, depth) {
  var copy, name, i;
  if (!value || typeof value !== 'object') { return value; }
  if (depth > MAX_PACKET_DEPTH) { throw new TypeError('the value is nested too deep, or holds itself'); }
  if (isBuffer(value)) {
    attachments.push(value);
    return { _placeholder: true, num: attachments.length - 1 };
  }
  if (isArray(value)) {
    copy = [];
    for (i = 0; i < value.length; i += 1) { copy.push(takeBinary(value[i], attachments, depth + 1)); }
    return copy;
  }
  if (isFunction(value.toJSON) || kindOf(value) !== 'Object') { return value; }
  copy = {};
  for (name in value) {
    if (has(value, name)) { copy[name] = takeBinary(value[name], attachments, depth + 1); }
  }
  return copy;
}

function putBinary(value, attachments) {
  var name, i;
  if (isArray(value)) {
    for (i = 0; i < value.length; i += 1) { value[i] = putBinary(value[i], attachments); }
  } else if (value && typeof value === 'object') {
    if (value._placeholder === true) {
      if (typeof value.num !== 'number' || !(value.num >= 0 && value.num < attachments.length) || value.num % 1) {
        throw failure('reading a packet', 'a placeholder names no attachment');
      }
      return attachments[value.num];
    }
    for (name in value) {
      if (has(value, name)) { value[name] = putBinary(value[name], attachments); }
    }
  }
  return value;
}

/* packet: {type, nsp, id, data}; returns the texts to send. */
function encodePacket(packet) {
  var type = packet.type, data = packet.data, attachments = [], texts, i;
  if ((type === EVENT || type === ACK) && root.ArrayBuffer) {
    data = takeBinary(data, attachments, 0);
    if (attachments.length) { type += 3; }
  }
  texts = [type + (attachments.length ? attachments.length + '-' : '') + (packet.nsp === '/' ? '' : packet.nsp + ',') +
    (packet.id === undefined || packet.id === null ? '' : packet.id) + (data === undefined || data === null ? '' : encodeJson(data))];
  for (i = 0; i < attachments.length; i += 1) { texts.push('b' + toBase64(bytesOf(attachments[i]))); }
  return texts;
}

/* feed(text) returns a packet, or null where more must come; throws for what is no packet. */
function PacketReader() {
  this._waiting = null;
  this._missing = 0;
  this._attachments = [];
}

PacketReader.prototype.feed = function (text) {
  var parts, type, body, packet, bytes;
  if (text.charAt(0) === 'b') {
    bytes = fromBase64(text.slice(1));
    if (!this._waiting || !bytes) { throw failure('reading a packet', 'an attachment that is not base64, or that nothing announced'); }
    this._attachments.push(bytes);
    if (this._attachments.length < this._missing) { return null; }
    packet = this._waiting;
    this._waiting = null;
    packet.data = putBinary(packet.data, this._attachments);
    return packet;
  }
  parts = PACKET_HEAD.exec(text);
  if (!parts || this._waiting) { throw failure('reading a packet', 'not a packet: ' + text.slice(0, 60)); }
  type = Number(parts[1]);
  body = text.slice(parts[0].length);
  packet = { type: type, nsp: parts[3] || '/', id: parts[4] ? Number(parts[4]) : undefined, data: body ? decodeJson(body) : undefined };
  if ((body && packet.data === undefined) || Boolean(parts[2]) !== (type >= BINARY_EVENT)) {
    throw failure('reading a packet', 'not a packet: ' + text.slice(0, 60));
  }
  if (type >= BINARY_EVENT) { packet.type = type -= 3; }
  if ((type === EVENT || type === ACK) && !isArray(packet.data)) { throw failure('reading a packet', 'an event or an ack without its array'); }
  if (type === EVENT && typeof packet.data[0] !== 'string' && typeof packet.data[0] !== 'number') {
    throw failure('reading a packet', 'an event without a name');
  }
  if (type === ACK && packet.id === undefined) { throw failure('reading a packet', 'an ack without the id it answers'); }
  if ((type === CONNECT || type === DISCONNECT) && (packet.id !== undefined || (body && (type === DISCONNECT || kindOf(packet.data) !== 'Object')))) {
    throw failure('reading a packet', 'a connect or disconnect that carries what it cannot');
  }
  if (!parts[2]) { return packet; }
  this._missing = Number(parts[2]);
  if (!this._missing || this._missing > MAX_ATTACHMENTS) { throw failure('reading a packet', 'too many attachments, or none'); }
  this._waiting = packet;
  this._attachments = [];
  return null;
};

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

/* io(url[, options]): the Socket.IO client API. The path of the URL is the namespace; where the server is mounted is the
   option path. Sockets of one server share one connection. */

var managers = {};

function io(url, options) {
  var address, name, key, manager, socket;
  if (url && typeof url === 'object' && options === undefined) {
    options = url;
    url = undefined;
  }
  address = parseUrl(url === undefined || url === null || url === '' ? '/' : url);
  options = readOptions(options);
  address.query = withQuery(address.query, queryText(options.query));
  name = namespaceName(address.path);
  transportOrder('', options);
  key = address.origin + options.path + address.query;
  manager = options.forceNew ? null : managers[key];
  if (!manager) {
    manager = new Manager(address, options);
    if (!options.forceNew) { managers[key] = manager; }
  }
  socket = manager.socket(name);
  if (options.autoConnect) { socket.connect(); }
  return socket;
}

function queryText(query) {
  var parts = [], name;
  if (!query || typeof query !== 'object') { return String(query || ''); }
  for (name in query) {
    if (has(query, name)) { parts.push(encodeURIComponent(name) + '=' + encodeURIComponent(query[name])); }
  }
  return parts.join('&');
}

io.connect = io;
io.Manager = Manager;
io.Socket = Socket;
io.version = VERSION;

/* polysock.install(): a window.WebSocket for pages whose browser or network has none. new WebSocket("ws://host/path")
   then talks to the SockJS endpoint (a polysock Connection) that is mounted at /path. */

/* options: force - also where there is one; map - function (url) to the address of the endpoint; and those of PolySock.
   Returns whether the page now uses ours. */
function install(options) {
  var name;
  options = options || {};
  if (root.WebSocket && !options.force) { return Boolean(root.WebSocket.isPolySock); }
  function WebSocket(url, protocols) {
    if (!arguments.length) { throw new TypeError('new WebSocket() needs a URL'); }
    beginPolySock(this, options.map ? options.map(String(url)) : url, protocols, merged({ reconnect: false }, options));
    if (options.map) { this.url = String(url); }
  }
  function Surrogate() {}
  Surrogate.prototype = PolySock.prototype;
  WebSocket.prototype = new Surrogate();
  WebSocket.prototype.constructor = WebSocket;
  for (name in STATES) {
    if (has(STATES, name)) { WebSocket[name] = STATES[name]; }
  }
  WebSocket.isPolySock = true;
  try {
    root.WebSocket = WebSocket;
  } catch (e) { /* read only, in strict engines */ }
  return root.WebSocket === WebSocket;
}

/* What the outside sees. */

var polysock = {
  version: VERSION,
  PolySock: PolySock,
  io: io,
  install: install,
  transports: transportNames(),
  /* Forget which transports worked. */
  forget: function () {
    memory = {};
    try { root.localStorage.removeItem(MEMORY_KEY); } catch (e) { /* there is none */ }
  },
  /* Pure parts, for tests and for other programs. */
  parts: {
    encodeJson: encodeJson, decodeJson: decodeJson, parseUrl: parseUrl, encodePacket: encodePacket, PacketReader: PacketReader,
    backoffDelay: backoffDelay, mayReturn: mayReturn, isBuffer: isBuffer, toBase64: toBase64, fromBase64: fromBase64, utf8Length: utf8Length,
    transportOrder: transportOrder, Emitter: Emitter, trigger: trigger
  }
};

/* As the script of a SockJS iframe page, this file is called by the name that the protocol gives it. */
if (page && root.parent !== root && /\/iframe[^\/]*\.html$/.test(page.pathname) && !root.SockJS) {
  root.SockJS = { bootstrap_iframe: bootstrapIframe };
}

export { PolySock, install, io };
export default polysock;
