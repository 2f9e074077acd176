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
