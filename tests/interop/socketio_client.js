/*
 * socket.io-client, as npm has it, through every scenario over every transport that it has under Node.
 *
 *     node socketio_client.js URL VERSION       one JSON line for each scenario on each transport:
 *                                               {"transport", "scenario", "error": null | text, "saw": {...}}
 *     node socketio_client.js URL VERSION SCENARIO      that one alone; "numbers" is played only when asked for, and
 *                                               also with VERSION "sockjs-client"
 *     node socketio_client.js URL room ROOM [SENDERS]   a member of ROOM for each version and transport, and sockjs-client
 *                                               ones; prints "ready" when all are in; told "report" on standard input,
 *                                               one line {member: [what it got as "news", ...]}, once each has heard
 *                                               "end" SENDERS times, and ends
 *     node socketio_client.js URL stay ROOM     some members of ROOM that come back whenever they are cut off. A JSON line
 *                                               for each time that one is in, {"who", "where", "stay"}, or out, {"who",
 *                                               "reason"}; told "report", one line {member: [[what it got as "news", ...]
 *                                               for each stay]}, and ends
 *
 * The application at URL is socketio_app.py, which says what its events do; "/lab/..." is how scenarios start and stop
 * servers and learn what a server saw. The packages are found through NODE_PATH, as socket.io-client-0.9, -1, -2, -3, -4
 * and sockjs-client; nothing here knows polysock.
 */
'use strict';

const assert = require('assert');
const http = require('http');

const VERSIONS = { '0.9.17': '0.9', '1.7.4': '1', '2.5.0': '2', '3.1.3': '3', '4.8.4': '4' };
const WAIT_MS = 30000;
const RECONNECT_MS = 20;
const BURST = 200;
const TRICKLE = 20;
const NUMBERS = 1000;
const STAYING = 2;
// So many at once, and the next ones when so few are not answered.
const BATCH = 100;
const SOCKJS = ['websocket', 'xhr-streaming', 'xhr-polling', 'eventsource'];
const BIG_BYTES = 300000;

// What a payload's framing, UTF-8 done twice, JSON, or a packet's own separators could choke on.
const TEXTS = [
  'é€😀', 'café naïve ÿ', '\u2028\u2029', '"quoted" \\back\\slash\\n \'', 'NUL \0 \x01\x1f\x7f', '</script>\r\n\t', '',
  'a:b:::c+d,e-1/chat,?x=%20&y', '5:::{"name":"x"}', '\ufffd7\ufffd3:::abc', '\ufeff\uffff', '\x1e2\x1e', '1:60:',
];
const NESTED = { 'é "key"\u2028': TEXTS, deep: [[{ a: [null, true, 0, -1.5, 1e21] }]], _placeholder: false };
const AWKWARD_EVENT = 'näme "of" \\ 😀\u2028';
const BYTES = Buffer.from([0, 1, 4, 10, 13, 0x1e, 0x62, 0x7f, 0x80, 0xc3, 0xa9, 0xfe, 0xff]);

