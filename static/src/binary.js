/* Bytes where the engine has them: base64 both ways, and what counts as binary. */

var BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

function isBlob(value) {
  var kind = value && typeof value === 'object' ? kindOf(value) : '';
  return kind === 'Blob' || kind === 'File';
}

function isBuffer(value) {
  if (!value || typeof value !== 'object' || !root.ArrayBuffer) { return false; }
  return kindOf(value) === 'ArrayBuffer' || (kindOf(value.buffer) === 'ArrayBuffer' && typeof value.byteLength === 'number');
}

function isBinary(value) {
  return isBuffer(value) || isBlob(value);
}

function bytesOf(value) {
  return kindOf(value) === 'ArrayBuffer' ? new root.Uint8Array(value) :
    new root.Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

function toBase64(bytes) {
  var parts = [], i, group;
  for (i = 0; i < bytes.length; i += 3) {
    group = (bytes[i] << 16) | ((bytes[i + 1] || 0) << 8) | (bytes[i + 2] || 0);
    parts.push(BASE64.charAt(group >> 18), BASE64.charAt((group >> 12) & 63),
      i + 1 < bytes.length ? BASE64.charAt((group >> 6) & 63) : '=', i + 2 < bytes.length ? BASE64.charAt(group & 63) : '=');
  }
  return parts.join('');
}

/* null where it is not base64. An ArrayBuffer, or an array of numbers where there is none. */
function fromBase64(text) {
  var bytes, length, at = 0, i, group;
  if (text.length % 4 || !/^[A-Za-z0-9+\/]*={0,2}$/.test(text)) { return null; }
  length = text.length / 4 * 3 - (/==$/.test(text) ? 2 : /=$/.test(text) ? 1 : 0);
  bytes = root.Uint8Array ? new root.Uint8Array(length) : [];
  for (i = 0; i < text.length; i += 4) {
    group = (BASE64.indexOf(text.charAt(i)) << 18) | (BASE64.indexOf(text.charAt(i + 1)) << 12) |
      (Math.max(0, BASE64.indexOf(text.charAt(i + 2))) << 6) | Math.max(0, BASE64.indexOf(text.charAt(i + 3)));
    if (at < length) { bytes[at] = (group >> 16) & 255; }
    if (at + 1 < length) { bytes[at + 1] = (group >> 8) & 255; }
    if (at + 2 < length) { bytes[at + 2] = group & 255; }
    at += 3;
  }
  return bytes.buffer && root.ArrayBuffer ? bytes.buffer : bytes;
}

/* The places of blobs in a value, as [holder, key]. */
function findBlobs(value, holder, key, found) {
  var name, i;
  if (isBlob(value)) {
    found.push([holder, key]);
  } else if (isArray(value)) {
    for (i = 0; i < value.length; i += 1) { findBlobs(value[i], value, i, found); }
  } else if (value && typeof value === 'object' && !isBuffer(value)) {
    for (name in value) {
      if (has(value, name)) { findBlobs(value[name], value, name, found); }
    }
  }
  return found;
}

/* done(bytes), null where it cannot be read */
function readBlob(blob, done) {
  var reader = new root.FileReader();
  reader.onload = function () { done(reader.result); };
  reader.onerror = function () { done(null); };
  reader.readAsArrayBuffer(blob);
}
