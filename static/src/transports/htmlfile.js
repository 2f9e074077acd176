/* htmlfile: an endless page of script elements in a hidden frame to receive, a POST for each send.
   In IE 6 to 9 the frame lives in a document apart (ActiveXObject "htmlfile"): no click sound, no endless throbber. */

function newHtmlfile() {
  try { return new root.ActiveXObject('htmlfile'); } catch (e) { return null; }
}

function htmlfileTransport(link) {
  var sender = makeHttpSender(link), doc = root.document, timer = null, callback = null, frame = null, apart = null;
  function release() {
    var oldFrame = frame, oldDocument = apart;
    clearTimeout(timer);
    if (callback) { callback.drop({ start: nothing, message: nothing, stop: nothing }); }
    callback = frame = apart = null;
    if (!oldFrame) { return; }
    oldFrame.onload = nothing;
    /* The call may come from a script of that very frame: let it end first. */
    setTimeout(function () {
      if (oldFrame.parentNode) { oldFrame.parentNode.removeChild(oldFrame); }
      if (oldDocument && root.CollectGarbage) { root.CollectGarbage(); }
    }, 0);
  }
  function again() {
    var heard = 0, holder, url;
    function ended() {
      release();
      if (link.over()) { return; }
      if (heard) { timer = setTimeout(again, 0); } else { link.broken('receiving', 0, ''); }
    }
    callback = newCallback({
      start: nothing,
      message: function (text) {
        heard += 1;
        link.frame(String(text));
      },
      stop: ended
    });
    url = withQuery(link.address('/htmlfile'), 'c=' + callback.name);
    apart = root.ActiveXObject ? newHtmlfile() : null;
    if (apart) {
      apart.open();
      apart.write('<html><s' + 'cript>document.domain="' + doc.domain + '";</s' + 'cript></html>');
      apart.close();
      apart.parentWindow[CALLBACKS] = callback.table;
      holder = apart.createElement('div');
      apart.body.appendChild(holder);
      frame = apart.createElement('iframe');
      holder.appendChild(frame);
      frame.src = url;
    } else {
      /* The frame assigns document.domain; unless its parent does too, the two may not touch. */
      try { doc.domain = doc.domain; } catch (e) { /* some hosts are refused */ }
      frame = hiddenFrame(url);
      frame.onload = ended;
      doc.body.appendChild(frame);
    }
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

function hiddenFrame(url) {
  var frame = root.document.createElement('iframe');
  frame.style.display = 'none';
  frame.style.position = 'absolute';
  if (url) { frame.src = url; }
  return frame;
}
