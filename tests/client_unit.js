/* polysock.js without a browser: JSON (native, and ours for engines that have none), packets, URLs, delays, base64, the
   Emitter, and the interface of PolySock. Run with: node --test tests/client_unit.js */

'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const vm = require('node:vm');

const SOURCE = fs.readFileSync(path.join(__dirname, '..', 'static', process.env.POLYSOCK_BUILD || 'polysock.js'), 'utf8');
const vectors = (name) => JSON.parse(fs.readFileSync(path.join(__dirname, 'vectors', name), 'utf8'));
const plain = (value) => JSON.parse(JSON.stringify(value));

/* The client in a global scope of its own. */
function load(prepare, globals) {
  const context = vm.createContext({ module: { exports: {} }, setTimeout, clearTimeout, ...globals });
  vm.runInContext(prepare || '', context);
  vm.runInContext(SOURCE, context);
  return context.module.exports;
}

const page = (href) => {
  const url = new URL(href);
  const location = { href, protocol: url.protocol, host: url.host, hostname: url.hostname, port: url.port, pathname: url.pathname };
  const window = { location, document: {} };
  return { window, ...window };
};

const ENGINES = { native: load(), 'without JSON': load('delete globalThis.JSON') };

for (const [engine, { parts }] of Object.entries(ENGINES)) {
  test(`${engine}: messages are encoded so that every reader of JSON gets them back`, () => {
    for (const { name, message } of vectors('sockjs.json').encode) {
      const text = parts.encodeJson(message);
      assert.deepEqual(JSON.parse(text), message, name);
      assert.doesNotMatch(text, /[\u0000-\u001f\u2028\u2029\ud800-\udfff]/, name);
      assert.deepEqual(plain(parts.decodeJson(text)), message, name);
    }
  });

  test(`${engine}: frames of a server are read, and what is no JSON is refused`, () => {
    for (const { fragment, message } of vectors('sockjs.json').encode) {
      assert.deepEqual(plain(parts.decodeJson(fragment)), message);
    }
    for (const { body, error } of vectors('sockjs.json').decode) {
      if (error && error.text === 'Broken JSON encoding.' && body) { assert.equal(parts.decodeJson(body), undefined, body); }
    }
    for (const text of ['', '[1', 'alert(1)', '["a"].b', '[function(){}]', '"a" "b"', "'a'", '[a]', '{"a":b}', '(1)', '01']) {
      assert.equal(parts.decodeJson(text), undefined, text);
    }
  });

  test(`${engine}: values as JSON has them`, () => {
    const value = { a: [1, undefined, null, () => 1], b: undefined, c: new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 6)), d: NaN, e: true, f: 'é' };
    assert.equal(JSON.stringify(JSON.parse(parts.encodeJson(value))), JSON.stringify(value));
    const loop = {};
    loop.self = loop;
    assert.throws(() => parts.encodeJson(loop), /TypeError|nested|circular/i);
  });

  test(`${engine}: Socket.IO packets there and back`, () => {
    const packets = [
      { type: 0, nsp: '/' }, { type: 0, nsp: '/chat', data: { token: 'abc' } }, { type: 1, nsp: '/chat' },
      { type: 2, nsp: '/', data: ['message', 'hé€😀 "\\\n'] }, { type: 2, nsp: '/chat', id: 12, data: ['a', [1, { b: null }]] },
      { type: 3, nsp: '/', id: 3, data: [] }, { type: 4, nsp: '/denied', data: { message: 'no', data: 1 } },
    ];
    for (const packet of packets) {
      const [text, ...more] = parts.encodePacket(packet);
      assert.equal(more.length, 0);
      const back = plain(new parts.PacketReader().feed(text));
      assert.deepEqual(back, packet, text);
    }
  });
}

const { parts, PolySock, io } = ENGINES.native;

