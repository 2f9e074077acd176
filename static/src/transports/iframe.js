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
