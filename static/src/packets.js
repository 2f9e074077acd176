/* Socket.IO's packets (protocol 5) as SockJS messages: a text, then each attachment as "b" and base64.
   Pure: values to texts and back. */

var CONNECT = 0, DISCONNECT = 1, EVENT = 2, ACK = 3, CONNECT_ERROR = 4, BINARY_EVENT = 5, BINARY_ACK = 6;
var PACKET_HEAD = /^([0-6])(?:(\d{1,6})-)?(?:(\/[^,]*)(?:,|$))?(\d{1,15})?/;
var MAX_ATTACHMENTS = 1000;
var MAX_PACKET_DEPTH = 500;
var RESERVED = { $connect: 1, $connect_error: 1, $disconnect: 1, $disconnecting: 1, $newListener: 1, $removeListener: 1 };

/* A copy with placeholders where bytes were; the value itself where there are none. */
function takeBinary(value, attachments, depth) {
  var copy, name, i;
  if (!value || typeof value !== 'object') { return value; }
  if (depth > MAX_PACKET_DEPTH) { throw new TypeError('the value is nested too deep, or holds itself'); }
  if (isBuffer(value)) {
    attachments.push(value);
    return { _placeholder: true, num: attachments.length - 1 };
  }
  if (isArray(value)) {
    copy = [];
    for (i = 0; i < value.length; i += 1) { copy.push(takeBinary(value[i], attachments, depth + 1)); }
    return copy;
  }
  if (isFunction(value.toJSON) || kindOf(value) !== 'Object') { return value; }
  copy = {};
  for (name in value) {
    if (has(value, name)) { copy[name] = takeBinary(value[name], attachments, depth + 1); }
  }
  return copy;
}

function putBinary(value, attachments) {
  var name, i;
  if (isArray(value)) {
    for (i = 0; i < value.length; i += 1) { value[i] = putBinary(value[i], attachments); }
  } else if (value && typeof value === 'object') {
    if (value._placeholder === true) {
      if (typeof value.num !== 'number' || !(value.num >= 0 && value.num < attachments.length) || value.num % 1) {
        throw failure('reading a packet', 'a placeholder names no attachment');
      }
      return attachments[value.num];
    }
    for (name in value) {
      if (has(value, name)) { value[name] = putBinary(value[name], attachments); }
    }
  }
  return value;
}

/* packet: {type, nsp, id, data}; returns the texts to send. */
function encodePacket(packet) {
  var type = packet.type, data = packet.data, attachments = [], texts, i;
  if ((type === EVENT || type === ACK) && root.ArrayBuffer) {
    data = takeBinary(data, attachments, 0);
    if (attachments.length) { type += 3; }
  }
  texts = [type + (attachments.length ? attachments.length + '-' : '') + (packet.nsp === '/' ? '' : packet.nsp + ',') +
    (packet.id === undefined || packet.id === null ? '' : packet.id) + (data === undefined || data === null ? '' : encodeJson(data))];
  for (i = 0; i < attachments.length; i += 1) { texts.push('b' + toBase64(bytesOf(attachments[i]))); }
  return texts;
}

/* feed(text) returns a packet, or null where more must come; throws for what is no packet. */
function PacketReader() {
  this._waiting = null;
  this._missing = 0;
  this._attachments = [];
}

PacketReader.prototype.feed = function (text) {
  var parts, type, body, packet, bytes;
  if (text.charAt(0) === 'b') {
    bytes = fromBase64(text.slice(1));
    if (!this._waiting || !bytes) { throw failure('reading a packet', 'an attachment that is not base64, or that nothing announced'); }
    this._attachments.push(bytes);
    if (this._attachments.length < this._missing) { return null; }
    packet = this._waiting;
    this._waiting = null;
    packet.data = putBinary(packet.data, this._attachments);
    return packet;
  }
  parts = PACKET_HEAD.exec(text);
  if (!parts || this._waiting) { throw failure('reading a packet', 'not a packet: ' + text.slice(0, 60)); }
  type = Number(parts[1]);
  body = text.slice(parts[0].length);
  packet = { type: type, nsp: parts[3] || '/', id: parts[4] ? Number(parts[4]) : undefined, data: body ? decodeJson(body) : undefined };
  if ((body && packet.data === undefined) || Boolean(parts[2]) !== (type >= BINARY_EVENT)) {
    throw failure('reading a packet', 'not a packet: ' + text.slice(0, 60));
  }
  if (type >= BINARY_EVENT) { packet.type = type -= 3; }
  if ((type === EVENT || type === ACK) && !isArray(packet.data)) { throw failure('reading a packet', 'an event or an ack without its array'); }
  if (type === EVENT && typeof packet.data[0] !== 'string' && typeof packet.data[0] !== 'number') {
    throw failure('reading a packet', 'an event without a name');
  }
  if (type === ACK && packet.id === undefined) { throw failure('reading a packet', 'an ack without the id it answers'); }
  if ((type === CONNECT || type === DISCONNECT) && (packet.id !== undefined || (body && (type === DISCONNECT || kindOf(packet.data) !== 'Object')))) {
    throw failure('reading a packet', 'a connect or disconnect that carries what it cannot');
  }
  if (!parts[2]) { return packet; }
  this._missing = Number(parts[2]);
  if (!this._missing || this._missing > MAX_ATTACHMENTS) { throw failure('reading a packet', 'too many attachments, or none'); }
  this._waiting = packet;
  this._attachments = [];
  return null;
};