test('Socket.IO packets as on the wire', () => {
  const read = (...texts) => {
    const reader = new parts.PacketReader();
    return texts.map((text) => reader.feed(text)).pop();
  };
  assert.deepEqual([...parts.encodePacket({ type: 2, nsp: '/chat', id: 0, data: ['message', 'in chat'] })], ['2/chat,0["message","in chat"]']);
  assert.deepEqual([...parts.encodePacket({ type: 0, nsp: '/denied' })], ['0/denied,']);
  assert.equal(read('0/custom').nsp, '/custom');
  const packet = read('51-["bin-back",{"x":1,"data":{"_placeholder":true,"num":0}}]', 'bAQID/w==');
  assert.equal(packet.type, 2);
  assert.deepEqual([...new Uint8Array(packet.data[1].data)], [1, 2, 3, 255]);
  for (const bad of [
    ['9'], ['x'], ['2'], ['2{}'], ['2[]'], ['2["a"'], ['3["a"]'], ['5["a"]'], ['21-["a"]'], ['50-["a"]'], ['bAQ=='], ['51-["a"]', 'b!'],
    ['51-["a"]', '2["b"]'], ['51-["a",{"_placeholder":true,"num":1}]', 'bAQ=='], ['51-["a",{"_placeholder":true,"num":"0"}]', 'bAQ=='],
  ]) {
    assert.throws(() => read(...bad), /reading a packet/, bad.join(' then '));
  }
});

test('the packets of the shared vectors', () => {
  const TYPES = { connect: 0, disconnect: 1, event: 2, ack: 3, connect_error: 4 };
  const wire = (message) => (typeof message === 'string' ? message : `b${message.base64}`);
  const seen = (value) => {
    if (value && parts.isBuffer(value)) { return { base64: Buffer.from(value).toString('base64') }; }
    if (Array.isArray(value)) { return value.map(seen); }
    return value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([key, item]) => [key, seen(item)])) : value;
  };
  const { both, from_server: fromServer, decode } = vectors('socketio5.json');
  for (const { name, packet, messages } of [...both, ...fromServer, ...decode]) {
    const reader = new parts.PacketReader();
    const found = messages.map((message) => reader.feed(wire(message))).pop();
    assert.equal(found.type, TYPES[packet.type], name);
    assert.equal(found.nsp, packet.namespace, name);
    assert.equal(found.id, packet.ack_id ?? undefined, name);
    const data = { connect: packet.data, event: [packet.name, ...(packet.args || [])], ack: packet.args,
      connect_error: packet.data === undefined ? { message: packet.message } : { message: packet.message, data: packet.data } }[packet.type];
    assert.deepEqual(plain(seen(found.data) ?? null), plain(packet.type === 'event' ? data.map((item, i) => (i || typeof found.data[0] === 'string' ? item : Number(item))) : data ?? null), name);
  }
});

test('what is no packet of a server is refused', () => {
  /* Rules for clients, and limits of the server, are not the client's business. */
  const others = /reserved|from a client|11 attachments|infinity|long namespace|fraction|digit left on/;
  for (const { name, messages } of vectors('socketio5.json').reject) {
    if (others.test(name)) { continue; }
    const reader = new parts.PacketReader();
    assert.throws(() => messages.forEach((message) => reader.feed(typeof message === 'string' ? message : `b${message.base64}`)), name);
  }
});

test('binary becomes attachments, in order, and the value stays as it was', () => {
  const local = load('', { ArrayBuffer, Uint8Array });
  const value = { a: new Uint8Array([1, 2, 3]).subarray(1), list: [new Uint8Array([255]).buffer] };
  const texts = [...local.parts.encodePacket({ type: 2, nsp: '/', id: 7, data: ['bin', value] })];
  assert.deepEqual(texts, ['52-7["bin",{"a":{"_placeholder":true,"num":0},"list":[{"_placeholder":true,"num":1}]}]', 'bAgM=', 'b/w==']);
  assert.ok(value.a instanceof Uint8Array);
});

test('base64 both ways', () => {
  for (let length = 0; length < 70; length += 1) {
    const bytes = Buffer.from(Array.from({ length }, (_, i) => (i * 37 + length) % 256));
    assert.equal(parts.toBase64(bytes), bytes.toString('base64'));
    assert.deepEqual(Buffer.from(parts.fromBase64(bytes.toString('base64'))), bytes);
  }
  for (const bad of ['a', 'ab=c', '====', 'ab c', 'ab\n=']) { assert.equal(parts.fromBase64(bad), null, bad); }
});

