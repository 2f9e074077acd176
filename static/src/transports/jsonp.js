/* jsonp-polling: script elements to receive, a hidden form into a hidden frame to send. Works almost everywhere, also
   to another origin. */

var SCRIPT_GRACE_MS = 500;        /* some browsers say "loaded" before they run the script */
var UNSENT_TURNS = 20, UNSENT_TURN_MS = 5;

/* done(text): what came back, null where it cannot be read. */
function postForm(url, payload, done) {
  var doc = root.document, name = '_polysock_' + randomText('abcdefghijklmnopqrstuvwxyz', 8), live = true, frame, form, area;
  function stop() {
    if (!live) { return; }
    live = false;
    frame.onload = frame.onerror = frame.onreadystatechange = nothing;
    setTimeout(function () {
      if (form.parentNode) { form.parentNode.removeChild(form); }
      if (frame.parentNode) { frame.parentNode.removeChild(frame); }
    }, 0);
  }
  function finish() {
    var text = null;
    if (!live) { return; }
    try { text = isSameOrigin(url) ? frame.contentWindow.document.body.innerHTML : null; } catch (e) { text = null; }
    stop();
    done(text);
  }
  try {
    frame = doc.createElement('<iframe name="' + name + '">');   /* IE 6 and 7 ignore a name set later */
  } catch (e) {
    frame = doc.createElement('iframe');
    frame.name = name;
  }
  frame.style.display = 'none';
  form = doc.createElement('form');
  form.style.display = 'none';
  form.method = 'POST';
  form.action = url;
  form.target = name;
  form.enctype = 'application/x-www-form-urlencoded';
  form.acceptCharset = 'UTF-8';
  area = doc.createElement('textarea');
  area.name = 'd';
  area.value = payload;
  form.appendChild(area);
  doc.body.appendChild(frame);
  doc.body.appendChild(form);
  form.submit();
  /* Only now: the empty frame has a load event of its own. */
  frame.onload = frame.onerror = finish;
  frame.onreadystatechange = function () {
    if (frame.readyState === 'complete') { finish(); }
  };
  return { stop: stop };
}

function jsonpTransport(link) {
  var form = null, script = null, callback = null, timer = null, grace = null, sender;
  sender = makeSender(link, function (payload, done) {
    form = postForm(link.address('/jsonp_send'), payload, function (text) {
      form = null;
      if (link.over()) { return; }
      if (text !== null && text.length && !/\bok\b/i.test(text)) { link.broken('sending', undefined, text); } else { done(); }
    });
  });
  function release() {
    var old = script;
    clearTimeout(timer);
    clearTimeout(grace);
    script = null;
    if (callback) { callback.drop(nothing); }
    callback = null;
    if (!old) { return; }
    old.onload = old.onerror = old.onreadystatechange = nothing;
    /* IE 6 crashes when a running script is taken out of the document. */
    setTimeout(function () { if (old.parentNode) { old.parentNode.removeChild(old); } }, 0);
  }
  /* What waits to be sent goes first: an engine that blocks while it loads a script could not send it later. */
  function soon(turns) {
    timer = setTimeout(function () {
      if (turns && sender.unsent()) { soon(turns - 1); } else { again(); }
    }, turns === UNSENT_TURNS ? 0 : UNSENT_TURN_MS);
  }
  function again() {
    function unanswered() {
      if (!script) { return; }
      release();
      link.broken('receiving', undefined, '', 'the script did not load or did not answer');
    }
    callback = newCallback(function (text) {
      release();
      link.frame(String(text));
      if (!link.over()) { soon(UNSENT_TURNS); }
    });
    script = root.document.createElement('script');
    script.type = 'text/javascript';
    script.charset = 'UTF-8';
    script.onerror = unanswered;            /* IE 6 to 8 have none: there the watch over silence finds it */
    script.onload = function () {
      clearTimeout(grace);
      grace = setTimeout(unanswered, SCRIPT_GRACE_MS);
    };
    script.onreadystatechange = function () {
      if (script && /loaded|complete/.test(script.readyState)) { script.onload(); }
    };
    script.src = withQuery(link.address('/jsonp'), 'c=' + callback.name);
    root.document.getElementsByTagName('head')[0].appendChild(script);
  }
  again();
  return {
    send: sender.send,
    unsent: sender.unsent,
    drained: sender.drained,
    close: function () {
      release();
      sender.stop();
      if (form) { form.stop(); }
    }
  };
}
