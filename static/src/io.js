/* io(url[, options]): the Socket.IO client API. The path of the URL is the namespace; where the server is mounted is the
   option path. Sockets of one server share one connection. */

var managers = {};

function io(url, options) {
  var address, name, key, manager, socket;
  if (url && typeof url === 'object' && options === undefined) {
    options = url;
    url = undefined;
  }
  address = parseUrl(url === undefined || url === null || url === '' ? '/' : url);
  options = readOptions(options);
  address.query = withQuery(address.query, queryText(options.query));
  name = namespaceName(address.path);
  transportOrder('', options);
  key = address.origin + options.path + address.query;
  manager = options.forceNew ? null : managers[key];
  if (!manager) {
    manager = new Manager(address, options);
    if (!options.forceNew) { managers[key] = manager; }
  }
  socket = manager.socket(name);
  if (options.autoConnect) { socket.connect(); }
  return socket;
}

function queryText(query) {
  var parts = [], name;
  if (!query || typeof query !== 'object') { return String(query || ''); }
  for (name in query) {
    if (has(query, name)) { parts.push(encodeURIComponent(name) + '=' + encodeURIComponent(query[name])); }
  }
  return parts.join('&');
}

io.connect = io;
io.Manager = Manager;
io.Socket = Socket;
io.version = VERSION;
