/* What all parts lean on: the page, small functions, timers, random text.
   The files of static/src are parts of one function (see tests/tools/build_client.mjs) and share its scope.
   ECMAScript 3 throughout: the browsers that need the fallbacks most parse nothing newer. */

var VERSION = '0.1.0';

var root = typeof window !== 'undefined' ? window : typeof self !== 'undefined' ? self :
  typeof globalThis !== 'undefined' ? globalThis : typeof global !== 'undefined' ? global : {};
var page = root.document ? root.location : null;
var hasOwn = Object.prototype.hasOwnProperty;

function nothing() {}

function now() {
  return new Date().getTime();
}

function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

function isArray(value) {
  return kindOf(value) === 'Array';
}

function isFunction(value) {
  return typeof value === 'function';
}

function has(object, name) {
  return hasOwn.call(object, name);
}

function indexOf(list, wanted) {
  var i;
  for (i = 0; i < list.length; i += 1) {
    if (list[i] === wanted) { return i; }
  }
  return -1;
}

/* The values of several objects in a new one; the first that has a name wins. */
function merged() {
  var result = {}, i, name;
  for (i = 0; i < arguments.length; i += 1) {
    for (name in arguments[i]) {
      if (has(arguments[i], name) && !has(result, name) && arguments[i][name] !== undefined) {
        result[name] = arguments[i][name];
      }
    }
  }
  return result;
}

function randomText(alphabet, length) {
  var text = '', numbers, i;
  if (root.crypto && root.crypto.getRandomValues && root.Uint8Array) {
    numbers = root.crypto.getRandomValues(new root.Uint8Array(length));
  }
  for (i = 0; i < length; i += 1) {
    text += alphabet.charAt(numbers ? numbers[i] % alphabet.length : Math.floor(Math.random() * alphabet.length));
  }
  return text;
}

/* Bytes of a text in UTF-8. */
function utf8Length(text) {
  var bytes = text.length, i, unit;
  for (i = 0; i < text.length; i += 1) {
    unit = text.charCodeAt(i);
    if (unit > 0x7f) { bytes += 1; }
    if (unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff)) { bytes += 1; }
  }
  return bytes;
}

/* Tell the developer. Old consoles exist only while their window is open. */
function warn(text) {
  if (root.console && root.console.warn) {
    try { root.console.warn('polysock: ' + text); } catch (e) { /* a console that wants another this */ }
  }
}

/* Call what a page gave us. What it throws must reach window.onerror, and must not stop us. */
function callOut(fn, self_, args) {
  try {
    fn.apply(self_, args);
  } catch (e) {
    setTimeout(function () { throw e; }, 0);
  }
}
