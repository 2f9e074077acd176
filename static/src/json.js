/* JSON for browsers that have none (IE 6 and 7, Firefox 3.0, Safari 3), and safe on the wire for all. */

/* What SockJS escapes: a browser or a proxy exists that mangles each of them. Made from text, because some old
   engines drop format characters from a literal. */
var UNSAFE = new RegExp('[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0604\\u070f\\u17b4\\u17b5\\u200b-\\u200f' +
  '\\u2028-\\u202f\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff0-\\uffff]', 'g');

/* Not JSON itself where another library has put half of it there. */
var nativeJson = root.JSON && isFunction(root.JSON.parse) && isFunction(root.JSON.stringify) ? root.JSON : null;

var MAX_JSON_DEPTH = 500;

function escapeUnit(unit) {
  return '\\u' + ('0000' + unit.charCodeAt(0).toString(16)).slice(-4);
}

function quote(text) {
  return '"' + text.replace(/["\\]/g, '\\$&').replace(UNSAFE, escapeUnit) + '"';
}

function twoDigits(number) {
  return (number < 10 ? '0' : '') + number;
}

function isoDate(date) {
  return isFinite(date.getTime()) ? date.getUTCFullYear() + '-' + twoDigits(date.getUTCMonth() + 1) + '-' +
    twoDigits(date.getUTCDate()) + 'T' + twoDigits(date.getUTCHours()) + ':' + twoDigits(date.getUTCMinutes()) + ':' +
    twoDigits(date.getUTCSeconds()) + '.' + ('00' + date.getUTCMilliseconds()).slice(-3) + 'Z' : null;
}

/* undefined for what JSON leaves out. */
function stringify(value, depth) {
  var parts = [], kind, name, text, i;
  if (depth > MAX_JSON_DEPTH) { throw new TypeError('the value is nested too deep, or holds itself'); }
  kind = value === null || value === undefined ? '' : kindOf(value);
  if (value && typeof value === 'object') {
    if (isFunction(value.toJSON)) { return stringify(value.toJSON(), depth + 1); }
    if (kind === 'Date') { return stringify(isoDate(value), depth + 1); }
    if (kind === 'String' || kind === 'Number' || kind === 'Boolean') { value = value.valueOf(); }
  }
  if (value === null) { return 'null'; }
  if (typeof value === 'string') { return quote(value); }
  if (typeof value === 'number') { return isFinite(value) ? String(value) : 'null'; }
  if (typeof value === 'boolean') { return String(value); }
  if (typeof value !== 'object') { return undefined; }
  if (kind === 'Array') {
    for (i = 0; i < value.length; i += 1) { parts.push(stringify(value[i], depth + 1) || 'null'); }
    return '[' + parts.join(',') + ']';
  }
  for (name in value) {
    if (has(value, name)) {
      text = stringify(value[name], depth + 1);
      if (text !== undefined) { parts.push(quote(name) + ':' + text); }
    }
  }
  return '{' + parts.join(',') + '}';
}

function encodeJson(value) {
  return nativeJson ? nativeJson.stringify(value).replace(UNSAFE, escapeUnit) : stringify(value, 0);
}

/* undefined when the text is not JSON. Without JSON.parse the text is evaluated, but only after it has been shown to
   hold nothing except strings, numbers, literals and punctuation. */
function decodeJson(text) {
  var bones;
  if (nativeJson) {
    try { return nativeJson.parse(text); } catch (e) { return undefined; }
  }
  text = text.replace(UNSAFE, escapeInside);
  bones = text.replace(/\\(?:["\\\/bfnrt]|u[0-9a-fA-F]{4})/g, '@').replace(/"[^"\\\n\r]*"/g, '""');
  if (/(?:^|[^\d.eE+])-?0\d/.test(bones) || !(/^[\],:{}\s]*$/).test(
      bones.replace(/""|true|false|null|-?\d+(?:\.\d+)?(?:[eE][+\-]?\d+)?/g, ']').replace(/(?:^|:|,)(?:\s*\[)+/g, ''))) {
    return undefined;
  }
  try { return new Function('return (' + text + ');')(); } catch (e2) { return undefined; }
}

/* White space between values must stay white space. */
function escapeInside(unit) {
  return unit === '\n' || unit === '\r' || unit === '\t' ? unit : escapeUnit(unit);
}
