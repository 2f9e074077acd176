/* The transport lab: opens an echo over each SockJS transport in turn and shows the wire.
   Knows the SockJS wire and nothing of any client library. ECMAScript 3 throughout, because the
   browsers that need the older transports parse nothing newer. */
(function () {
  var OPEN_MS = 8000, STEP_MS = 8000, TRIAL_MS = 30000, SILENCE_MS = 4000, PROBE_MS = 3000, SCRIPT_GRACE_MS = 500;
  var PAINT_MS = 80, FORM_LIFE_MS = 5000, UNSENT_TURNS = 20, UNSENT_TURN_MS = 5;
  var ECHOES = 10, BURST = 20, LONG_CHARS = 6000;
  /* A burst of this size passes the 128 KiB after which the server ends a streaming response, so that
     each streaming trial also proves that nothing is lost between one response and the next. */
  var STREAM_BURST_CHARS = 7000, POST_CHARS = 32768;
  var LOG_LINES = 160, LOG_CHARS = 110, BAR_PX = 36;
  var ODD = '"quotes" \'single\' back\\slash </script><!-- ]]> & % + tab\there line\nfeed ' +
    '\u00e9 \u00df \u20ac \u6f22 \ud83d\ude00 \u200d \u2028 \u2029 \ufeff end';
  var OWN = 'Hello "polysock" </script> \u00e9 \ud83d\ude00 \u2028 \\ end';

  var performance_ = window.performance, lab = window._lab = {}, serial = 0, domainSet = false, holdsBack = false;

  function nothing() {}

  function now() {
    return performance_ && performance_.now ? performance_.now() : new Date().getTime();
  }

  function uniqueName(letter) {
    serial += 1;
    return letter + serial;
  }

  /* ---- JSON, for browsers that have no JSON object -------------------------------------------- */

  function escapeUnit(unit) {
    return '\\u' + ('0000' + unit.charCodeAt(0).toString(16)).slice(-4);
  }

  function quote(text) {
    /* The ranges are what SockJS escapes: some browser or proxy mangles each of them. */
    return '"' + text.replace(/["\\]/g, '\\$&').replace(
      /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\uffff]/g,
      escapeUnit) + '"';
  }

  function encode(value) {
    var parts = [], name, i;
    if (typeof value === 'string') { return quote(value); }
    if (typeof value === 'number') { return isFinite(value) ? String(value) : 'null'; }
    if (value === null || typeof value !== 'object') { return value ? 'true' : value === false ? 'false' : 'null'; }
    if (Object.prototype.toString.call(value) === '[object Array]') {
      for (i = 0; i < value.length; i += 1) { parts.push(encode(value[i])); }
      return '[' + parts.join(',') + ']';
    }
    for (name in value) {
      if (Object.prototype.hasOwnProperty.call(value, name)) { parts.push(quote(name) + ':' + encode(value[name])); }
    }
    return '{' + parts.join(',') + '}';
  }

  /* undefined when the text is not JSON. Without JSON.parse the text is evaluated, but only after it has
     been shown to hold nothing except strings, numbers, literals and punctuation. */
  function decode(text) {
    if (window.JSON && window.JSON.parse) {
      try { return window.JSON.parse(text); } catch (e) { return undefined; }
    }
    text = text.replace(/[\u0000\u00ad\u0600-\u0604\u070f\u17b4\u17b5\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff0-\uffff]/g,
      escapeUnit);
    if (!(/^[\],:{}\s]*$/).test(text.replace(/\\(?:["\\\/bfnrt]|u[0-9a-fA-F]{4})/g, '@')
        .replace(/"[^"\\\u0000-\u001f]*"|true|false|null|-?\d+(?:\.\d+)?(?:[eE][+\-]?\d+)?/g, ']')
        .replace(/(?:^|:|,)(?:\s*\[)+/g, ''))) {
      return undefined;
    }
    try { return new Function('return (' + text + ');')(); } catch (e2) { return undefined; }
  }

  function isArray(value) {
    return Object.prototype.toString.call(value) === '[object Array]';
  }

  /* ---- Showing text and numbers ---------------------------------------------------------------- */

  function visible(text) {
    var length = text.length, cut;
    if (/^h{9,}$/.test(text)) { return 'hhhhhhhh\u2026 (prelude: ' + length + ' letters h)'; }
    if (length > LOG_CHARS) {
      cut = text.charCodeAt(LOG_CHARS - 1);
      text = text.slice(0, cut >= 0xd800 && cut < 0xdc00 ? LOG_CHARS - 1 : LOG_CHARS);
    }
    text = text.replace(
      /[\u0000-\u001f\u007f-\u009f\u00ad\u0600-\u0605\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff0-\uffff]/g, escapeUnit);
    return length > LOG_CHARS ? text + '\u2026 (' + length + ' characters)' : text;
  }

  function milliseconds(value) {
    if (value < 1 && performance_ && performance_.now && value > 0.05) { return value.toFixed(1) + ' ms'; }
    if (value < 1) { return '< 1 ms'; }
    return (value < 10 ? String(Math.round(value * 10) / 10) : String(Math.round(value))) + ' ms';
  }

  function browserName(agent) {
    var known = [
      [/HtmlUnit\/?([\d.]*)/, 'HtmlUnit'], [/PhantomJS\/([\d.]+)/, 'PhantomJS'], [/Edg\w*\/(\d+)/, 'Edge'],
      [/(?:OPR\/|Opera[ \/])([\d.]+)/, 'Opera'], [/Firefox\/([\d.]+)/, 'Firefox'], [/MSIE ([\d.]+)/, 'Internet Explorer'],
      [/Trident\/.*rv:([\d.]+)/, 'Internet Explorer'], [/Konqueror\/([\d.]+)/, 'Konqueror'],
      [/(?:Headless)?Chrom\w*\/(\d+)/, 'Chrome or Chromium'], [/Version\/([\d.]+).*Safari/, 'Safari'],
      [/AppleWebKit\/(\d+)/, 'a WebKit browser, build']
    ], i, hit;
    for (i = 0; i < known.length; i += 1) {
      hit = known[i][0].exec(agent);
      if (hit) { return known[i][1] + (hit[1] ? ' ' + hit[1] : ''); }
    }
    return 'a browser this page does not know by name';
  }

  /* ---- HTTP ------------------------------------------------------------------------------------ */

  function newXhr() {
    if (window.XMLHttpRequest) {
      try { return new window.XMLHttpRequest(); } catch (e) { /* IE 7 with native XMLHTTP switched off */ }
    }
    if (window.ActiveXObject) {
      try { return new window.ActiveXObject('Microsoft.XMLHTTP'); } catch (e2) { return null; }
    }
    return null;
  }

  function statusOf(xhr) {
    var status = 0;
    try { status = xhr.status; } catch (e) { /* old IE throws before the end */ }
    return status === 1223 ? 204 : status;      /* IE's name for 204 */
  }

  /* null: this browser refuses to show the text yet */
  function textOf(xhr) {
    try { return typeof xhr.responseText === 'string' ? xhr.responseText : null; } catch (e) { return null; }
  }

  function request(method, url, body, changed) {
    var xhr = newXhr(), live = true;
    function stop() {
      if (!live) { return; }
      live = false;
      xhr.onreadystatechange = nothing;         /* not null: ActiveX wants a function */
      try { xhr.abort(); } catch (e) { /* it was never sent */ }
    }
    xhr.open(method, url, true);
    if (body !== null) { xhr.setRequestHeader('Content-Type', 'text/plain;charset=UTF-8'); }
    xhr.onreadystatechange = function () {
      if (live) { changed(xhr.readyState, xhr); }
    };
    xhr.send(body);
    return { stop: stop };
  }

  /* Which status does this address answer? Frames, scripts and sockets do not tell. */
  function probe(method, url, done) {
    var call = null, timer;
    function finish(status) {
      if (!done) { return; }
      var tell = done;
      done = null;
      clearTimeout(timer);
      if (call) { call.stop(); }
      tell(status);
    }
    if (!newXhr()) { done(-1); return; }
    timer = setTimeout(function () { finish(0); }, PROBE_MS);
    call = request(method, url, method === 'POST' ? '' : null, function (state, xhr) {
      var status = state > 1 ? statusOf(xhr) : 0;
      if (status || state === 4) { finish(status); }
    });
  }

  function advice(status, path) {
    if (status < 0) { return 'This browser has no XMLHttpRequest to ask for the status.'; }
    if (status === 0) { return 'No HTTP answer at all: is the server running, and does a proxy or an extension stand between?'; }
    if (status === 101 || ((status === 400 || status === 426) && /websocket$/.test(path))) {
      return 'The address answers plain HTTP (' + status + '), so look for a proxy that drops the Upgrade header.';
    }
    if (status === 403) { return 'HTTP 403: refused; look at the origin rules of the server.'; }
    if (status === 404) { return 'HTTP 404: look at the prefix' + (path ? ', and whether this transport is switched on.' : '.'); }
    if (status === 405) { return 'HTTP 405: the address does not take this method; look at the routes.'; }
    if (status >= 500) { return 'HTTP ' + status + ': look at the log of the server.'; }
    if (status >= 400) { return 'HTTP ' + status + ': refused; look at the log of the server.'; }
    return 'The address answers HTTP ' + status + ', so look for something that holds back or changes the body.';
  }

  /* ---- Transports ------------------------------------------------------------------------------
     driver(base, line) starts one and returns {send: function (message), close: function ()}.
     line: over(), log(direction, text), frame(text), lines(text), cannot(why), broken(step, status, method, path).
     Every driver releases what it took in close(), which may be called from inside any of its callbacks. */

  /* One POST at a time: two on different connections could overtake each other. The turn of the
     event loop that calls send() ends before the POST starts, so a burst travels together. */
  function sender(line, post) {
    var waiting = [], busy = false, timer = null;
    function flush() {
      var count = 0, size = 0, payload;
      timer = null;
      if (busy || !waiting.length || line.over()) { return; }
      while (count < waiting.length && (count === 0 || size + waiting[count].length <= POST_CHARS)) {
        size += waiting[count].length;
        count += 1;
      }
      payload = encode(waiting.splice(0, count));
      busy = true;
      post(payload, function () {
        busy = false;
        flush();
      });
    }
    return {
      send: function (message) {
        waiting.push(message);
        if (!busy && timer === null) { timer = setTimeout(flush, 0); }
      },
      unsent: function () { return waiting.length > 0; }
    };
  }

  function xhrSender(base, line, calls) {
    var out = sender(line, function (payload, done) {
      var path = base + '/xhr_send';
      line.log('out', 'POST /xhr_send ' + payload);
      calls.push(request('POST', path, payload, function (state, xhr) {
        var status;
        if (state !== 4 || line.over()) { return; }
        status = statusOf(xhr);
        calls.shift();
        if (status !== 204 && status !== 200) { line.broken('sending', status, 'POST', path); return; }
        done();
      }));
    });
    return out.send;
  }

  function stopAll(calls) {
    while (calls.length) { calls.pop().stop(); }
  }

  function socketDriver(path, wrap) {
    return function (base, line) {
      var Socket = window.WebSocket || window.MozWebSocket, opened = false, socket;
      var where = (path === 'raw' ? prefix : base) + '/websocket';
      var url = (location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + where;
      function release() {
        if (!socket) { return; }
        socket.onopen = socket.onmessage = socket.onclose = socket.onerror = nothing;
        try { socket.close(); } catch (e) { /* not yet open in some drafts */ }
        socket = null;
      }
      line.log('out', 'GET /websocket (upgrade)');
      try { socket = new Socket(url); } catch (e) {
        line.cannot('this browser refuses to open a WebSocket here: ' + (e.message || e));
        return { send: nothing, close: nothing };
      }
      socket.onopen = function () {
        opened = true;
        line.log('event', 'upgraded');
        if (path === 'raw') { line.opened(); }
      };
      socket.onmessage = function (event) {
        if (typeof event.data !== 'string') { line.log('in', 'a binary message'); return; }
        if (path === 'raw') { line.log('in', event.data); line.message(event.data); } else { line.frame(event.data); }
      };
      socket.onerror = nothing;
      socket.onclose = function (event) {
        if (!opened && !('binaryType' in socket)) {
          line.cannot('its WebSocket is an early draft (no binaryType), which this server does not speak');
        } else {
          line.broken(opened ? 'receiving (closed with code ' + event.code + ')' : 'opening', undefined, 'GET', where);
        }
      };
      return {
        send: function (message) {
          var text = wrap ? encode([message]) : message;
          line.log('out', text);
          socket.send(text);
        },
        close: release
      };
    };
  }

  function xhrPolling(base, line) {
    var calls = [], poll = null, timer = null, path = base + '/xhr';
    function again() {
      line.log('out', 'POST /xhr');
      poll = request('POST', path, '', function (state, xhr) {
        var status;
        if (state !== 4) { return; }
        status = statusOf(xhr);
        poll = null;
        if (status !== 200) { line.broken('receiving', status, 'POST', path); return; }
        line.lines(textOf(xhr) || '');
        if (!line.over()) { timer = setTimeout(again, 0); }
      });
    }
    again();
    return {
      send: xhrSender(base, line, calls),
      close: function () {
        clearTimeout(timer);
        if (poll) { poll.stop(); }
        stopAll(calls);
      }
    };
  }

  function xhrStreaming(base, line) {
    var calls = [], stream = null, timer = null, silence, heard = false, path = base + '/xhr_streaming';
    var reachedThree = false, refused = false;
    function again() {
      var seen = 0;
      line.log('out', 'POST /xhr_streaming');
      stream = request('POST', path, '', function (state, xhr) {
        var text, end, status;
        if (state < 3) { return; }
        text = textOf(xhr);
        if (state === 3) {
          reachedThree = true;
          refused = refused || text === null;
        }
        end = text ? text.lastIndexOf('\n') + 1 : 0;
        if (end > seen) {
          heard = true;
          holdsBack = false;
          text = text.slice(seen, end);
          seen = end;
          line.lines(text);
        }
        if (state !== 4 || line.over()) { return; }
        status = statusOf(xhr);
        stream = null;
        if (status !== 200 || !seen) { line.broken('receiving', status, 'POST', path); return; }
        line.log('event', 'response ended after ' + seen + ' characters; the next goes on');
        timer = setTimeout(again, 0);
      });
    }
    silence = setTimeout(function () {
      if (heard) { return; }
      if (refused) {
        line.cannot('readyState 3 comes, but reading its text throws before the end, so streaming cannot work here');
      } else if (reachedThree) {
        line.cannot('the text at readyState 3 is not readable before the end, so streaming cannot work here');
      } else {
        holdsBack = true;
        line.cannot('this browser (or a proxy) keeps a response to itself until its end: no byte in ' +
          SILENCE_MS / 1000 + ' s, so streaming cannot work here');
      }
    }, SILENCE_MS);
    again();
    return {
      send: xhrSender(base, line, calls),
      close: function () {
        clearTimeout(timer);
        clearTimeout(silence);
        if (stream) { stream.stop(); }
        stopAll(calls);
      }
    };
  }

  function eventSource(base, line) {
    var calls = [], source = null, timer = null, path = base + '/eventsource';
    function release() {
      clearTimeout(timer);
      if (source) {
        source.onmessage = source.onerror = nothing;
        source.close();
        source = null;
      }
    }
    function again() {
      var heard = 0;
      line.log('out', 'GET /eventsource');
      source = new window.EventSource(path);
      source.onmessage = function (event) {
        heard += 1;
        line.frame(String(event.data));
      };
      source.onerror = function () {
        /* Left alone it would come back by itself, but only after its retry time. */
        release();
        if (line.over()) { return; }
        if (!heard) { line.broken('receiving', undefined, 'GET', path); return; }
        line.log('event', 'response ended after ' + heard + ' frames; the next goes on');
        timer = setTimeout(again, 0);
      };
    }
    again();
    return {
      send: xhrSender(base, line, calls),
      close: function () {
        release();
        stopAll(calls);
      }
    };
  }

  function htmlfileObject() {
    try { return new window.ActiveXObject('htmlfile'); } catch (e) { return null; }
  }

  function foreverIframe(base, line) {
    var calls = [], timer = null, name = null, frame = null, apart = null;
    function release() {
      var oldFrame = frame, oldDocument = apart;
      clearTimeout(timer);
      if (name) { lab[name] = { start: nothing, message: nothing, stop: nothing }; }
      frame = apart = null;
      if (!oldFrame) { return; }
      oldFrame.onload = nothing;
      /* The call may come from a script of that very frame: let it end first. */
      setTimeout(function () {
        if (oldFrame.parentNode) { oldFrame.parentNode.removeChild(oldFrame); }
        if (oldDocument && window.CollectGarbage) { window.CollectGarbage(); }
      }, 0);
    }
    function again() {
      var heard = 0, path, holder;
      function ended() {
        release();
        if (line.over()) { return; }
        if (!heard) { line.broken('receiving', undefined, 'GET', path); return; }
        line.log('event', 'response ended after ' + heard + ' frames; the next goes on');
        timer = setTimeout(again, 0);
      }
      name = uniqueName('h');
      path = base + '/htmlfile?c=_lab.' + name;
      line.log('out', 'GET /htmlfile?c=_lab.' + name);
      lab[name] = {
        start: function () { line.log('event', 'the frame\'s first script ran'); },
        message: function (text) {
          heard += 1;
          line.frame(String(text));
        },
        stop: ended
      };
      apart = window.ActiveXObject ? htmlfileObject() : null;
      if (apart) {
        /* A document apart: no click sound for each navigation and no endless throbber in IE. */
        apart.open();
        apart.write('<html><s' + 'cript>document.domain="' + document.domain + '";</s' + 'cript></html>');
        apart.close();
        apart.parentWindow._lab = lab;
        holder = apart.createElement('div');
        apart.body.appendChild(holder);
        frame = apart.createElement('iframe');
        holder.appendChild(frame);
        frame.src = path;
      } else {
        /* The frame assigns document.domain; unless its parent does too, the two may not touch. */
        domainSet = true;
        try { document.domain = document.domain; } catch (e) { /* IE refuses some hosts */ }
        frame = document.createElement('iframe');
        frame.style.display = 'none';
        frame.src = path;
        frame.onload = ended;
        document.body.appendChild(frame);
      }
    }
    again();
    return {
      send: xhrSender(base, line, calls),
      close: function () {
        release();
        stopAll(calls);
      }
    };
  }

  /* Posts a payload as an ordinary form into a hidden frame. done(text): text is null where the answer
     cannot be read. */
  function postForm(path, payload, done) {
    var name = '_lab_' + uniqueName('f'), live = true, frame, form, area, timer;
    function finish() {
      var text = null;
      if (!live) { return; }
      if (!domainSet) {       /* afterwards plain frames are out of reach, and each try would fill the console */
        try { text = frame.contentWindow.document.body.innerHTML; } catch (e) { text = null; }
      }
      stop();
      done(text);
    }
    function stop() {
      if (!live) { return; }
      live = false;
      clearTimeout(timer);
      frame.onload = frame.onerror = frame.onreadystatechange = nothing;
      setTimeout(function () {
        form.parentNode.removeChild(form);
        frame.parentNode.removeChild(frame);
      }, 0);
    }
    try {
      frame = document.createElement('<iframe name="' + name + '">');   /* IE 6 and 7 ignore a name set later */
    } catch (e) {
      frame = document.createElement('iframe');
      frame.name = name;
    }
    frame.style.display = 'none';
    form = document.createElement('form');
    form.style.display = 'none';
    form.method = 'POST';
    form.action = path;
    form.target = name;
    form.enctype = 'application/x-www-form-urlencoded';
    form.acceptCharset = 'UTF-8';
    area = document.createElement('textarea');
    area.name = 'd';
    area.value = payload;
    form.appendChild(area);
    document.body.appendChild(frame);
    document.body.appendChild(form);
    form.submit();
    /* Only now: the empty frame has a load event of its own. */
    frame.onload = frame.onerror = finish;
    frame.onreadystatechange = function () {
      if (frame.readyState === 'complete') { finish(); }
    };
    timer = setTimeout(finish, FORM_LIFE_MS);
    return { stop: stop };
  }

  function jsonpPolling(base, line) {
    var calls = [], script = null, name = null, timer = null, grace = null, path = base + '/jsonp';
    var out = sender(line, function (payload, done) {
      var where = base + '/jsonp_send';
      line.log('out', 'form POST /jsonp_send d=' + payload);
      calls.push(postForm(where, payload, function (text) {
        calls.shift();
        if (line.over()) { return; }
        if (text !== null && text.length && !/\bok\b/i.test(text)) {
          line.broken('sending (answer: ' + visible(text.slice(0, 60)) + ')', undefined, 'POST', where);
        } else {
          done();
        }
      }));
    });
    function release() {
      var old = script;
      clearTimeout(timer);
      clearTimeout(grace);
      script = null;
      if (!old) { return; }
      old.onload = old.onerror = old.onreadystatechange = nothing;
      /* IE 6 crashes when a running script is taken out of the document. */
      setTimeout(function () { old.parentNode.removeChild(old); }, 0);
    }
    /* What waits to be sent goes first: an engine that blocks while it loads a script could not send it later. */
    function soon(turns) {
      timer = setTimeout(function () {
        if (turns && out.unsent()) { soon(turns - 1); } else { again(); }
      }, turns === UNSENT_TURNS ? 0 : UNSENT_TURN_MS);
    }
    function again() {
      var mine = name = uniqueName('j');
      function unanswered() {
        if (script) {
          release();
          line.broken('receiving', undefined, 'GET', path + '?c=_lab.' + mine);
        }
      }
      line.log('out', 'GET /jsonp?c=_lab.' + mine);
      lab[mine] = function (text) {
        lab[mine] = nothing;
        release();
        line.frame(String(text));
        if (!line.over()) { soon(UNSENT_TURNS); }
      };
      script = document.createElement('script');
      script.type = 'text/javascript';
      script.charset = 'UTF-8';
      script.onerror = unanswered;
      script.onload = function () {
        clearTimeout(grace);
        grace = setTimeout(unanswered, SCRIPT_GRACE_MS);
      };
      script.onreadystatechange = function () {       /* IE says "loaded" before it runs the script */
        if (script && /loaded|complete/.test(script.readyState)) { script.onload(); }
      };
      script.src = path + '?c=_lab.' + mine;
      document.getElementsByTagName('head')[0].appendChild(script);
    }
    again();
    return {
      send: out.send,
      close: function () {
        var pending = script !== null;
        lab[name] = nothing;
        release();
        stopAll(calls);
        /* No browser cancels a script's request. The echo of a last message ends it, where an old
           browser with two connections for a host would otherwise be short of one until a heartbeat. */
        if (pending) { postForm(base + '/jsonp_send', '["bye"]', nothing); }
      }
    };
  }

  function needXhr() {
    return newXhr() ? '' : 'this browser has no XMLHttpRequest (nor its ActiveX forerunner) to send with';
  }

  function needSocket() {
    if (!window.WebSocket && !window.MozWebSocket) { return 'this browser has no WebSocket object'; }
    return info && info.websocket === false ? 'the server says that WebSocket is switched off (websocket: false in its info)' : '';
  }

  /* In the order in which a SockJS client tries them. */
  var TRANSPORTS = [
    { name: 'websocket', how: 'One socket, SockJS frames both ways.', ladder: true, needs: needSocket,
      driver: socketDriver('session', true) },
    { name: 'xhr_streaming', how: 'One endless XMLHttpRequest answer to receive, one POST for each send. Browsers look at ' +
      'its progress only every 50 ms or so.', ladder: true, streaming: true, needs: needXhr, driver: xhrStreaming },
    { name: 'eventsource', how: 'Server-Sent Events to receive, one POST for each send.', ladder: true, streaming: true,
      needs: function () { return window.EventSource ? needXhr() : 'this browser has no EventSource object'; },
      driver: eventSource },
    { name: 'htmlfile', how: 'A forever-iframe: an endless page of script elements to receive, one POST for each send.',
      ladder: true, streaming: true,
      needs: function () {
        if (window.ActiveXObject && !htmlfileObject()) {
          return 'this browser has ActiveXObject but no "htmlfile" object in it, and an endless page in a plain frame ' +
            'could block such a browser';
        }
        /* Such an engine may load the endless page while its scripts stand still. */
        return holdsBack ? 'responses are held back until their end here (see xhr_streaming), so an endless page shows nothing' :
          needXhr();
      },
      driver: foreverIframe },
    { name: 'xhr', how: 'Long-polling: an XMLHttpRequest that is answered when there is news.', ladder: true,
      needs: needXhr, driver: xhrPolling },
    { name: 'jsonp', how: 'Script elements to receive, a hidden form into a hidden frame to send. Works almost everywhere.',
      ladder: true, needs: function () { return ''; }, driver: jsonpPolling },
    { name: 'websocket_raw', how: 'A bare WebSocket on /websocket, with no SockJS framing at all.', ladder: false,
      needs: needSocket, driver: socketDriver('raw', false) }
  ];

  /* ---- A session: frames in, messages out ------------------------------------------------------ */

  function randomText(alphabet, length) {
    var text = '';
    while (text.length < length) { text += alphabet.charAt(Math.floor(Math.random() * alphabet.length)); }
    return text;
  }

  /* events: log(direction, text), opened(), message(text), ended(state, why). ended() comes at most once, and
     not after close(). */
  function openSession(transport, events) {
    var over = false, opened = false, driver = null, timer = null;
    var base = prefix + '/' + randomText('0123456789', 3) + '/' + randomText('abcdefghijklmnopqrstuvwxyz0123456789', 8);
    function shut() {
      over = true;
      clearTimeout(timer);
      if (driver) { driver.close(); }
    }
    function end(state, why) {
      if (over) { return; }
      shut();
      events.ended(state, why);
    }
    var line = {
      over: function () { return over; },
      log: events.log,
      opened: function () {
        if (over) { return; }
        if (opened) { end('failed', 'reading a frame: the session was opened twice'); return; }
        opened = true;
        clearTimeout(timer);
        events.opened();
      },
      message: function (text) {
        if (!over) { events.message(text); }
      },
      frame: function (text) {
        var kind = text.charAt(0), value, i;
        if (over) { return; }
        events.log('in', text);
        if (kind === 'h') { return; }
        if (text === 'o') { line.opened(); return; }
        value = text.length > 1 ? decode(text.slice(1)) : undefined;
        if (kind === 'c' && isArray(value)) {
          end('failed', 'session: the server closed it with ' + value[0] + ' ' + visible(String(value[1])));
          return;
        }
        if (kind === 'm') { value = [value]; }
        if ((kind !== 'a' && kind !== 'm') || !isArray(value)) {
          end('failed', 'reading a frame: not a SockJS frame: ' + visible(text));
          return;
        }
        for (i = 0; i < value.length; i += 1) {
          if (typeof value[i] !== 'string') { end('failed', 'reading a frame: a message is not a string'); return; }
          line.message(value[i]);
        }
      },
      lines: function (text) {
        var parts = text.split('\n'), i;
        for (i = 0; i < parts.length; i += 1) {
          if (parts[i]) { line.frame(parts[i]); }
        }
      },
      cannot: function (why) { end('unavailable', why); },
      /* status undefined: ask the same kind of address, on a new session, for the status it answers */
      broken: function (step, status, method, path) {
        if (over) { return; }
        shut();
        if (status !== undefined) { events.ended('failed', step + ': ' + advice(status, path)); return; }
        probe(method, path.replace(base, base + 'p'), function (answer) {
          events.ended('failed', step + ': ' + advice(answer, path));
        });
      }
    };
    timer = setTimeout(function () {
      end('failed', 'opening: no open frame within ' + OPEN_MS / 1000 + ' s; look for a proxy that holds back answers');
    }, OPEN_MS);
    try {
      driver = transport.driver(base, line);
    } catch (e) {
      end('failed', 'opening: the browser threw "' + (e.message || e) + '"');
    }
    if (over && driver) { driver.close(); }
    return {
      send: function (message) { if (!over && driver) { driver.send(message); } },
      close: function () { if (!over) { shut(); } }
    };
  }

  function difference(sent, got) {
    var i = 0;
    while (i < sent.length && sent.charAt(i) === got.charAt(i)) { i += 1; }
    return 'at character ' + i + ' of ' + sent.length + ' it sent ' +
      (i < sent.length ? escapeUnit(sent.charAt(i)) : 'nothing more') + ' and got ' +
      (i < got.length ? escapeUnit(got.charAt(i)) : 'nothing more');
  }

  function repeated(text, length) {
    while (text.length < length) { text += text; }
    return text.slice(0, length);
  }

  /* ---- A trial: everything that is tried on one transport ---------------------------------------
     watch: log, check(name, passed), timed(latencies, result), done(result). Returns cancel(). */
  function startTrial(transport, watch) {
    var started = now(), latencies = [], result = { state: 'failed', why: '' }, queue = [], stepName = 'opening';
    var wanted = [], current = null, sentAt = 0, live = true, session = null, stepTimer = null, trialTimer = null;

    function finish(state, why) {
      if (!live) { return; }
      live = false;
      clearTimeout(stepTimer);
      clearTimeout(trialTimer);
      if (session) { session.close(); }
      result.state = state;
      result.why = why;
      watch.done(result);
    }

    function echo(messages) {
      var i;
      clearTimeout(stepTimer);
      stepTimer = setTimeout(function () {
        finish('failed', stepName + ': ' + wanted.length + ' of ' + messages.length + ' echoes missing after ' +
          STEP_MS / 1000 + ' s; compare the last frames here with the log of the server');
      }, STEP_MS);
      wanted = messages.slice(0);
      sentAt = now();
      for (i = 0; i < messages.length && live; i += 1) { session.send(messages[i]); }
    }

    function nextStep() {
      current = queue.shift();
      if (!current) { finish('works', ''); return; }
      stepName = current.name;
      echo(current.messages);
    }

    function plan() {
      var i, burst = [], tail = transport.streaming ? repeated(' padding', STREAM_BURST_CHARS) : '';
      for (i = 1; i <= ECHOES; i += 1) { queue.push({ name: 'echo', messages: ['ping ' + i], timed: true }); }
      for (i = 1; i <= BURST; i += 1) { burst.push('burst ' + i + tail); }
      queue.push({ name: 'odd characters', messages: [ODD], check: 'odd' });
      queue.push({ name: 'long message', messages: [repeated('0123456789 \u00e9\u20ac\u6f22 "\\/ ', LONG_CHARS)], check: 'long' });
      queue.push({ name: 'burst', messages: burst, check: 'burst' });
    }

    function begin() {
      result.opened = Math.round((now() - started) * 10) / 10;
      plan();
      nextStep();
    }

    session = openSession(transport, {
      log: watch.log,
      opened: function () {
        /* The driver may report before openSession has returned. */
        if (session) { begin(); } else { setTimeout(function () { if (live) { begin(); } }, 0); }
      },
      message: function (text) {
        var took = now() - sentAt, sent = wanted.shift(), sorted;
        if (sent === undefined) { finish('failed', stepName + ': a message came that nobody waits for'); return; }
        if (sent !== text) {
          if (current.check) { watch.check(current.check, false); }
          finish('failed', stepName + ': the echo differs: ' + difference(sent, text));
          return;
        }
        if (wanted.length) { return; }
        if (current.timed) {
          latencies.push(took);
          sorted = latencies.slice(0).sort(function (a, b) { return a - b; });
          result.latency = { min: sorted[0], median: sorted[Math.floor(sorted.length / 2)], max: sorted[sorted.length - 1] };
          watch.timed(latencies, result);
        }
        if (current.check) { watch.check(current.check, true); }
        nextStep();
      },
      ended: finish
    });
    if (!live && session) { session.close(); }
    if (live) {
      trialTimer = setTimeout(function () {
        finish('failed', stepName + ': the whole trial took more than ' + TRIAL_MS / 1000 + ' s');
      }, TRIAL_MS);
    }
    return function () {
      live = false;
      clearTimeout(stepTimer);
      clearTimeout(trialTimer);
      session.close();
    };
  }

  /* ---- The page --------------------------------------------------------------------------------- */

  function byId(id) {
    return document.getElementById(id);
  }

  function setText(node, text) {
    while (node.firstChild) { node.removeChild(node.firstChild); }
    node.appendChild(document.createTextNode(text));
  }

  function add(parent, tag, className, text) {
    var node = document.createElement(tag);
    if (className) { node.className = className; }
    if (text) { node.appendChild(document.createTextNode(text)); }
    parent.appendChild(node);
    return node;
  }

  var CHECKS = [
    ['odd', 'odd characters', 'came back unchanged', 'came back changed'],
    ['long', LONG_CHARS + ' characters at once', 'came back whole', 'came back changed'],
    ['burst', 'burst of ' + BURST, 'came back in order', 'out of order or changed']
  ];
  var WORDS = { idle: 'not run', waiting: 'waiting', running: 'running', works: 'works', unavailable: 'unavailable', failed: 'failed' };

  function buildRow(transport) {
    var row = { transport: transport, lines: 0, dropped: 0, pending: [], state: 'idle', result: null, checks: {} };
    var line = add(byId('overview-rows'), 'tr'), head, title, list, i, link;
    head = add(line, 'th', 'name');
    head.setAttribute('scope', 'row');
    link = add(head, 'a', '', transport.name);
    link.href = '#' + transport.name;
    row.badge = add(add(line, 'td'), 'span', 'badge');
    row.opened = add(line, 'td', 'number');
    row.median = add(line, 'td', 'number');
    row.fill = add(add(add(line, 'td', 'bar-cell'), 'div', 'track'), 'div', 'fill');

    row.card = add(byId('cards'), 'div', 'panel card');
    row.card.id = transport.name;
    head = add(row.card, 'div', 'card-head');
    row.button = add(head, 'button', 'run-one', 'Run');
    row.button.setAttribute('aria-label', 'Run ' + transport.name);
    row.button.onclick = function () { startRun([row], false); };
    title = add(head, 'h3', '', transport.name);
    title.appendChild(document.createTextNode(' '));
    row.cardBadge = add(title, 'span', 'badge');
    add(row.card, 'p', 'how', transport.how);
    row.left = add(row.card, 'div', 'facts');
    row.why = add(row.left, 'p', 'why');
    row.numbers = add(row.left, 'p', 'numbers');
    row.bars = add(row.left, 'div', 'bars');
    list = add(row.left, 'ul', 'checks');
    for (i = 0; i < CHECKS.length; i += 1) { row.checks[CHECKS[i][0]] = add(list, 'li'); }
    row.frames = add(row.card, 'div', 'frames');
    row.frames.tabIndex = 0;
    row.frames.setAttribute('role', 'region');
    row.frames.setAttribute('aria-label', 'Frames of ' + transport.name);
    add(row.card, 'div', 'clear');
    clearRow(row, 'idle');
    return row;
  }

  function setState(row, state, why) {
    row.state = state;
    row.badge.className = row.cardBadge.className = 'badge ' + state;
    setText(row.badge, WORDS[state]);
    setText(row.cardBadge, WORDS[state]);
    row.card.className = 'panel card is-' + state + (row.empty && state === 'unavailable' ? ' is-empty' : '');
    setText(row.why, why ? why.charAt(0).toUpperCase() + why.slice(1) + (/[.!?]$/.test(why) ? '' : '.') : '');
    row.why.style.display = why ? '' : 'none';
  }

  function setCheck(row, name, passed) {
    var i;
    for (i = 0; i < CHECKS.length; i += 1) {
      if (CHECKS[i][0] === name) {
        setText(row.checks[name], CHECKS[i][1] + (passed === null ? '' : ': ' + CHECKS[i][passed ? 2 : 3]));
        row.checks[name].className = passed === null ? '' : passed ? 'passed' : 'not-passed';
      }
    }
  }

  function clearFrames(row) {
    row.lines = row.dropped = 0;
    row.pending = [];
    row.more = null;
    while (row.frames.firstChild) { row.frames.removeChild(row.frames.firstChild); }
  }

  function clearRow(row, state) {
    var i;
    row.result = null;
    clearFrames(row);
    add(row.frames, 'div', 'note', 'Frames appear here.');
    row.empty = true;
    setState(row, state, '');
    setText(row.opened, '');
    setText(row.median, '');
    setText(row.numbers, '');
    row.fill.style.width = '0';
    while (row.bars.firstChild) { row.bars.removeChild(row.bars.firstChild); }
    row.bars.style.display = 'none';
    for (i = 0; i < CHECKS.length; i += 1) { setCheck(row, CHECKS[i][0], null); }
  }

  /* Lines are painted a little later and together, so that painting does not spoil the latencies. */
  function logger(row) {
    var started = now(), timer = null;
    return function (direction, text) {
      if (row.lines >= LOG_LINES) { row.dropped += 1; } else {
        row.lines += 1;
        row.pending.push([Math.round(now() - started), direction, visible(text)]);
      }
      if (timer === null) {
        timer = setTimeout(function () {
          timer = null;
          paint(row);
        }, PAINT_MS);
      }
    };
  }

  function paint(row) {
    var i, item, line;
    if (row.empty) {
      row.empty = false;
      while (row.frames.firstChild) { row.frames.removeChild(row.frames.firstChild); }
    }
    for (i = 0; i < row.pending.length; i += 1) {
      item = row.pending[i];
      line = add(row.frames, 'div', item[1]);
      add(line, 'span', 'when', item[0] + ' ms');
      add(line, 'span', 'arrow', item[1] === 'out' ? ' \u2192 ' : item[1] === 'in' ? ' \u2190 ' : ' \u00b7 ');
      add(line, 'span', 'text', item[2]);
    }
    row.pending = [];
    if (row.dropped) {
      row.more = row.more || add(row.frames, 'div', 'note');
      setText(row.more, '\u2026 and ' + row.dropped + ' more, not kept');
    }
    /* Follow while it runs; afterwards the opening is what tells most. */
    row.frames.scrollTop = row.state === 'running' ? row.frames.scrollHeight : 0;
  }

  function showLatency(row, latencies, result) {
    var i, most = result.latency.max || 1, bar;
    setText(row.opened, milliseconds(result.opened));
    setText(row.median, milliseconds(result.latency.median));
    setText(row.numbers, 'Opened in ' + milliseconds(result.opened) + '. ' + latencies.length + ' echoes: min ' +
      milliseconds(result.latency.min) + ', median ' + milliseconds(result.latency.median) + ', max ' +
      milliseconds(result.latency.max) + '.');
    row.bars.style.display = '';
    row.bars.setAttribute('role', 'img');
    row.bars.setAttribute('aria-label', 'Latency of each echo');
    while (row.bars.firstChild) { row.bars.removeChild(row.bars.firstChild); }
    for (i = 0; i < latencies.length; i += 1) {
      bar = add(row.bars, 'span', 'bar');
      bar.title = 'echo ' + (i + 1) + ': ' + milliseconds(latencies[i]);
      bar.style.height = Math.max(2, Math.round(BAR_PX * latencies[i] / most)) + 'px';
    }
  }

  function compareMedians() {
    var i, most = 0, one;
    for (i = 0; i < rows.length; i += 1) {
      one = rows[i].result;
      if (one && one.latency && one.latency.median > most) { most = one.latency.median; }
    }
    for (i = 0; i < rows.length; i += 1) {
      one = rows[i].result;
      rows[i].fill.style.width = one && one.latency ? Math.max(1, Math.round(100 * one.latency.median / (most || 1))) + '%' : '0';
    }
  }

  function summarise() {
    var i, run = 0, works = 0, chosen = '', names = [], verdict;
    for (i = 0; i < rows.length; i += 1) {
      if (rows[i].result) {
        run += 1;
        if (rows[i].state === 'works') {
          works += 1;
          if (!chosen && rows[i].transport.ladder) { chosen = rows[i].transport.name; }
        } else if (rows[i].state === 'failed') {
          names.push(rows[i].transport.name);
        }
      }
    }
    if (!run) {
      verdict = 'Nothing has been tested yet.';
    } else if (works === run) {
      verdict = run === rows.length ? 'All ' + run + ' transports work in this browser.' :
        run === 1 ? 'The one transport that was tested works.' : 'All ' + run + ' transports that were tested work.';
    } else if (!works) {
      verdict = 'None of the ' + run + ' transports tested works here.';
    } else {
      verdict = works + ' of ' + run + ' transports work in this browser' + (names.length ? '; failed: ' + names.join(', ') : '') + '.';
    }
    setText(byId('verdict'), verdict);
    setText(byId('choice'), (chosen ? 'A SockJS client would choose ' + chosen + ' here.' :
      run ? 'A SockJS client would find no way through here.' : '') + (infoTrouble ? ' ' + infoTrouble : ''));
    return chosen;
  }

  /* ---- Running ----------------------------------------------------------------------------------- */

  var rows = [], prefix = '/echo', info = null, infoTrouble = '', running = false, cancelTrial = null, runId = 0;

  function setBusy(busy) {
    var i;
    running = busy;
    setText(byId('run'), busy ? 'Stop' : 'Run again');
    byId('own-send').disabled = busy;
    for (i = 0; i < rows.length; i += 1) { rows[i].button.disabled = busy; }
    byId('progress').style.visibility = busy ? 'visible' : 'hidden';
  }

  function askInfo(done) {
    var call = null, timer, live = true;
    function finish(answer, trouble) {
      if (!live) { return; }
      live = false;
      clearTimeout(timer);
      info = answer;
      infoTrouble = trouble;
      if (call) { call.stop(); }
      done();
    }
    if (!newXhr()) { finish(null, ''); return; }
    timer = setTimeout(function () { finish(null, 'The server did not answer ' + prefix + '/info in time.'); }, PROBE_MS);
    call = request('GET', prefix + '/info?t=' + new Date().getTime(), null, function (state, xhr) {
      var status;
      if (state !== 4) { return; }
      status = statusOf(xhr);
      if (status === 200) {
        finish(decode(textOf(xhr) || '') || null, '');
      } else {
        finish(null, prefix + '/info did not answer as it should. ' + advice(status, ''));
      }
    });
  }

  function finishRun(list, automatic, startedAt) {
    var i, report = { done: true, browser: browserName(navigator.userAgent), transports: {} };
    setBusy(false);
    compareMedians();
    report.chosen = summarise();
    report.milliseconds = Math.round(now() - startedAt);
    for (i = 0; i < list.length; i += 1) { report.transports[list[i].transport.name] = list[i].result; }
    if (automatic) { window.__result = encode(report); }
  }

  function startRun(list, automatic) {
    var index = -1, startedAt = now(), id, i;
    if (running) { return; }
    id = runId += 1;
    for (i = 0; i < list.length; i += 1) { clearRow(list[i], 'waiting'); }
    setBusy(true);
    function next() {
      var row, lacking, log;
      if (id !== runId) { return; }
      index += 1;
      cancelTrial = null;
      byId('progress-fill').style.width = Math.round(100 * index / list.length) + '%';
      if (index === list.length) { finishRun(list, automatic, startedAt); return; }
      row = list[index];
      setText(byId('verdict'), 'Testing ' + (index + 1) + ' of ' + list.length + ': ' + row.transport.name + '\u2026');
      setState(row, 'running', '');
      lacking = row.transport.needs();
      if (lacking) {
        row.result = { state: 'unavailable', why: lacking };
        setState(row, 'unavailable', lacking);
        setTimeout(next, 0);
        return;
      }
      log = logger(row);
      cancelTrial = startTrial(row.transport, {
        log: log,
        check: function (name, passed) { setCheck(row, name, passed); },
        timed: function (latencies, result) { if (latencies.length === ECHOES) { showLatency(row, latencies, result); } },
        done: function (result) {
          row.result = result;
          setState(row, result.state, result.why);
          compareMedians();
          setTimeout(next, 0);
        }
      });
    }
    setText(byId('verdict'), 'Asking the server\u2026');
    setText(byId('choice'), 'On each: open, ' + ECHOES + ' echoes, odd characters, ' + LONG_CHARS + ' characters at once, a burst of ' +
      BURST + '.');
    askInfo(next);
  }

  function stopRun() {
    var i;
    runId += 1;
    if (cancelTrial) { cancelTrial(); }
    cancelTrial = null;
    for (i = 0; i < rows.length; i += 1) {
      if (rows[i].state === 'running' || rows[i].state === 'waiting') { setState(rows[i], 'idle', ''); }
    }
    setBusy(false);
    summarise();
  }

  function sendOwn() {
    var row = rows[byId('own-transport').selectedIndex], text = byId('own-text').value, lacking, sentAt, session, timer, id;
    function say(words) {
      clearTimeout(timer);
      setText(byId('own-result'), row.transport.name + ': ' + words);
      if (session) { session.close(); }
      cancelTrial = null;
      setBusy(false);
    }
    function go() {
      sentAt = now();
      session.send(text);
    }
    if (running) { return; }
    lacking = row.transport.needs();
    if (lacking) { say('unavailable, ' + lacking + '.'); return; }
    id = runId += 1;
    clearFrames(row);
    setBusy(true);
    setText(byId('own-result'), row.transport.name + ': opening\u2026');
    timer = setTimeout(function () { say('no echo within ' + STEP_MS / 1000 + ' s.'); }, OPEN_MS + STEP_MS);
    session = openSession(row.transport, {
      log: logger(row),
      opened: function () {
        if (session) { go(); } else { setTimeout(function () { if (id === runId) { go(); } }, 0); }
      },
      message: function (answer) {
        say(answer === text ? 'came back unchanged after ' + milliseconds(now() - sentAt) + '.' :
          'came back changed: ' + difference(text, answer) + '.');
      },
      ended: function (state, why) { say(state + ', ' + why); }
    });
    cancelTrial = function () { say('stopped.'); };
  }

  function parameter(name) {
    var hit = new RegExp('[?&]' + name + '=([^&]*)').exec(location.search);
    try { return hit ? decodeURIComponent(hit[1]) : ''; } catch (e) { return ''; }
  }

  function start() {
    var only = parameter('only'), wanted = parameter('prefix'), list = [], i, option;
    /* One slash first: two would name another host. */
    if (/^\/[\w\-.~%]+(\/[\w\-.~%]+)*$/.test(wanted)) { prefix = wanted; }
    for (i = 0; i < TRANSPORTS.length; i += 1) {
      rows.push(buildRow(TRANSPORTS[i]));
      option = add(byId('own-transport'), 'option', '', TRANSPORTS[i].name);
      option.value = TRANSPORTS[i].name;
      if (!only || (',' + only + ',').indexOf(',' + TRANSPORTS[i].name + ',') >= 0) { list.push(rows[i]); }
    }
    byId('own-text').value = OWN;
    byId('own-form').onsubmit = function () {
      sendOwn();
      return false;
    };
    byId('run').onclick = function () {
      if (running) { stopRun(); } else { startRun(list, true); }
    };
    setText(byId('browser'), 'Your browser: ' + browserName(navigator.userAgent) + '. It calls itself \u201c' +
      visible(navigator.userAgent) + '\u201d.');
    startRun(list, true);
  }

  byId('lab').style.display = 'block';
  /* After the load event, or a forever-iframe would keep the page loading for ever. */
  window.onload = function () { setTimeout(start, 0); };
}());
