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
