/* Shows what polysock.js sends and gets. For the demo only: it stands between the script and the browser's objects, so
   it must be loaded before it, and does nothing unless the page's address has wire=1.
   Sets window.wiretap = {ontraffic: function (direction, text, isRequest)}. */
(function () {
  var tap = { ontraffic: null }, Native = window.WebSocket, Xhr = window.XMLHttpRequest, create = document.createElement;

  if (!/[?&]wire=1(&|$)/.test(location.search)) { return; }
  window.wiretap = tap;

  function tell(direction, text, isRequest) {
    /* Later: the page may not be ready, and must not disturb the transport. */
    setTimeout(function () { if (tap.ontraffic) { tap.ontraffic(direction, text, isRequest); } }, 0);
  }

  /* Without the session's random names, which tell a reader nothing. */
  function path(url) {
    return String(url).replace(/^\w+:\/\/[^\/]+/, '').replace(/([?&])t=[^&]*&?/, '$1').replace(/[?&]$/, '')
      .replace(/\/\d{3}\/[a-z0-9]{16}\//, '/\u2026/');
  }

  function tapSocket(socket, url) {
    tell('out', 'GET ' + path(url) + ' (upgrade)', true);
    socket.addEventListener('open', function () { tell('event', '101 Switching Protocols'); }, false);
    socket.addEventListener('message', function (event) { tell('in', String(event.data)); }, false);
    socket.addEventListener('close', function (event) { tell('event', 'closed with ' + event.code); }, false);
    socket.send = function (data) {
      tell('out', String(data));
      return Native.prototype.send.call(socket, data);
    };
    return socket;
  }

  if (Native && Native.prototype && Native.prototype.addEventListener) {
    window.WebSocket = function (url) { return tapSocket(new Native(url), url); };
    window.WebSocket.prototype = Native.prototype;
  }

  function tapXhr(open, send) {
    Xhr.prototype.open = function (method, url) {
      this.tapped = { what: method + ' ' + path(url), seen: 0 };
      return open.apply(this, arguments);
    };
    Xhr.prototype.send = function (body) {
      var xhr = this, tapped = xhr.tapped;
      tell('out', tapped.what + (body ? ' ' + body : ''), true);
      xhr.addEventListener('readystatechange', function () {
        var text = '';
        if (xhr.readyState < 3) { return; }
        try { text = xhr.responseText || ''; } catch (e) { /* not a text */ }
        if (text.length > tapped.seen) { tell('in', text.slice(tapped.seen)); }
        tapped.seen = text.length;
        if (xhr.readyState === 4) { tell('event', 'answered ' + xhr.status); }
      }, false);
      return send.call(xhr, body);
    };
  }

  if (Xhr && Xhr.prototype && Xhr.prototype.open && Xhr.prototype.addEventListener) {
    tapXhr(Xhr.prototype.open, Xhr.prototype.send);
  }

  /* JSONP receives by script elements, whose answers call a function in window._polysock, and sends by forms. */
  function tapScript(script) {
    var url = script.getAttribute('src') || '', name = (/[?&]c=_polysock\.(\w+)/.exec(url) || [])[1], table = window._polysock, inner;
    if (!name || !table) { return; }
    tell('out', '<script src="' + path(url) + '">', true);
    inner = table[name];
    table[name] = function (text) {
      tell('in', '_polysock.' + name + '(' + text + ')');
      return inner(text);
    };
  }

  function tapForm(form) {
    var area = form.getElementsByTagName('textarea')[0];
    if (area && /jsonp_send/.test(form.getAttribute('action') || '')) {
      tell('out', '<form action="' + path(form.getAttribute('action')) + '"> d=' + area.value, true);
    }
  }

  try {
    document.createElement = function (name) {
      /* Old hosts' functions have no call(). */
      var node = create.call ? create.call(document, name) : create(name), kind = String(name).toLowerCase();
      /* By then it has been filled in, and no answer can be here yet. */
      if (kind === 'script') { setTimeout(function () { tapScript(node); }, 0); }
      if (kind === 'form') { setTimeout(function () { tapForm(node); }, 0); }
      return node;
    };
  } catch (e) { /* a browser that guards its document shows no JSONP */ }
}());