function within(promise, what) {
  let timer;
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${WAIT_MS} ms`)), WAIT_MS);
  });
  const outcome = Promise.race([promise, late]).finally(() => clearTimeout(timer));
  outcome.catch(() => {}); // Whoever has failed before does not look at it any more.
  return outcome;
}

/** The arguments of the next such event. */
function heard(emitter, event) {
  return within(new Promise((resolve) => emitter.once(event, (...args) => resolve(args))), `waiting for "${event}"`);
}

/** The reason of the next disconnect. */
const gone = (socket) => heard(socket, 'disconnect').then(([reason]) => reason);

/** Emit with a callback; what it is called with. */
function call(socket, event, ...args) {
  return within(new Promise((resolve) => socket.emit(event, ...args, (...answer) => resolve(answer))),
    `waiting for the ack of "${event}"`);
}

/** Ask the application's own pages. */
function lab(base, path, query) {
  const url = `${base}/lab/${path}?${new URLSearchParams(query)}`;
  return within(new Promise((resolve, reject) => {
    http.get(url, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (piece) => { body += piece; });
      response.on('end', () => {
        if (response.statusCode === 200) resolve(JSON.parse(body));
        else reject(new Error(`${url}: ${response.statusCode} ${body}`));
      });
    }).on('error', reject);
  }), url);
}

/** Every kind of bytes as one that compares. */
function plain(value) {
  if (value instanceof ArrayBuffer) return { bytes: Buffer.from(value).toString('hex') };
  if (ArrayBuffer.isView(value)) {
    return { bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('hex') };
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
}

const same = (got, expected) => assert.deepStrictEqual(plain(got), plain(expected));

/** One connection of 1.x to 4.x. */
class Modern {
  constructor(version, base, transport, query) {
    this.major = parseInt(version, 10);
    this.transport = transport;
    const { Manager } = require(`socket.io-client-${VERSIONS[version]}`);
    this.manager = new Manager(base, {
      transports: transport === 'upgrade' ? ['polling', 'websocket'] : [transport],
      query, reconnectionDelay: RECONNECT_MS, randomizationFactor: 0, forceNew: true,
    });
    this.main = this.socket('/');
  }

  /** Ask for a namespace; what it is asked with goes where the version has a place for it. */
  socket(namespace, credentials) {
    if (!credentials) return this.manager.socket(namespace);
    if (this.major >= 3) return this.manager.socket(namespace, { auth: credentials });
    return this.manager.socket(namespace, { query: new URLSearchParams(credentials).toString() });
  }

  /** Wait until it rides on what it shall ride on. */
  async settled() {
    const engine = this.manager.engine;
    const name = this.transport === 'upgrade' ? 'websocket' : this.transport;
    if (engine.transport.name !== name) await heard(engine, 'upgrade');
    assert.strictEqual(engine.transport.name, name);
  }

  /** What the server must know the client as. */
  id(socket, namespace) {
    return this.major === 1 && namespace !== '/' ? `${namespace}#${socket.id}` : socket.id;
  }

  isTrying() { return Boolean(this.manager.reconnecting || this.manager._reconnecting); }

  refusal(socket) {
    if (this.major < 3) return heard(socket, 'error').then(([data]) => data);
    return heard(socket, 'connect_error').then(([error]) => [error.message, error.data]);
  }

  refused() { return this.major < 3 ? { why: 'nope' } : ['not authorized', { why: 'nope' }]; }

  unknown() { return this.major < 3 ? 'Invalid namespace' : ['Invalid namespace', undefined]; }

  /** Wait until the connection is over. */
  over() { return heard(this.manager, 'close'); }

  async idle() { /* Nothing that is on its way hinders a goodbye. */ }

  close() {
    this.manager.reconnection(false);
    for (const socket of Object.values(this.manager.nsps)) socket.disconnect();
    if (this.manager.engine) this.manager.engine.close();
  }
}

Object.assign(Modern.prototype, {
  left: 'io client disconnect', kicked: 'io server disconnect', ended: 'io server disconnect', isLegacy: false,
});

/** One connection of 0.9. */
class Legacy {
  constructor(version, base, transport, query) {
    this.transport = transport;
    const io = require(`socket.io-client-${VERSIONS[version]}`);
    // As an option the list would be merged into this one, which all clients share.
    io.transports = [transport];
    this.main = io.connect(`${base}?${new URLSearchParams(query)}`, {
      'force new connection': true, 'reconnection delay': RECONNECT_MS,
      'max reconnection attempts': 20,
    });
    this.inner = this.main.socket;
  }

  socket(namespace, credentials) {
    return this.inner.of(credentials ? `${namespace}?${new URLSearchParams(credentials)}` : namespace);
  }

  async settled() { assert.strictEqual(this.inner.transport.name, this.transport); }