test('URLs', () => {
  const here = load('', page('https://page.example:8443/app/index.html?x#y')).parts.parseUrl;
  const cases = {
    'ws://host:5555/some': 'http://host:5555/some', 'wss://HOST': 'https://host/', 'http://h:80/a/../b/./c?q=1#frag': 'http://h/b/c?q=1',
    'https://h:443/': 'https://h/', 'localhost:5555/some': 'https://localhost:5555/some', '//other/x': 'https://other/x',
    '/chat': 'https://page.example:8443/chat', 'chat?a=1': 'https://page.example:8443/app/chat?a=1', '': 'https://page.example:8443/',
    'ws://[::1]:9000/v6': 'http://[::1]:9000/v6', ' ws://h/x ': 'http://h/x', '?a=1': 'https://page.example:8443/app/?a=1',
  };
  for (const [given, wanted] of Object.entries(cases)) {
    const found = here(given);
    assert.equal(found.origin + found.path + found.query, wanted, given);
  }
  for (const bad of ['ftp://h/', 'http://', 'http:///x', 'ws://h:70000/', 'ws://a b/', 'ws://h:x/', 'mailto:a@b', 'http:\\\\h', 'ws://<h>/']) {
    assert.throws(() => here(bad), (error) => /reading the URL/.test(error.step) && /ws:/.test(error.hint), bad);
  }
  assert.throws(() => parts.parseUrl('/relative'), /needs a page/);
  assert.throws(() => io('ftp://h/'), /scheme ftp/);
  assert.throws(() => new PolySock('ftp://h/'), { name: 'SyntaxError' });
  assert.throws(() => io('http://h/', { transports: ['carrier-pigeon'] }), /there is no "carrier-pigeon"/);
  assert.throws(() => io('http://h/a,b', { autoConnect: false }), /comma/);
});

test('delays grow, stay under their ceiling, and are spread', () => {
  const options = { reconnectionDelay: 1000, reconnectionDelayMax: 10000, randomizationFactor: 0.5 };
  assert.deepEqual([1, 2, 3, 4, 5, 99].map((n) => parts.backoffDelay(n, options, 0.5)), [1000, 2000, 4000, 8000, 10000, 10000]);
  assert.equal(parts.backoffDelay(1, options, 0), 500);
  assert.equal(parts.backoffDelay(1, options, 1), 1500);
  assert.equal(parts.backoffDelay(5, options, 1), 10000);
});

test('which close codes mean: do not come back', () => {
  for (const [code, reason] of [[1000, ''], [1005, ''], [1008, 'Refused'], [1009, ''], [3000, 'Go away!'], [1002, 'Protocol error']]) {
    assert.equal(parts.mayReturn(code, reason), false, `${code} ${reason}`);
  }
  for (const [code, reason] of [[1001, ''], [1006, ''], [1011, ''], [1002, 'Connection interrupted'], [2010, ''], [4008, '']]) {
    assert.equal(parts.mayReturn(code, reason), true, `${code} ${reason}`);
  }
});

test('the order of transports: what worked, then the ladder, then what to avoid', () => {
  assert.equal(parts.transportOrder('http://h', {})[0], 'websocket');
  assert.deepEqual([...parts.transportOrder('http://h', { transports: ['jsonp-polling', 'websocket'] })], ['jsonp-polling', 'websocket']);
  assert.equal([...parts.transportOrder('http://h', { avoid: ['websocket'] })].pop(), 'websocket');
  const store = { polysock: JSON.stringify({ 'http://h': ['xhr-polling', Date.now()], 'http://old': ['xhr-polling', 1] }) };
  const local = load('', { localStorage: { getItem: (key) => store[key], setItem: (key, value) => { store[key] = value; } } }).parts;
  assert.equal(local.transportOrder('http://h', {})[0], 'xhr-polling');
  assert.equal(local.transportOrder('http://old', {})[0], 'websocket');
  assert.equal(local.transportOrder('http://h', { remember: false })[0], 'websocket');
  // Who names transports means them in that order.
  const named = ['websocket', 'xhr-polling'];
  assert.equal(local.transportOrder('http://h', { transports: named })[0], 'websocket');
  assert.equal(local.transportOrder('http://h', { transports: named, remember: true })[0], 'xhr-polling');
});

