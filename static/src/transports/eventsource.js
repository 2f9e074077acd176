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
