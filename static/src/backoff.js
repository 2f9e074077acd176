/* When to come back: growing delays with jitter and a ceiling, and which close codes mean "do not". */

var NEVER_RETURN = { 1000: 1, 1003: 1, 1005: 1, 1007: 1, 1008: 1, 1009: 1, 1010: 1 };
var MAX_DOUBLINGS = 30;

/* The server's table of close reasons: 3000 to 3999 are the application's goodbye; 4008 (too slow) may return. */
function mayReturn(code, reason) {
  if (code === 1002) { return reason !== 'Protocol error'; }
  return !NEVER_RETURN[code] && !(code >= 3000 && code < 4000);
}

/* attempt counts from 1; random is a number from 0 to 1. */
function backoffDelay(attempt, options, random) {
  var delay = Math.min(options.reconnectionDelayMax, options.reconnectionDelay * Math.pow(2, Math.min(attempt - 1, MAX_DOUBLINGS)));
  var spread = delay * options.randomizationFactor;
  return Math.max(0, Math.min(options.reconnectionDelayMax, Math.round(delay - spread + 2 * spread * random)));
}

var RECONNECTION = { reconnectionDelay: 1000, reconnectionDelayMax: 10000, randomizationFactor: 0.5, reconnectionAttempts: Infinity };