  id() { return this.inner.sessionid; }

  isTrying() { return this.inner.reconnecting || this.inner.connected || this.inner.connecting; }

  refusal(socket) { return heard(socket, 'connect_failed').then(([reason]) => reason); }

  // It has three reasons for an error, and this is the only one that becomes an event of its own.
  refused() { return 'unauthorized'; }

  unknown() { return 'unauthorized'; }

  async over() { /* Its "disconnect" is the last that it says. */ }

  /** A disconnect() while a POST is on its way waits in a buffer that nothing empties any more. */
  async idle() {
    const until = Date.now() + WAIT_MS;
    while (this.inner.doBuffer && Date.now() < until) await new Promise(setImmediate);
  }

  close() {
    this.inner.options.reconnect = false;
    if (this.inner.transport) this.main.disconnect(); // Without one it would fail.
  }
}

Object.assign(Legacy.prototype, { left: undefined, kicked: undefined, ended: 'booted', isLegacy: true });

/** What a scenario works with. */
class Stage {
  constructor(version, base, transport, scenario) {
    this.version = version;
    this.base = base;
    this.transport = transport;
    this.tag = `${version} ${transport} ${scenario} ${process.pid} é&+`;
    this.saw = {};
    this.clients = [];
  }

  client(base = this.base, query = {}) {
    const Client = this.version === 'sockjs-client' ? OverSockJS : isOld(this.version) ? Legacy : Modern;
    const client = new Client(this.version, base, this.transport, { tag: this.tag, ...query });
    this.clients.push(client);
    return client;
  }

  /** A client with its main namespace, and /chat where it is wanted, connected over its final transport. */
  async enter({ base, chat = true } = {}) {
    const client = this.client(base);
    const entered = [heard(client.main, 'connect')];
    if (chat) {
      client.chat = client.socket('/chat');
      entered.push(heard(client.chat, 'connect'));
    }
    await Promise.all(entered);
    await client.settled();
    return client;
  }

  async departure(namespace) { return (await lab(this.base, 'departure', { tag: this.tag, namespace })).reason; }

  visits() { return lab(this.base, 'visits', { tag: this.tag }); }
}

