/* One HTTP request by XMLHttpRequest, its ActiveX forerunner, or XDomainRequest. */

function newXhr() {
  if (root.XMLHttpRequest) {
    try { return new root.XMLHttpRequest(); } catch (e) { /* IE 7 with native XMLHTTP switched off */ }
  }
  if (root.ActiveXObject) {
    try { return new root.ActiveXObject('Microsoft.XMLHTTP'); } catch (e2) { return null; }
  }
  return null;
}

function hasCors() {
  var xhr = root.XMLHttpRequest ? newXhr() : null;
  return Boolean(xhr) && 'withCredentials' in xhr;
}

/* XDomainRequest may not cross from http to https, nor back. */
function hasXdr(url) {
  return Boolean(root.XDomainRequest) && isSameScheme(url);
}

function canXhr(url) {
  return isSameOrigin(url) || !page ? Boolean(newXhr()) : hasCors();
}

function statusOf(xhr) {
  var status = 0;
  try { status = xhr.status || 0; } catch (e) { /* old IE throws before the end */ }
  return status === 1223 ? 204 : status;      /* IE's name for 204 */
}

/* null: this browser refuses to show the text yet */
function textOf(xhr) {
  try { return typeof xhr.responseText === 'string' ? xhr.responseText : null; } catch (e) { return null; }
}

/* changed(isOver, status, text) at each progress; never after stop(). */
function xhrRequest(method, url, body, credentials, changed) {
  var xhr = newXhr(), live = true;
  function stop() {
    if (!live) { return; }
    live = false;
    xhr.onreadystatechange = nothing;         /* not null: ActiveX wants a function */
    try { xhr.abort(); } catch (e) { /* it was never sent */ }
  }
  try {
    xhr.open(method, url, true);
    if (credentials && !isSameOrigin(url) && 'withCredentials' in xhr) { xhr.withCredentials = true; }
    /* text/plain needs no question (preflight) before a request to another origin. */
    if (body !== null) { xhr.setRequestHeader('Content-Type', 'text/plain;charset=UTF-8'); }
    xhr.onreadystatechange = function () {
      if (!live || xhr.readyState < 3) { return; }
      if (xhr.readyState === 4) {
        live = false;
        xhr.onreadystatechange = nothing;
        changed(true, statusOf(xhr), textOf(xhr) || '');
      } else {
        changed(false, 0, textOf(xhr));
      }
    };
    xhr.send(body);
  } catch (e) {
    live = false;
    setTimeout(function () { changed(true, 0, ''); }, 0);
  }
  return { stop: stop };
}

function xdrRequest(method, url, body, changed) {
  var xdr = new root.XDomainRequest(), live = true;
  function over(status) {
    return function () {
      if (!live) { return; }
      var text = status ? textOf(xdr) || '' : '';
      live = false;
      release();
      changed(true, status, text);
    };
  }
  function release() {
    xdr.onload = xdr.onerror = xdr.ontimeout = xdr.onprogress = nothing;
  }
  /* IE 9 forgets a request whose handlers are not all set. The status is hidden: loaded means 2xx. */
  xdr.onload = over(200);
  xdr.onerror = xdr.ontimeout = over(0);
  xdr.onprogress = function () { if (live) { changed(false, 0, textOf(xdr)); } };
  try {
    xdr.open(method, url);
    xdr.timeout = 0;
    xdr.send(body || '');
  } catch (e) {
    setTimeout(over(0), 0);
  }
  return {
    stop: function () {
      if (!live) { return; }
      live = false;
      release();
      try { xdr.abort(); } catch (e) { /* IE 9 throws when it has just ended */ }
    }
  };
}

/* With whatever can reach this address. */
function httpRequest(method, url, body, credentials, changed) {
  return canXhr(url) ? xhrRequest(method, url, body, credentials, changed) : xdrRequest(method, url, body, changed);
}

function canRequest(url) {
  return canXhr(url) || hasXdr(url);
}

function uncached(url) {
  return withQuery(url, 't=' + now().toString(36) + randomText('0123456789abcdefghijklmnopqrstuvwxyz', 4));
}
