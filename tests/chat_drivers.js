/* What test_demo_chat.py does in the demo's pages, as a visitor would: through their fields and buttons. ECMAScript 3.
   Each driver leaves what it saw in window.__result, as a JSON object of texts. */

function byId(id, where) { return (where || window).document.getElementById(id); }

function words(node) { return node ? node.textContent !== undefined ? node.textContent : node.innerText : ''; }

function shown(id, where) { return words(byId(id, where)); }

/* A frame that is still loading throws at whoever looks into it. */
function until(test, then) {
  var is = false;
  try { is = test(); } catch (e) { is = false; }
  if (is) { then(); } else { setTimeout(function () { until(test, then); }, 30); }
}

function sees(text, where) { return shown('log', where).indexOf(text) >= 0; }

function say(text, where) {
  byId('text', where).value = text;
  byId('say', where).click();
}

function quote(text) {
  return '"' + text.replace(/["\\]/g, '\\$&').replace(/[\u0000-\u001f\u0080-\uffff]/g, function (unit) {
    return '\\u' + ('0000' + unit.charCodeAt(0).toString(16)).slice(-4);
  }) + '"';
}

function result(facts) {
  var parts = [], name;
  for (name in facts) { parts.push(quote(name) + ':' + quote(String(facts[name]))); }
  window.__result = '{' + parts.join(',') + '}';
}

function all(frames, test) {
  return function () {
    var i;
    for (i = 0; i < frames.length; i += 1) { if (!test(frames[i])) { return false; } }
    return true;
  };
}

/* Frames with the pages of ?room=...&members=[[nick, page, transport or "", how the list shall show it], ...]. */
function members() {
  var query = /room=([^&]*)&members=(.*)/.exec(location.search), list = JSON.parse(decodeURIComponent(query[2])), i, frame;
  for (i = 0; i < list.length; i += 1) {
    frame = document.createElement('iframe');
    frame.src = '/' + list[i][1] + '.html?room=' + query[1] + '&nick=' + encodeURIComponent(list[i][0]) +
      (list[i][2] ? '&transport=' + list[i][2] : '');
    document.body.appendChild(frame);
    list[i] = { nick: list[i][0], way: list[i][3], where: frame.contentWindow };
  }
  return list;
}

/* Whether each of them passes a test with each of them. */
function eachSees(list, test) {
  return function () {
    var i, k;
    for (i = 0; i < list.length; i += 1) {
      for (k = 0; k < list.length; k += 1) {
        if (!test(list[i], list[k])) { return false; }
      }
    }
    return true;
  };
}

function listed(one, other) {
  return shown('people', one.where).indexOf(other.nick + (one === other ? ' (you) ' : ' ') + other.way) >= 0;
}

function textsOf(list, id) {
  var texts = {}, i;
  for (i = 0; i < list.length; i += 1) { texts[list[i].nick] = shown(id, list[i].where); }
  return JSON.stringify(texts);
}

/* What is said there next is for this one alone. */
function address(nick, where) {
  var buttons = byId('people', where).getElementsByTagName('button'), i;
  for (i = 0; i < buttons.length; i += 1) { if (words(buttons[i]) === nick) { buttons[i].click(); return; } }
}

function peopleIn(where) { return byId('people', where).getElementsByTagName('li').length; }

/* Say it, see it answered; who was there before, as the other one may leave as soon as he has what he waits for. */
function untilAnswered(text) {
  var people = shown('people');
  say(text);
  until(function () { return sees('answer <b>'); }, function () {
    result({ people: people, state: shown('state'), log: shown('log') });
  });
}

