/* What the outside sees. */

var polysock = {
  version: VERSION,
  PolySock: PolySock,
  io: io,
  install: install,
  transports: transportNames(),
  /* Forget which transports worked. */
  forget: function () {
    memory = {};
    try { root.localStorage.removeItem(MEMORY_KEY); } catch (e) { /* there is none */ }
  },
  /* Pure parts, for tests and for other programs. */
  parts: {
    encodeJson: encodeJson, decodeJson: decodeJson, parseUrl: parseUrl, encodePacket: encodePacket, PacketReader: PacketReader,
    backoffDelay: backoffDelay, mayReturn: mayReturn, isBuffer: isBuffer, toBase64: toBase64, fromBase64: fromBase64, utf8Length: utf8Length,
    transportOrder: transportOrder, Emitter: Emitter, trigger: trigger
  }
};

/* As the script of a SockJS iframe page, this file is called by the name that the protocol gives it. */
if (page && root.parent !== root && /\/iframe[^\/]*\.html$/.test(page.pathname) && !root.SockJS) {
  root.SockJS = { bootstrap_iframe: bootstrapIframe };
}
