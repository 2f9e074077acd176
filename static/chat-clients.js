/* The clients that the chat can come by: polysock.js, and Socket.IO's own of each generation, unmodified. Which one it
   is, the page's address says (/chat.html, /chat-4.html ... /chat-0.9.html); this writes the script element for it, and
   gives chat.js the few calls that it needs, the same for all. ECMAScript 3, for the browsers of the oldest client.

     chatClient.name, .missing()          what to call it; whether its script has not come
     chatClient.transports()              names of what may be forced
     chatClient.connect(names, handlers)  a line to the namespace /chat, over the best transport or one of names;
                                          handlers[event] is called for each event, of the server or of EVENTS below
     line.connected(), .transport(), .close()
     line.ask(args, ms, done)             emits args; done(error, answer) is called once
*/
(function () {
  var NAMESPACE = '/chat', MAX_DELAY_MS = 5000;
  var GENERATION = (/\/chat-(0\.9|[1-4])[.\/]/.exec(location.pathname) || [])[1] || '';
  /* What the line itself has to tell: connecting(transport or undefined), connect(), upgraded() to another transport,
     disconnect(reason, error), reconnecting(delay in ms or undefined, attempt, error), connect_failed(error),
     error(error). Errors have a message. */
  var EVENTS = ['connecting', 'connect', 'upgraded', 'disconnect', 'reconnecting', 'connect_failed', 'error'];
  var JSONP = 'jsonp-polling';

  function problem(error) {
    var text = error && error.message || error;
    return { message: typeof text === 'string' && text ? text : 'no reason given' };
  }

  function Line(handlers) {
    this._handlers = handlers;
    this._questions = [];
  }

  Line.prototype.tell = function (event, first, second, third) {
    if (this._handlers && this._handlers[event]) { this._handlers[event](first, second, third); }
  };

  Line.prototype.isClosed = function () { return this._handlers === null; };

  Line.prototype.close = function () {
    this._handlers = null;
    this.hangUp();
  };

  /* For clients without time limits, and whose questions would wait for ever when the connection breaks. */
  Line.prototype.ask = function (args, ms, done) {
    var self = this, question = { done: done };
    if (!this.connected()) {
      done({ message: 'not connected' });
      return;
    }
    question.timer = setTimeout(function () {
      self._settle(question, { message: 'no answer within ' + ms / 1000 + ' s' });
    }, ms);
    this._questions.push(question);
    args.push(function (answer) { self._settle(question, null, answer); });
    this.emit(args);
  };

  Line.prototype._settle = function (question, error, answer) {
    var i;
    for (i = 0; i < this._questions.length; i += 1) {
      if (this._questions[i] === question) {
        this._questions.splice(i, 1);
        clearTimeout(question.timer);
        question.done(error, answer);
        return;
      }
    }
  };

  Line.prototype.lost = function (reason) {
    while (this._questions.length) { this._settle(this._questions[0], { message: 'the connection was lost' }); }
    this.tell('disconnect', reason);
  };

  function forward(line, emitter, events) {
    function one(name) {
      emitter.on(name, function (first, second, third) { line.tell(name, first, second, third); });
    }
    var i;
    for (i = 0; i < events.length; i += 1) { one(events[i]); }
  }

  function ofServer(handlers) {
    var names = [], known = ',' + EVENTS.join(',') + ',', name;
    for (name in handlers) {
      if (known.indexOf(',' + name + ',') < 0) { names.push(name); }
    }
    return names;
  }

  /* ---- polysock.js ---------------------------------------------------------------------------------- */

  function viaPolysock(names, line, events) {
    /* What was forced here shall not be what other pages begin with. */
    var socket = window.io(NAMESPACE, { transports: names, remember: !names, forceNew: true });
    forward(line, socket, events.concat(['connecting', 'connect', 'connect_failed', 'reconnecting', 'error']));
    socket.on('disconnect', function (reason, details) { line.tell('disconnect', reason, details && details.error); });
    socket.on('reconnect_failed', function (error) { line.tell('connect_failed', error); });
    line.connected = function () { return socket.connected; };
    line.transport = function () { return socket.io.transport; };
    line.ask = function (args, ms, done) {
      var timed = socket.timeout(ms);
      args.push(done);
      timed.emit.apply(timed, args);
    };
    line.hangUp = function () {
      socket.off();
      socket.disconnect();
    };
  }

  /* ---- Socket.IO 1 to 4: they begin with polling, and try a WebSocket meanwhile ------------------------ */

  function engineTransports(names) {
    var list = [], i;
    for (i = 0; i < names.length; i += 1) { list.push(names[i] === JSONP ? 'polling' : names[i]); }
    return list;
  }

  function viaSocketIO(names, line, events) {
    var jsonp = Boolean(names) && (',' + names.join(',') + ',').indexOf(',' + JSONP + ',') >= 0, attempt = 0;
    var options = { forceNew: true, forceJSONP: jsonp, reconnectionDelayMax: MAX_DELAY_MS }, socket;
    if (names) { options.transports = engineTransports(names); }
    socket = window.io(NAMESPACE, options);
    forward(line, socket, events);
    line.connected = function () { return socket.connected; };
    line.transport = function () {
      var name = socket.io.engine.transport.name;
      return name === 'polling' && jsonp ? JSONP : name;
    };
    line.emit = function (args) { socket.emit.apply(socket, args); };
    line.hangUp = function () { socket.disconnect(); };
    socket.on('connect', function () {
      attempt = 0;
      /* A new engine each time. */
      socket.io.engine.on('upgrade', function () { if (socket.connected) { line.tell('upgraded'); } });
      line.tell('connect');
    });
    socket.on('disconnect', function (reason) { line.lost(reason); });
    /* No namespace (3 and 4), or no connection: then the manager tries again. */
    socket.on('connect_error', function (error) {
      if (socket.active === false) {
        line.tell('connect_failed', problem(error));
      } else {
        line.tell('reconnecting', undefined, attempt + 1, problem(error));
      }
    });
    /* No namespace (1 and 2), or something went wrong on a connection that stands. */
    socket.on('error', function (error) { line.tell(socket.connected ? 'error' : 'connect_failed', problem(error)); });
    socket.io.on('reconnect_attempt', function (count) {
      attempt = count;
      line.tell('connecting');
    });
    setTimeout(function () { if (!socket.connected) { line.tell('connecting', names ? names[0] : 'polling'); } }, 0);
  }

  /* ---- Socket.IO 0.9 ------------------------------------------------------------------------------------ */

  var allOld = null;

  function viaOldSocketIO(names, line, events) {
    var options = { 'force new connection': true, 'reconnection limit': MAX_DELAY_MS, 'max reconnection attempts': Infinity };
    var socket, base, isIn = false;
    allOld = allOld || window.io.transports;
    /* Not as an option: that one is merged into this list place by place, and leaves the rest of it. */
    window.io.transports = (names || allOld).slice(0);
    socket = window.io.connect(NAMESPACE, options);
    base = socket.socket;
    forward(line, socket, events.concat(['connecting']));
    line.connected = function () { return isIn; };
    line.transport = function () { return base.transport ? base.transport.name : undefined; };
    line.emit = function (args) { socket.emit.apply(socket, args); };
    line.hangUp = function () { if (base.connected) { base.disconnect(); } };
    socket.on('connect', function () {
      if (line.isClosed()) { base.disconnect(); }    /* it could not be stopped before */
      if (isIn) { return; }                          /* it asks for its namespace twice after a loss */
      isIn = true;
      line.tell('connect');
    });
    socket.on('disconnect', function (reason) {
      isIn = false;
      line.lost(base.connected || reason === 'booted' ? 'io server disconnect' : 'transport close');
    });
    socket.on('reconnecting', function (delay, attempt) { line.tell('reconnecting', delay, attempt, null); });
    socket.on('connect_failed', function (error) { line.tell('connect_failed', problem(error || 'no transport works')); });
    socket.on('error', function (error) {
      line.tell(isIn || base.reconnecting ? 'error' : 'connect_failed', problem(error || 'the server does not answer'));
    });
  }

  /* ---- Which one it is here ------------------------------------------------------------------------------- */

  var isOld = GENERATION === '0.9', connect = isOld ? viaOldSocketIO : GENERATION ? viaSocketIO : viaPolysock;
  var script = GENERATION ? '/socket.io/v' + GENERATION + '/socket.io.js' : '/polysock/polysock.min.js';

  window.chatClient = {
    name: GENERATION ? 'Socket.IO ' + GENERATION : 'polysock.js',
    script: script,
    page: GENERATION ? '/chat-' + GENERATION + '.html' : '/chat.html',
    missing: function () { return typeof window.io === 'undefined'; },
    transports: function () {
      if (!GENERATION) { return window.polysock.transports; }
      if (isOld) { return ['websocket'].concat(window.ActiveXObject ? ['htmlfile'] : [], ['xhr-polling', JSONP]); }
      return GENERATION === '4' ? ['websocket', 'polling'] : ['websocket', 'polling', JSONP];
    },
    connect: function (names, handlers) {
      var line = new Line(handlers);
      connect(names, line, ofServer(handlers));
      return line;
    }
  };

  /* Written, so that it runs before the script after this one, in every browser. */
  document.write('<script type="text/javascript" src="' + script + '" charset="UTF-8"><\/script>');
}());
