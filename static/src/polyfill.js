/* polysock.install(): a window.WebSocket for pages whose browser or network has none. new WebSocket("ws://host/path")
   then talks to the SockJS endpoint (a polysock Connection) that is mounted at /path. */

/* options: force - also where there is one; map - function (url) to the address of the endpoint; and those of PolySock.
   Returns whether the page now uses ours. */
function install(options) {
  var name;
  options = options || {};
  if (root.WebSocket && !options.force) { return Boolean(root.WebSocket.isPolySock); }
  function WebSocket(url, protocols) {
    if (!arguments.length) { throw new TypeError('new WebSocket() needs a URL'); }
    beginPolySock(this, options.map ? options.map(String(url)) : url, protocols, merged({ reconnect: false }, options));
    if (options.map) { this.url = String(url); }
  }
  function Surrogate() {}
  Surrogate.prototype = PolySock.prototype;
  WebSocket.prototype = new Surrogate();
  WebSocket.prototype.constructor = WebSocket;
  for (name in STATES) {
    if (has(STATES, name)) { WebSocket[name] = STATES[name]; }
  }
  WebSocket.isPolySock = true;
  try {
    root.WebSocket = WebSocket;
  } catch (e) { /* read only, in strict engines */ }
  return root.WebSocket === WebSocket;
}