const scenarios = {
  async connect(stage) {
    const client = await stage.enter();
    for (const [socket, name] of [[client.main, '/'], [client.chat, '/chat']]) {
      const [me] = await call(socket, 'who am i');
      same([me.namespace, me.id], [name, client.id(socket, name)]);
      stage.saw.transport = me.transport;
    }
  },

  async events(stage) {
    const client = await stage.enter();
    for (const socket of [client.main, client.chat]) {
      for (const args of [[...TEXTS], [NESTED], [], [null, false, 0]]) {
        const back = heard(socket, 'echoed');
        socket.emit('echo', ...args);
        same(await back, args);
      }
      const named = heard(socket, AWKWARD_EVENT);
      socket.emit(AWKWARD_EVENT, 1);
      same(await named, [1]);
    }
  },

  async messages(stage) {
    const client = await stage.enter();
    for (const socket of [client.main, client.chat]) {
      const got = [];
      socket.on('message', (data) => got.push(data));
      for (const text of TEXTS) socket.send(text);
      (client.isLegacy ? socket.json : socket).send(NESTED);
      await within(new Promise((resolve) => socket.send('the last', resolve)), 'waiting for the ack of a message');
      await call(socket, 'ack');
      same(got, [...TEXTS, NESTED, 'the last']);
    }
  },

  async acks(stage) {
    const client = await stage.enter();
    for (const socket of [client.main, client.chat]) {
      for (const args of [[...TEXTS], [NESTED], [], [null], [[1, 2]]]) same(await call(socket, 'ack', ...args), args);
      const numbers = Array.from({ length: 20 }, (_, number) => number);
      const answers = await Promise.all(numbers.map((number) => call(socket, 'ack', number)));
      same(answers, numbers.map((number) => [number]));
    }
  },

  async 'server acks'(stage) {
    const client = await stage.enter();
    for (const socket of [client.main, client.chat]) {
      socket.on('question', (text, answer) => (text === 'silence' ? answer() : answer(`${text}?`, { text: [text] })));
      for (const text of TEXTS) same(await call(socket, 'ask', text), [`${text}?`, { text: [text] }]);
      same(await call(socket, 'ask', 'silence'), []);
      const later = heard(socket, 'answered');
      socket.emit('ask with a callback', 'é');
      same(await later, ['é?', { text: ['é'] }]);
      const many = await Promise.all(TEXTS.map((text) => call(socket, 'ask', text)));
      same(many.map(([text]) => text), TEXTS.map((text) => `${text}?`));
    }
  },

  async binary(stage) {
    const client = await stage.enter();
    const args = [BYTES, { é: [{ bytes: BYTES.subarray(3), text: '€' }, Buffer.alloc(0)] }, 'text', Buffer.from('b4')];
    for (const socket of [client.main, client.chat]) {
      const back = heard(socket, 'echoed');
      socket.emit('echo', ...args);
      same(await back, args);
      same(await call(socket, 'ack', ...args), args);
      socket.on('question', (data, answer) => answer(data, { reversed: [Buffer.from(data.bytes).reverse()] }));
      same(await call(socket, 'ask', { bytes: BYTES }),
        [{ bytes: BYTES }, { reversed: [Buffer.from(BYTES).reverse()] }]);
      same(await call(socket, 'ack', 'text again'), ['text again']);
    }
  },

  async rooms(stage) {
    const [a, b, c] = await Promise.all([stage.enter(), stage.enter(), stage.enter()]);
    for (const name of ['main', 'chat']) {
      const got = [[], [], []];
      [a, b, c].forEach((client, index) => client[name].on('news', (text) => got[index].push(text)));
      const room = `${stage.tag} ${name}`;
      for (const client of [a, b, a]) await call(client[name], 'join', room);
      await call(a[name], 'tell', room, 'all');
      await call(a[name], 'tell the others', room, 'others');
      await call(b[name], 'leave', room);
      await call(b[name], 'tell', room, 'rest');
      // An answer comes after everything that was sent to the same client before.
      await Promise.all([a, b, c].map((client) => call(client[name], 'ack')));
      same(got, [['all', 'rest'], ['all', 'others'], []]);
    }
  },

  async 'turned away'(stage) {
    const client = stage.client(stage.base, { away: 'yes' });
    const [error] = await heard(client.main, client.isLegacy ? 'error' : 'connect_error');
    if (client.isLegacy) same(error, 'handshake unauthorized');
    same(await stage.visits(), {});
  },

  async refused(stage) {
    const client = await stage.enter();
    const guarded = client.socket('/guarded', { token: 'wrong' });
    let isIn = false;
    guarded.on('connect', () => { isIn = true; });
    same(await client.refusal(guarded), client.refused());
    same(await call(client.chat, 'ack', 'still here'), ['still here']);
    same([isIn, await stage.visits()], [false, { '/': 1, '/chat': 1 }]);
  },

  async 'unknown namespace'(stage) {
    const client = await stage.enter();
    same(await client.refusal(client.socket('/nowhere')), client.unknown());
    same(await call(client.chat, 'ack', 'still here'), ['still here']);
  },

  async credentials(stage) {
    const client = await stage.enter({ chat: false });
    const credentials = { token: 'sesame', name: 'é€ &+=😀' };
    const guarded = client.socket('/guarded', credentials);
    await heard(guarded, 'connect');
    const [me] = await call(guarded, 'who am i');
    const { token, name } = client.major >= 3 ? me.auth : me.query;
    same({ token, name }, credentials);
    const [main] = await call(client.main, 'who am i');
    same([main.query.tag, main.query.token, main.auth || {}], [stage.tag, undefined, {}]);
    same(me.query.tag, stage.tag);
  },

  async leave(stage) {
    const client = await stage.enter();
    const reason = gone(client.chat);
    client.chat.disconnect();
    same(await reason, client.left);
    stage.saw.reason = await stage.departure('/chat');
    same(await call(client.main, 'ack', 'still here'), ['still here']);
    if (client.isLegacy) return; // It has no way back in.
    const back = heard(client.chat, 'connect');
    client.chat.connect();
    await back;
    same(await call(client.chat, 'ack', 'here again'), ['here again']);
  },

  async 'leave all'(stage) {
    const client = await stage.enter();
    await client.idle();
    const reasons = [gone(client.main), gone(client.chat)];
    const over = client.over();
    if (!client.isLegacy) client.chat.disconnect();
    client.main.disconnect();
    const reason = client.isLegacy ? client.ended : client.left;
    same(await Promise.all(reasons), [reason, reason]);
    await over;
    stage.saw.reasons = [await stage.departure('/'), await stage.departure('/chat')];
    assert(!client.isTrying(), 'the client tries to come back');
  },

  async kicked(stage) {
    const client = await stage.enter();
    const reason = gone(client.chat);
    client.chat.emit('kick');
    same(await reason, client.kicked);
    stage.saw.reason = await stage.departure('/chat');
    same(await call(client.main, 'ack', 'still here'), ['still here']);
    same(await stage.visits(), { '/': 1, '/chat': 1 });
  },

  async 'kicked from all'(stage) {
    const client = await stage.enter();
    const reasons = [gone(client.main), gone(client.chat)];
    const over = client.over();
    client.chat.emit('kick from all');
    same(await Promise.all(reasons), [client.ended, client.ended]);
    await over;
    stage.saw.reasons = [await stage.departure('/'), await stage.departure('/chat')];
    assert(!client.isTrying(), 'the client tries to come back');
    same(await stage.visits(), { '/': 1, '/chat': 1 });
  },

  async restart(stage) {
    const { port } = await lab(stage.base, 'spawn');
    const client = await stage.enter({ base: `http://127.0.0.1:${port}` });
    const order = [];
    for (const event of ['disconnect', 'connecting', 'reconnect', 'connect']) {
      client.main.on(event, () => order.push(event));
    }
    const [before] = await call(client.main, 'who am i');
    const lost = gone(client.main);
    await lab(stage.base, 'stop', { port });
    await lost;
    // What is said meanwhile waits in the client.
    for (const number of [0, 1, 2]) client.main.emit('number', number);
    const back = [heard(client.main, 'connect'), heard(client.chat, 'connect')];
    await lab(stage.base, 'start', { port });
    await Promise.all(back);
    await client.settled();
    client.main.emit('number', 3);
    same(await call(client.main, 'numbers'), [[0, 1, 2, 3]]);
    const [after] = await call(client.main, 'who am i');
    assert.notStrictEqual(after.id, before.id);
    same(await call(client.chat, 'ack', TEXTS), [TEXTS]);
    if (client.isLegacy) same(order, ['disconnect', 'connecting', 'reconnect', 'connect']);
    else same(order.filter((event) => /connect$/.test(event) && event !== 'reconnect'), ['disconnect', 'connect']);
  },

  async big(stage) {
    const client = await stage.enter({ chat: false });
    const piece = 'é😀x';
    const text = piece.repeat(Math.ceil(BIG_BYTES / Buffer.byteLength(piece)));
    same(await call(client.main, 'ack', { text }), [{ text }]);
    if (client.isLegacy) return;
    const bytes = Buffer.alloc(BIG_BYTES, BYTES);
    same(await call(client.main, 'ack', bytes, { bytes }), [bytes, { bytes }]);
  },

  /** In order and without loss; where there is an upgrade, before it, in it, and after it. */
  async burst(stage) {
    const client = stage.client();
    const { main } = client;
    const got = { burst: [], numbered: [] };
    let sent = 0;
    const send = (count) => {
      for (let left = count; left > 0; left--) main.emit('number', sent++);
    };
    let isSettled = stage.transport !== 'upgrade';
    const over = within(new Promise((resolve) => {
      main.on('numbered', (number) => {
        got.numbered.push(number);
        if (!isSettled) send(1); // Something is always on its way.
        else if (got.numbered.length === sent) resolve();
      });
    }), 'waiting for the answer to the last number');
    main.on('burst', (number) => got.burst.push(number));
    if (isSettled) {
      send(BURST);
    } else {
      send(TRICKLE);
      client.manager.engine.once('upgrading', () => send(BURST));
      client.manager.engine.once('upgrade', () => {
        isSettled = true;
        stage.saw.early = got.numbered.length;
        send(BURST);
      });
    }
    main.emit('burst', BURST);
    await over;
    const count = (length) => Array.from({ length }, (_, number) => number);
    same(await call(main, 'numbers'), [count(sent)]);
    same(got, { burst: count(BURST), numbered: count(sent) });
    await client.settled();
  },
};

