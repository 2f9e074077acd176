/* Emitter: on, once, off. What a handler throws reaches window.onerror and stops no other handler. */

function Emitter() {
  this._handlers = {};
}

Emitter.prototype.on = Emitter.prototype.addListener = function (name, handler) {
  return listen(this, name, handler, false);
};

Emitter.prototype.once = function (name, handler) {
  return listen(this, name, handler, true);
};

Emitter.prototype.off = Emitter.prototype.removeListener = Emitter.prototype.removeAllListeners = function (name, handler) {
  var kept = [], list, i;
  if (name === undefined) { this._handlers = {}; return this; }
  list = this._handlers['$' + name] || [];
  for (i = 0; handler && i < list.length; i += 1) {
    if (list[i].handler !== handler) { kept.push(list[i]); }
  }
  if (kept.length) { this._handlers['$' + name] = kept; } else { delete this._handlers['$' + name]; }
  return this;
};

Emitter.prototype.listeners = function (name) {
  var list = this._handlers['$' + name] || [], found = [], i;
  for (i = 0; i < list.length; i += 1) { found.push(list[i].handler); }
  return found;
};

/* The $ keeps names such as "constructor" apart from what every object has. */
function listen(emitter, name, handler, once) {
  var list = emitter._handlers['$' + name] || [], i;
  if (!isFunction(handler)) { throw new TypeError('the handler of "' + name + '" is not a function'); }
  for (i = 0; i < list.length; i += 1) {
    if (list[i].handler === handler && !list[i].once && !once) {
      warn('the same function listens to "' + name + '" twice and will be called twice; is on() called at each connect?');
      break;
    }
  }
  emitter._handlers['$' + name] = list.concat([{ handler: handler, once: once }]);
  return emitter;
}

/* Returns whether anybody listened. */
function trigger(emitter, name, args) {
  var list = emitter._handlers['$' + name] || [], i, at;
  for (i = 0; i < list.length; i += 1) {
    if (list[i].once) {
      at = indexOf(emitter._handlers['$' + name] || [], list[i]);
      if (at < 0) { continue; }
      emitter._handlers['$' + name] = emitter._handlers['$' + name].slice(0, at).concat(
        emitter._handlers['$' + name].slice(at + 1));
    }
    callOut(list[i].handler, emitter, args);
  }
  return list.length > 0;
}
