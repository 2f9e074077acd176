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