test('handlers: once, removing, names of every object, and one that throws', async () => {
  const thrown = [];
  const local = load('', { setTimeout: (work) => setTimeout(() => { try { work(); } catch (error) { thrown.push(error.message); } }) }).parts;
  const emitter = new local.Emitter();
  const heard = [];
  const three = (value) => heard.push(['three', value]);
  emitter.once('constructor', (value) => heard.push(['once', value]));
  emitter.on('constructor', () => { throw new Error('mine'); });
  emitter.on('constructor', three);
  assert.equal(local.trigger(emitter, 'constructor', [1]), true);
  emitter.removeListener('constructor', three);
  local.trigger(emitter, 'constructor', [2]);
  assert.equal(local.trigger(emitter, 'toString', []), false);
  await new Promise((resolve) => { setTimeout(resolve, 20); });
  assert.deepEqual(heard, [['once', 1], ['three', 1]]);
  assert.deepEqual(thrown, ['mine', 'mine']);
  assert.throws(() => emitter.on('x'), { name: 'TypeError' });
});

test('PolySock has the face of a WebSocket', () => {
  const socket = new PolySock('ws://127.0.0.1:1/echo?a=1', ['one', 'two']);
  assert.equal(socket.url, 'ws://127.0.0.1:1/echo?a=1');
  assert.deepEqual([socket.readyState, socket.protocol, socket.bufferedAmount, PolySock.CLOSED, socket.OPEN], [0, '', 0, 3, 1]);
  assert.throws(() => socket.send('x'), { name: 'InvalidStateError' });
  assert.throws(() => socket.close(1001), { name: 'InvalidAccessError' });
  assert.throws(() => socket.close(3000, 'é'.repeat(62)), { name: 'SyntaxError' });
  assert.throws(() => new PolySock('ws://h/', ['one', 'one']), { name: 'SyntaxError' });
  assert.throws(() => new PolySock('ws://h/', 'a b'), { name: 'SyntaxError' });
  return new Promise((resolve) => {
    socket.addEventListener('close', function (event) {
      assert.equal(this, socket);
      assert.deepEqual([event.code, event.wasClean, event.type, socket.readyState], [1006, false, 'close', 3]);
      resolve();
    });
    socket.close();
    assert.equal(socket.readyState, 2);
  });
});

test('scripts, CommonJS and AMD: each gets the client, and only a script gets globals', () => {
  const loaded = (globals) => {
    const context = vm.createContext({ setTimeout, clearTimeout, ...globals });
    const before = new Set(Object.keys(context));
    vm.runInContext(SOURCE, context);
    return [context, Object.keys(context).filter((name) => !before.has(name)).sort()];
  };
  const [script, names] = loaded({});
  assert.deepEqual(names, ['PolySock', 'io', 'polysock']);
  assert.equal(script.io, script.polysock.io);
  assert.deepEqual(loaded({ module: { exports: {} } })[1], []);
  const calls = [];
  const define = (needs, make) => calls.push(make());
  define.amd = {};
  assert.deepEqual(loaded({ define })[1], []);
  assert.equal(typeof calls[0].io.connect, 'function');
});

test('install leaves a WebSocket that is there, unless told', () => {
  class Native {}
  const globals = { WebSocket: Native };
  const context = vm.createContext({ setTimeout, clearTimeout, ...globals });
  vm.runInContext(SOURCE, context);
  assert.equal(context.polysock.install(), false);
  assert.equal(context.WebSocket, Native);
  assert.equal(context.polysock.install({ force: true }), true);
  assert.equal(context.WebSocket.isPolySock, true);
  assert.equal(context.WebSocket.OPEN, 1);
  const bare = vm.createContext({ setTimeout, clearTimeout });
  vm.runInContext(SOURCE, bare);
  assert.equal(bare.polysock.install(), true);
});