var drivers = {
  /* Answers whoever greets. */
  answer: function () {
    until(function () { return sees('hello from '); }, function () {
      untilAnswered('answer <b>&amp;</b> "\u00e9\u6f22\ud83d\ude00"');
    });
  },

  /* Greets the second one who comes. */
  greet: function () {
    until(function () { return peopleIn() === 2; }, function () {
      untilAnswered('hello from the other one');
    });
  },

  /* Three chats in frames, each over another transport; Bob means harm, writes to Ann alone, and leaves. Their surname is
     the query. */
  three: function () {
    var ways = ['jsonp-polling', 'websocket', 'xhr-streaming'], names = ['Ann', '<i>Bob</i>', 'Eve'], frames = [], frame, i, ann, bob, eve;
    for (i = 0; i < names.length; i += 1) { names[i] += ' ' + location.search.slice(1); }
    for (i = 0; i < ways.length; i += 1) {
      frame = document.createElement('iframe');
      frame.src = '/chat.html?room=' + encodeURIComponent(location.search) + '&nick=' + encodeURIComponent(names[i]) + '&transport=' + ways[i];
      document.body.appendChild(frame);
      frames.push(frame.contentWindow);
    }
    ann = frames[0];
    bob = frames[1];
    eve = frames[2];
    until(all(frames, function (one) { return peopleIn(one) === 3; }), function () {
      var facts = { people: shown('people', ann), states: shown('state', ann) + shown('state', bob) + shown('state', eve) };
      say('from Ann', ann);
      say('<img src=x onerror="window.top.hacked=1">', bob);
      say('from Eve', eve);
      until(all(frames, function (one) { return sees('from Ann', one) && sees('<img src=x', one) && sees('from Eve', one); }), function () {
        address(names[0], bob);
        say('between us', bob);
        until(all([ann, bob], function (one) { return sees('between us', one); }), function () {
          byId('leave', bob).click();
          until(all([ann, eve], function (one) { return sees(names[1] + ' has left.', one); }), function () {
            facts.after = shown('people', ann);
            facts.ann = shown('log', ann);
            facts.eve = shown('log', eve);
            facts.hacked = window.hacked;
            facts.elements = ann.document.querySelectorAll('#log img, #log i, #people i').length;
            result(facts);
          });
        });
      });
    });
  },

  /* Bob leaves while Ann writes to him alone: what she writes is for nobody else, also when she loses the connection
     herself and comes back. */
  whispering: function () {
    var list = members(), ann = list[0].where, bob = list[1].where, facts = {};
    function sayAgain(then) {
      say('between us', ann);
      until(function () { return shown('say-error', ann); }, function () {
        var trouble = shown('say-error', ann);
        until(function () { return byId('text', ann).value === 'between us'; }, function () { then(trouble); });
      });
    }
    until(eachSees(list, listed), function () {
      address(list[1].nick, ann);
      byId('leave', bob).click();
      until(function () { return sees(list[1].nick + ' has left.', ann); }, function () {
        sayAgain(function (trouble) {
          facts.trouble = trouble;
          facts.button = byId('say', ann).value;
          byId('way', ann).value = 'xhr-polling';
          byId('way-set', ann).click();
          until(function () { return sees('You are back in', ann); }, function () {
            facts.to = byId('to', ann).options[byId('to', ann).selectedIndex].text;
            sayAgain(function (trouble) {
              facts.again = trouble;
              byId('to', ann).selectedIndex = 0;
              say('to all', ann);
              until(function () { return sees('to all', list[2].where); }, function () {
                facts.eve = shown('log', list[2].where);
                result(facts);
              });
            });
          });
        });
      });
    });
  },

  /* All talk, each writes to the next one alone, and then all but the first leave and want the name of the first. */
  generations: function () {
    var list = members(), others = list.slice(1), first = list[0], facts = {};
    function each(work) {
      for (var i = 0; i < list.length; i += 1) { work(list[i], list[(i + 1) % list.length]); }
    }
    until(eachSees(list, listed), function () {
      each(function (one) { say('<b>' + one.nick + '</b> \u00e9\u6f22\ud83d\ude00 to all', one.where); });
      until(eachSees(list, function (one, other) { return sees(other.nick + '</b>', one.where); }), function () {
        each(function (one, next) {
          address(next.nick, one.where);
          say('between us', one.where);
        });
        until(eachSees(list, function (one) { return shown('log', one.where).split('between us').length === 3; }), function () {
          facts.logs = textsOf(list, 'log');
          facts.states = textsOf(list, 'state');
          each(function (one) {
            if (one === first) { return; }
            byId('leave', one.where).click();
            byId('nick', one.where).value = first.nick.toUpperCase();
            byId('enter', one.where).click();
          });
          until(eachSees(others, function (one) { return shown('enter-error', one.where) && peopleIn(first.where) === 1; }), function () {
            facts.errors = textsOf(others, 'enter-error');
            facts.first = shown('log', first.where);
            result(facts);
          });
        });
      });
    });
  },

  /* All come back after the server has gone, when the first one told the test that they are there. */
  generationsBack: function () {
    var list = members();
    until(eachSees(list, listed), function () {
      say('kill me', list[0].where);
      until(eachSees(list, function (one) { return sees('You are back in', one.where); }), function () {
        until(eachSees(list, listed), function () {
          say('after', list[0].where);
          until(eachSees(list, function (one) { return sees('after', one.where); }), function () {
            result({ logs: textsOf(list, 'log'), people: textsOf(list, 'people') });
          });
        });
      });
    });
  },

  /* A name that is taken, another one, another room, another transport; and a message while nobody looks. */
  visitor: function () {
    var frame = document.createElement('iframe'), facts = {}, other;
    frame.src = '/chat.html?nick=Taken&' + location.search.slice(1);
    document.body.appendChild(frame);
    other = frame.contentWindow;
    until(function () { return peopleIn(other) === 1 && byId('room').value && shown('state-badge') === 'connected'; }, function () {
      byId('nick').value = 'taken';
      byId('enter').click();
      until(function () { return shown('enter-error'); }, function () {
        facts.error = shown('enter-error');
        byId('nick').value = 'Free';
        byId('enter').click();
        until(function () { return peopleIn() === 2; }, function () {
          byId('way').value = 'jsonp-polling';
          byId('way-set').click();
          until(function () { return /Free [(]you[)] .*jsonp-polling/.test(shown('people')); }, function () {
            facts.people = shown('people', other);
            window.onblur();
            say('anybody there?', other);
            until(function () { return sees('anybody there?'); }, function () {
              facts.away = document.title;
              window.onfocus();
              facts.back = document.title;
              byId('new-room').value = 'quiet';
              byId('room-form').getElementsByTagName('input')[1].click();
              until(function () { return shown('room-name') === 'quiet'; }, function () {
                until(function () { return sees('Free has left.', other); }, function () {
                  facts.rooms = shown('rooms');
                  facts.quiet = shown('people');
                  result(facts);
                });
              });
            });
          });
        });
      });
    });
  },

  /* The two worlds, each with a message for the other. */
  worlds: function () {
    var before = byId('old-frame').contentWindow, today = byId('new-frame').contentWindow;
    function verdict(pattern, then) { until(function () { return pattern.test(shown('verdict-line')); }, then); }
    verdict(/Both are in/, function () {
      byId('old-send').click();
      verdict(/From the old world to the new in/, function () {
        byId('new-send').click();
        verdict(/From the new world to the old in/, function () {
          result({ old: shown('wire', before), today: shown('wire', today), how: shown('new-how'),
            states: shown('state', before) + shown('state', today) });
        });
      });
    });
  },

  /* Comes back to the room after the server has gone; what the page said of the connection meanwhile. */
  back: function () {
    var states = [];
    until(function () { return sees('You are in lobby as Ann'); }, function () {
      say('before');
      until(function () { return sees('Ann before'); }, function () {
        say('kill me');
        until(function () {
          var text = shown('state-badge') + ': ' + shown('state');
          if (states[states.length - 1] !== text) { states.push(text); }
          return sees('You are back in lobby as Ann');
        }, function () {
          say('after');
          until(function () { return sees('Ann after'); }, function () {
            result({ states: states.join('\n'), log: shown('log'), people: shown('people') });
          });
        });
      });
    });
  }
};
