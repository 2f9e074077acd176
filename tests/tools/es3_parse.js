// Parses scripts as ECMAScript 3 for es3_check.py: a JSON list of {name, line, text, body} comes on standard input, a
// JSON list of "name:line: what is wrong" goes to standard output.  The path of acorn is the first argument.
'use strict';
const acorn = require(process.argv[2]);

// allowReserved "never" refuses o.default and {default: 1}, as Internet Explorer before 9 does.
function faults(script) {
  const found = [];
  const say = (line, what) => found.push(`${script.name}:${script.line + line - 1}: ${what}`);
  try {
    acorn.parse(script.text, {
      ecmaVersion: 3, allowReserved: 'never', locations: true, allowReturnOutsideFunction: script.body,
      onTrailingComma: (at, where) => say(where.line, 'comma after the last array element: old JScript counts one more'),
    });
  } catch (error) {
    if (!error.loc) { throw error; }
    say(error.loc.line, error.message.replace(/ \(\d+:\d+\)$/, ''));
  }
  return found;
}

const scripts = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify([].concat(...scripts.map(faults))));
