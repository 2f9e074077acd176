/* Addresses: http, https, ws, wss, relative ones, and host:port. */

var URL_PARTS = /^(?:([a-z][a-z0-9+.\-]*):)?(?:\/\/([^\/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?$/i;
var AUTHORITY = /^(?:[^\s@\/]*@)?(\[[0-9a-f:.]+\]|[^\s\[\]@:\/\\<>"^`{|}]+)(?::(\d{1,5}))?$/i;
var MAX_PORT = 65535;
var DEFAULT_PORTS = { http: '80', https: '443' };

function badUrl(url, text) {
  return failure('reading the URL "' + url + '"', text, { hint: 'write it like ws://host:5555/some, http://host/path or /path' });
}

/* {origin: 'http://host:1', path: '/some', query: '?a=b'}; throws for what is no address. */
function parseUrl(url) {
  var text = String(url === undefined || url === null ? '' : url).replace(/^\s+|\s+$/g, ''), parts, scheme, authority, path, port;
  if (/^[\w.\-]+:\d+(?:[\/?#]|$)/.test(text)) { text = '//' + text; }
  parts = URL_PARTS.exec(text);
  if (!parts || /[\s\\]/.test(text)) { throw badUrl(url, 'not an address'); }
  scheme = (parts[1] || '').toLowerCase().replace(/^ws/, 'http');
  authority = parts[2];
  path = parts[3];
  if (scheme && scheme !== 'http' && scheme !== 'https') { throw badUrl(url, 'the scheme ' + scheme + ' is none of ws, wss, http, https'); }
  if (!authority) {
    if (scheme || text.indexOf('//') === 0) { throw badUrl(url, 'the host is missing'); }
    if (!page || !/^https?:$/.test(page.protocol)) { throw badUrl(url, 'a relative address needs a page from a server'); }
    scheme = page.protocol.slice(0, -1);
    authority = page.host;
    if (path.charAt(0) !== '/') {
      path = (path || parts[4] ? page.pathname.replace(/[^\/]*$/, '') : '/') + path;
      if (path.charAt(0) !== '/') { path = '/' + path; }      /* IE forgets that slash */
    }
  }
  if (!scheme) { scheme = page && page.protocol === 'https:' ? 'https' : 'http'; }
  authority = AUTHORITY.exec(authority);
  if (!authority) { throw badUrl(url, 'the host or the port is not one'); }
  return finishUrl(url, scheme, authority[1].toLowerCase(), authority[2], path, parts[4] || '');
}

function finishUrl(url, scheme, host, port, path, query) {
  var segments = path.split('/'), kept = [], i;
  if (port && (+port > MAX_PORT || +port === 0)) { throw badUrl(url, 'there is no port ' + port); }
  for (i = 0; i < segments.length; i += 1) {
    if (segments[i] === '..') { if (kept.length > 1) { kept.pop(); } } else if (segments[i] !== '.') { kept.push(segments[i]); }
  }
  return {
    origin: scheme + '://' + host + (port && port !== DEFAULT_PORTS[scheme] ? ':' + port : ''),
    path: kept.join('/') || '/',
    query: query
  };
}

function pageOrigin() {
  var port;
  if (!page || !page.host) { return null; }
  port = page.port && page.port !== DEFAULT_PORTS[page.protocol.slice(0, -1)] ? ':' + page.port : '';
  return page.protocol + '//' + page.hostname.toLowerCase() + port;
}

function isSameOrigin(url) {
  return pageOrigin() === parseUrl(url).origin;
}

function isSameScheme(url) {
  return Boolean(page) && url.split(':')[0] + ':' === page.protocol;
}

function withQuery(url, query) {
  return query ? url + (url.indexOf('?') < 0 ? '?' : '&') + query.replace(/^\?/, '') : url;
}
