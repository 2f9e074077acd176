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