/* Of those that are played when asked for. */
const further = {
  /** A thousand each way, in order and without loss, on every connection that the transport makes meanwhile. */
  async numbers(stage) {
    const client = stage.client();
    const { main } = client;
    const got = [];
    let sent = 0;
    let isSettled = stage.transport !== 'upgrade';
    const send = () => {
      // Some are left for the time after the upgrade.
      for (let left = Math.min(BATCH, (isSettled ? NUMBERS : NUMBERS - BATCH) - sent); left > 0; left--) {
        main.emit('number', sent++);
      }
    };
    const over = within(new Promise((resolve) => {
      main.on('numbered', (number) => {
        got.push(number);
        if (got.length === NUMBERS) resolve();
        else if (sent - got.length <= BATCH / 2) send();
      });
    }), 'waiting for the answer to the last number');
    await heard(main, 'connect');
    if (!isSettled) {
      client.settled().then(() => {
        isSettled = true;
        stage.saw.early = got.length;
        send();
      });
    }
    send();
    send();
    await over;
    const all = Array.from({ length: NUMBERS }, (_, number) => number);
    same(got, all);
    same(await call(main, 'numbers'), [all]);
    if (client.settled) await client.settled();
    [stage.saw.where] = await call(main, 'where');
  },
};

const isOld = (version) => version.startsWith('0.');

