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
