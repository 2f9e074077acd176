/* One shape for every error: what was being done, over which transport, what HTTP said, where to look. */

/* facts: transport, status, hint, code, data - all optional. */
function failure(step, text, facts) {
  var message = step + (facts && facts.transport ? ' over ' + facts.transport : '') + ': ' + text, error, name;
  if (facts && facts.status > 0 && text.indexOf('HTTP ') < 0) { message += ' (HTTP ' + facts.status + ')'; }
  if (facts && facts.hint) { message += '; ' + facts.hint; }
  error = new Error(message);
  error.message = message;    /* IE 5.5 and some engines of its time keep it elsewhere */
  error.name = 'PolySockError';
  error.step = step;
  for (name in facts) {
    if (has(facts, name)) { error[name] = facts[name]; }
  }
  return error;
}

function advice(status, crossOrigin) {
  if (!status) {
    return crossOrigin ?
      'look whether the server runs, whether its "origins" setting allows this page (CORS), and for a blocking extension' :
      'look whether the server runs, and for a proxy or an extension that stands between';
  }
  if (status === 401 || status === 407) { return 'look at the login that the server or a proxy asks for'; }
  if (status === 403) { return 'refused; look at the "origins" setting of the server and at its login'; }
  if (status === 404) { return 'look at the URL: is the endpoint mounted at this path, and this transport switched on?'; }
  if (status === 405) { return 'the address does not take this method; look at the routes of the server'; }
  if (status === 413) { return 'too long; look at max_message_bytes and max_payload_bytes of the server and at limits of proxies'; }
  if (status === 429) { return 'too many connections from this address'; }
  if (status >= 500) { return 'look at the log of the server, or of the proxy before it'; }
  if (status >= 400) { return 'refused; look at the log of the server'; }
  return 'look for something that holds back or changes the body (a proxy, compression)';
}