function transports(version) {
  if (version === 'sockjs-client') return SOCKJS;
  return isOld(version) ? ['websocket', 'xhr-polling'] : ['polling', 'websocket', 'upgrade'];
}

async function play(version, base, transport, scenario) {
  const stage = new Stage(version, base, transport, scenario);
  let error = null;
  try {
    await (scenarios[scenario] || further[scenario])(stage);
  } catch (problem) {
    error = String((problem && problem.stack) || problem);
    for (const { closed } of stage.clients) if (closed) error += `\nclosed: ${closed}`;
  }
  for (const client of stage.clients) {
    try {
      client.close();
    } catch (problem) {
      error = error || `while closing: ${problem.stack}`;
    }
  }
  console.log(JSON.stringify({ transport, scenario, error, saw: stage.saw }));
}

async function playAll(version, base, only) {
  const names = only ? [only] : Object.keys(scenarios).filter((name) => !(isOld(version) && name === 'binary'));
  const cells = transports(version).flatMap((transport) => names.map((name) => [transport, name]));
  await Promise.all(cells.map(([transport, name]) => play(version, base, transport, name)));
}

/** sockjs-client speaking Socket.IO packets by hand: what polysock.js does, with somebody else's transports. */
class OverSockJS {
  constructor(version, base, transport) {
    const SockJS = require('sockjs-client');
    this.wire = new SockJS(`${base}/polysock`, null, { transports: [transport], timeout: WAIT_MS });
    this.listeners = {};
    this.main = this;
    this.acks = 0;
    this.wire.onopen = () => this.wire.send('0');
    this.wire.onclose = ({ code, reason }) => { this.closed = `${code} ${reason}`; };
    this.wire.onmessage = ({ data }) => {
      const [, type, id, json] = /^(\d)(\d*)(.*)$/s.exec(data);
      const values = json ? JSON.parse(json) : null;
      if (type === '0') this.tell('connect', []);
      else if (type === '2') this.tell(values[0], values.slice(1));
      else if (type === '3') this.tell(`ack ${id}`, values);
    };
  }

