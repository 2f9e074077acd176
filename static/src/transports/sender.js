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
