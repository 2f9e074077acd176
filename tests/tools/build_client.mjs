/* Makes static/polysock.js, polysock.min.js and polysock.mjs out of the parts in static/src, and polysock.d.mts out of
   polysock.d.ts.

     node tests/tools/build_client.mjs            writes them
     node tests/tools/build_client.mjs --check    says which are not current, and fails then

   The parts share one function's scope; their order is that of the list below. */

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { minify } from '../npm/node_modules/terser/main.js';

const STATIC = fileURLToPath(new URL('../../static/', import.meta.url));
const PARTS = [
  'base', 'errors', 'events', 'json', 'binary', 'url', 'http', 'transports/sender', 'transports/websocket', 'transports/streaming',
  'transports/polling', 'transports/eventsource', 'transports/callbacks', 'transports/htmlfile', 'transports/jsonp',
  'transports/iframe', 'memory', 'session', 'chooser', 'backoff', 'lifetime', 'polysock_object', 'packets', 'manager', 'socket',
  'io', 'polyfill', 'exports',
];

const read = (name) => readFileSync(STATIC + name, 'utf8');
const indent = (text) => text.replace(/^(?=.)/gm, '  ');

const body = PARTS.map((name) => read(`src/${name}.js`).trim()).join('\n\n');
const version = /VERSION = '([^']+)'/.exec(body)[1];
const banner = `/*! polysock ${version}, MIT license. Made from static/src by make client: edit there. */\n`;

const readable = `${banner}(function (root, factory) {
  var made;
  if (typeof define === 'function' && define.amd) {
    define([], factory);
  } else if (typeof module === 'object' && module.exports) {
    module.exports = factory();
    module.exports['default'] = module.exports;
  } else {
    made = factory();
    root.polysock = made;
    root.PolySock = made.PolySock;
    root.io = made.io;
  }
}(typeof window !== 'undefined' ? window : this, function () {
${indent(body)}

  return polysock;
}));
`;

const modern = `${banner}${body}

export { PolySock, install, io };
export default polysock;
`;

/* ie8 also keeps names of IE 6 and 7 apart; properties stay as written, since ES3 has more reserved words. */
const { code } = await minify(readable, {
  ecma: 5,
  ie8: true,
  safari10: true,
  compress: { passes: 2, properties: false, typeofs: false },
  mangle: true,
  format: { ascii_only: true, comments: /^!/, keep_quoted_props: true },
});

/* TypeScript looks for the types of an .mjs file under its own name. */
const built = {
  'polysock.js': readable, 'polysock.min.js': `${code}\n`, 'polysock.mjs': modern, 'polysock.d.mts': read('polysock.d.ts'),
};
const stale = [];
for (const [name, text] of Object.entries(built)) {
  if (process.argv.includes('--check')) {
    let now = '';
    try { now = read(name); } catch { /* not there */ }
    if (now !== text) { stale.push(name); }
  } else {
    writeFileSync(STATIC + name, text);
  }
}
if (stale.length) {
  console.error(`not current: ${stale.join(', ')}; run: make client`);
  process.exit(1);
}