  tell(event, args) { (this.listeners[event] || []).forEach((listener) => listener(...args)); }

  on(event, listener) { (this.listeners[event] = this.listeners[event] || []).push(listener); }

  once(event, listener) { this.on(event, listener); }

  emit(event, ...args) {
    const done = typeof args[args.length - 1] === 'function' ? args.pop() : null;
    const id = done ? this.acks++ : '';
    if (id !== '') this.on(`ack ${id}`, done);
    this.wire.send(`2${id}${JSON.stringify([event, ...args])}`);
  }

  close() { this.wire.close(); }
}

async function meet(base, room, senders) {
  const members = {};
  for (const version of Object.keys(VERSIONS)) {
    for (const transport of transports(version)) {
      members[`${version} ${transport}`] = new Stage(version, base, transport, 'room').client();
    }
  }
  for (const transport of SOCKJS) members[`sockjs-client ${transport}`] = new OverSockJS(null, base, transport);
  const got = {};
  const ends = [];
  await Promise.all(Object.entries(members).map(async ([name, member]) => {
    got[name] = [];
    member.main.on('news', (...args) => got[name].push(args));
    let left = senders;
    ends.push(new Promise((resolve) => {
      const end = () => { if (left-- === 0) resolve(); };
      member.main.on('end', end);
      end();
    }));
    await heard(member.main, 'connect');
    if (member.settled) await member.settled();
    await call(member.main, 'join', room);
  }));
  console.log('ready');
  await new Promise((resolve) => process.stdin.once('data', resolve));
  await within(Promise.all(ends), 'waiting for the end of the news');
  await Promise.all(Object.values(members).map((member) => call(member.main, 'ack')));
  console.log(JSON.stringify(got));
  for (const member of Object.values(members)) member.close();
}

/** Members that come back by themselves: those of Socket.IO, several of each kind. */
async function stay(base, room) {
  const got = {};
  const clients = [];
  const say = (facts) => console.log(JSON.stringify(facts));
  for (const version of ['0.9.17', '2.5.0', '4.8.4']) {
    for (const transport of transports(version)) {
      for (let copy = 0; copy < STAYING; copy++) {
        const who = `${version} ${transport} ${copy}`;
        const client = new Stage(version, base, transport, 'stay').client();
        const { main } = client;
        const stays = got[who] = [];
        const enter = () => {
          const news = [];
          stays.push(news);
          main.emit('join', room, () => main.emit('where', (where) => {
            // Cut off meanwhile, it does not say this any more.
            if (stays[stays.length - 1] === news) say({ who, where, stay: stays.length });
          }));
        };
        clients.push(client);
        main.on('connect', enter);
        main.on('news', (...args) => stays[stays.length - 1].push(args));
        main.on('disconnect', (reason) => say({ who, reason }));
      }
    }
  }
  await new Promise((resolve) => process.stdin.once('data', resolve));
  console.log(JSON.stringify(got));
  for (const client of clients) client.close();
}

const [base, what, more, senders = '0'] = process.argv.slice(2);
const modes = { room: () => meet(base, more, Number(senders)), stay: () => stay(base, more) };
(modes[what] || (() => playAll(what, base, more)))().then(
  // Old clients leave timers behind that would keep the process.
  () => process.stdout.write('', () => process.exit(0)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
