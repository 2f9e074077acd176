/* Where JSONP answers and forever frames find us: window._polysock, made when the first of them needs it. */

var CALLBACKS = '_polysock', callbackCount = 0;

/* {name: what to put into the URL, set: function (value), drop: function ()} */
function newCallback(value) {
  var table = root[CALLBACKS] = root[CALLBACKS] || {}, key;
  callbackCount += 1;
  key = 'c' + randomText('abcdefghijklmnopqrstuvwxyz0123456789', 4) + callbackCount.toString(36);
  table[key] = value;
  return {
    name: CALLBACKS + '.' + key,
    table: table,
    /* Stays as an empty one for a while: an answer may be under way, and its call must not be an error. */
    drop: function (empty) {
      table[key] = empty;
      setTimeout(function () {
        table[key] = undefined;
        try { delete table[key]; } catch (e) { /* IE 6 to 8, where the table is a host object's */ }
      }, CALLBACK_GRACE_MS);
    }
  };
}

var CALLBACK_GRACE_MS = 60000;
