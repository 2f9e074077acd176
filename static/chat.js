/* The chat: rooms, names, private messages, over the namespace /chat. Knows of the client only what chat-clients.js offers.
   What it shows of others it shows as text. ECMAScript 3 throughout, for the same browsers as polysock.js.

   The address may say: nick and room (comes in at once), transport (one name, or several with commas, in the order to
   try), compact=1 (for a frame of another page), look=old, wire=1 (see wiretap.js). */
(function () {
  var ANSWER_MS = 15000, LOG_LINES = 300, WIRE_LINES = 80, WIRE_CHARS = 160, END_PX = 40;
  var LOBBY = 'lobby', KEY_CHARS = 24, ADJECTIVES = ['Quiet', 'Sunny', 'Brave', 'Swift', 'Witty', 'Calm'];
  var ANIMALS = ['Otter', 'Heron', 'Badger', 'Lynx', 'Wren', 'Newt'];
  /* What the server sees, and what the clients call it. */
  var NAMES = { xhr: 'xhr-polling', xhr_streaming: 'xhr-streaming', jsonp: 'jsonp-polling', rawwebsocket: 'websocket' };
  var MEMORY = 'polysock-chat:';

  var client = window.chatClient, line = null, hasMoved = false, me = null, people = [], lastNumber = 0, transports, wish = null, key;
  var title = document.title;
  var unread = 0, away = false, atEnd = true, wireLines = 0, requests = 0, startedAt = new Date().getTime();
  var chat = window.polychat = { onevent: null };

  function byId(id) {
    return document.getElementById(id);
  }

  function empty(node) {
    while (node.firstChild) { node.removeChild(node.firstChild); }
  }

  function setText(node, text) {
    empty(node);
    node.appendChild(document.createTextNode(text));
  }

  function add(parent, tag, className, text) {
    var node = document.createElement(tag);
    if (className) { node.className = className; }
    if (text !== undefined) { node.appendChild(document.createTextNode(text)); }
    parent.appendChild(node);
    return node;
  }

  function show(id, visible) {
    byId(id).style.display = visible ? 'block' : 'none';
  }

  function parameter(name) {
    var hit = new RegExp('[?&]' + name + '=([^&]*)').exec(location.search);
    try { return hit ? decodeURIComponent(hit[1].replace(/\+/g, ' ')) : ''; } catch (e) { return ''; }
  }

  function pick(list) {
    return list[Math.floor(Math.random() * list.length)];
  }

  function randomKey() {
    var text = '';
    while (text.length < KEY_CHARS) { text += Math.random().toString(36).slice(2); }
    return text.slice(0, KEY_CHARS);
  }

  function transportName(name) {
    return NAMES.hasOwnProperty(name) ? NAMES[name] : name;
  }

  function way(one) {
    return (one.client ? one.client + ' \u00b7 ' : '') + transportName(one.transport);
  }

  function isArray(value) {
    return Object.prototype.toString.call(value) === '[object Array]';
  }

  /* ---- The state, in words ----------------------------------------------------------------------- */

  function setState(kind, badge, text) {
    byId('state-badge').className = 'badge ' + kind;
    setText(byId('state-badge'), badge);
    setText(byId('state'), text);
    byId('again').style.display = kind === 'failed' ? 'inline' : 'none';
  }

  function reason(error) {
    return error && error.message ? error.message + '.' : '';
  }

  /* ---- The log ------------------------------------------------------------------------------------ */

  function clock(at) {
    var date = new Date(at), minutes = date.getMinutes();
    return date.getHours() + ':' + (minutes < 10 ? '0' : '') + minutes;
  }

  function nearEnd() {
    var log = byId('log');
    return log.scrollHeight - log.scrollTop - log.clientHeight < END_PX;
  }

  function toEnd() {
    byId('log').scrollTop = byId('log').scrollHeight;
    show('new-below', false);
  }

  function logLine(className) {
    var log = byId('log');
    atEnd = nearEnd();
    while (log.childNodes.length >= LOG_LINES) { log.removeChild(log.firstChild); }
    return add(log, 'div', 'line ' + className);
  }

  function logLineDone(isNews) {
    if (atEnd) { toEnd(); } else if (isNews) { show('new-below', true); }
  }

  function notice(text, className) {
    add(logLine(className || 'notice-line'), 'span', 'text', text);
    logLineDone(false);
  }

  function showMessage(said, isPrivate, isOld) {
    var mine = me !== null && said.from === me.id, node = logLine((mine ? 'mine' : 'theirs') + (isPrivate ? ' private' : ''));
    add(node, 'span', 'when', clock(said.at));
    node.appendChild(document.createTextNode(' '));
    add(node, 'span', 'who', said.nick + (isPrivate ? mine ? ' to ' + said.toNick + ', privately' : ', privately to you' : ''));
    node.appendChild(document.createTextNode(' '));
    add(node, 'span', 'text', said.text).setAttribute('dir', 'auto');
    logLineDone(!mine);
    if (!mine && !isOld) { countUnread(); }
  }

  /* ---- Unread: in the title, while nobody looks ------------------------------------------------------ */

  function countUnread() {
    if (!away && !document.hidden) { return; }
    unread += 1;
    document.title = '(' + unread + ') ' + title;
  }

  function looked() {
    away = false;
    unread = 0;
    document.title = title;
  }

  /* ---- Who is here, and which rooms there are -------------------------------------------------------- */

  function showPeople() {
    var list = byId('people'), to = byId('to'), chosen = to.value, label = chosen && to.options[to.selectedIndex].text;
    var i, item, option, button;
    empty(list);
    while (to.options.length > 1) { to.removeChild(to.lastChild); }
    for (i = 0; i < people.length; i += 1) {
      item = add(list, 'li');
      if (me && people[i].id === me.id) {
        add(item, 'span', 'who', people[i].nick + ' (you)');
      } else {
        button = add(item, 'button', 'who', people[i].nick);
        button.title = 'Write privately to ' + people[i].nick;
        button.onclick = addresser(people[i].id);
        option = add(to, 'option', '', people[i].nick + ', privately');
        option.value = people[i].id;
        if (people[i].id === chosen) { to.selectedIndex = to.options.length - 1; }
      }
      item.appendChild(document.createTextNode(' '));
      add(item, 'span', 'badge', way(people[i]));
    }
    /* What is written to one who has left must not become a message to all. */
    if (chosen && to.value !== chosen) {
      option = add(to, 'option', '', label.replace(/, (?:privately|who has left)$/, ', who has left'));
      option.value = chosen;
      to.selectedIndex = to.options.length - 1;
    }
    toChanged();
  }

  function addresser(id) {
    return function () {
      byId('to').value = id;
      toChanged();
      byId('text').focus();
    };
  }

  function toChanged() {
    byId('say-form').className = byId('to').value ? 'private' : '';
    byId('say').value = byId('to').value ? 'Whisper' : 'Send';
  }

  function showRooms(rooms) {
    var list = byId('rooms'), i, item, name, button;
    empty(list);
    for (i = 0; isArray(rooms) && i < rooms.length; i += 1) {
      name = rooms[i][0];
      item = add(list, 'li');
      if (me && name === me.room) {
        add(item, 'strong', '', name);
      } else {
        button = add(item, 'button', '', name);
        button.title = 'Go to ' + name;
        button.onclick = visitor(name);
      }
      item.appendChild(document.createTextNode(' '));
      add(item, 'span', 'count', String(rooms[i][1]));
    }
  }

  function visitor(room) {
    return function () { enter({ nick: me ? me.nick : byId('nick').value, room: room }); };
  }

  /* Whoever is in a room changes the client and stays there, under the same name: the key is this tab's. */
  function showClients() {
    var links = byId('clients').getElementsByTagName('a'), i, page;
    for (i = 0; i < links.length; i += 1) {
      page = links[i].getAttribute('href').split('?')[0];
      if (page.indexOf(client.page) >= 0) {
        links[i].className = 'here';
        links[i].setAttribute('aria-current', 'page');
      }
      links[i].href = page + (me ? '?room=' + encodeURIComponent(me.room) + '&nick=' + encodeURIComponent(me.nick) : '');
    }
  }

  function without(id) {
    var kept = [], i;
    for (i = 0; i < people.length; i += 1) {
      if (people[i].id !== id) { kept.push(people[i]); }
    }
    return kept;
  }

  /* ---- Coming in, talking, leaving -------------------------------------------------------------------- */

  /* done(error, answer); the answer is null where it is none. */
  function ask(args, done) {
    var asked = line;
    line.ask(args, ANSWER_MS, function (error, answer) {
      if (done && asked === line) { done(error, answer && typeof answer === 'object' ? answer : null); }
    });
  }

  function remember() {
    /* The one thing that outlives a reload in every browser, in this tab only. */
    try { window.name = MEMORY + key + ':' + encodeURIComponent(wish ? wish.nick : byId('nick').value); } catch (e) { /* then not */ }
  }

  function enter(next) {
    setText(byId('enter-error'), '');
    if (!line.connected()) {
      wish = next;                      /* the connect event will do it */
      return;
    }
    ask(['enter', { nick: next.nick, room: next.room, key: key, client: client.name }], function (error, answer) {
      if (error) {
        if (line.connected()) { refused(reason(error)); }
        return;
      }
      if (!answer || answer.error || !isArray(answer.people)) { refused(answer && answer.error || 'The answer makes no sense.'); return; }
      wish = { nick: answer.nick, room: answer.room };
      entered(answer);
    });
  }

  function refused(text) {
    if (!me) {
      wish = null;
      show('door', true);
      show('talk', false);
    }
    setText(byId(me ? 'say-error' : 'enter-error'), text);
  }

  function entered(answer) {
    var isNew = !me || me.room !== answer.room, wasOut = byId('talk').style.display === 'none', i, fresh = [];
    me = answer;
    people = answer.people;
    show('door', false);
    show('talk', true);
    setText(byId('room-name'), me.room);
    setText(byId('say-error'), '');
    title = me.room + ' \u2013 polysock chat';
    document.title = title;
    byId('new-room').value = '';
    if (isNew) {
      empty(byId('log'));
      lastNumber = 0;
      byId('to').selectedIndex = 0;
    }
    showPeople();
    showRooms(answer.rooms);
    for (i = 0; i < answer.history.length; i += 1) {
      if (answer.history[i].n > lastNumber) { fresh.push(answer.history[i]); }
    }
    for (i = 0; i < fresh.length; i += 1) { heard(fresh[i], true); }
    notice((isNew ? 'You are in ' : 'You are back in ') + me.room + ' as ' + me.nick + ', over ' + transportName(me.transport) + '.');
    if (hasMoved) { ask(['moved']); }
    remember();
    showClients();
    if (wasOut && !parameter('compact')) { byId('text').focus(); }
    tellFrame('entered', me);
  }

  function heard(said, isOld) {
    lastNumber = Math.max(lastNumber, said.n);
    showMessage(said, false, isOld);
    if (!isOld) { tellFrame('heard', said); }
  }

  function say(text) {
    var to = byId('to').value;
    setText(byId('say-error'), '');
    if (!text.replace(/\s+/g, '')) { return; }
    ask(to ? ['whisper', to, text] : ['say', text], function (error, answer) {
      var trouble = error ? reason(error) : answer ? answer.error : 'No answer.';
      if (!trouble) { return; }
      setText(byId('say-error'), 'Not sent: ' + trouble);
      if (!byId('text').value) { byId('text').value = text; }
    });
  }

  function leave() {
    if (line.connected()) { ask(['leave']); }
    wish = me = null;
    people = [];
    showClients();
    document.title = title = 'polysock: chat';
    show('talk', false);
    show('door', true);
    byId('nick').focus();
  }

  /* ---- The connection --------------------------------------------------------------------------------- */

  function connectedOver() {
    setState('works', 'connected', 'Connected over ' + line.transport() + '.');
  }

  var handlers = {
    connecting: function (name) {
      setState('running', 'connecting', 'Connecting' + (name ? ', first over ' + name : '') + '\u2026');
    },
    connect: function () {
      hasMoved = false;
      connectedOver();
      if (wish) { enter(wish); }
    },
    connect_failed: function (error) { setState('failed', 'disconnected', reason(error)); },
    disconnect: function (why, error) {
      setState('failed', 'disconnected', why === 'io server disconnect' ?
        'The server ended this connection: perhaps you have come in from another page.' :
        'The connection was lost (' + why + '). ' + reason(error));
      if (me) { notice('The connection was lost.'); }
      people = [];
      showPeople();
    },
    reconnecting: function (delay, attempt, error) {
      setState('unavailable', 'reconnecting', 'Try ' + attempt +
        (delay ? ' in ' + Math.max(1, Math.round(delay / 1000)) + ' s. ' : ' soon. ') + reason(error));
    },
    error: function (error) { setText(byId('say-error'), reason(error)); },
    said: function (said) { heard(said, false); },
    whispered: function (said) { showMessage(said, true, false); },
    rooms: showRooms,
    joined: function (one) {
      people = without(one.id).concat([one]);
      showPeople();
      notice(one.nick + ' came in ' + (one.client ? 'with ' + one.client + ', ' : '') + 'over ' + transportName(one.transport) + '.');
    },
    upgraded: function () {
      hasMoved = true;
      connectedOver();
      if (me) { ask(['moved']); }
    },
    moved: function (one) {
      var i;
      for (i = 0; i < people.length; i += 1) {
        if (people[i].id === one.id) { people[i] = one; }
      }
      showPeople();
    },
    left: function (one) {
      people = without(one.id);
      showPeople();
      notice(one.nick + ' has left.');
    }
  };

  function connect() {
    if (line) { line.close(); }
    handlers.connecting();
    line = client.connect(transports, handlers);
  }

  function choose(names) {
    var known = ',' + client.transports().join(',') + ',', list = names.split(','), i;
    transports = undefined;
    for (i = 0; names && i < list.length; i += 1) {
      if (known.indexOf(',' + list[i] + ',') < 0) {
        setText(byId('say-error'), 'There is no transport called ' + list[i] + '.');
        setText(byId('enter-error'), 'There is no transport called ' + list[i] + '.');
        return;
      }
    }
    if (names) { transports = list; }
  }

  /* ---- For the page around a compact chat ------------------------------------------------------------- */

  chat.say = say;
  chat.me = function () { return me; };
  chat.transport = function () { return line && line.transport(); };

  function tellFrame(what, value) {
    if (chat.onevent) { chat.onevent(what, value); }
  }

  function traffic(direction, text, isRequest) {
    var wire = byId('wire'), node;
    requests += isRequest ? 1 : 0;
    wireLines += 1;
    setText(byId('wire-count'), requests === 1 ? '1 request' : requests + ' requests');
    while (wire.childNodes.length >= WIRE_LINES) { wire.removeChild(wire.firstChild); }
    node = add(wire, 'div', direction);
    add(node, 'span', 'when', ((new Date().getTime() - startedAt) / 1000).toFixed(1) + ' s');
    add(node, 'span', 'arrow', direction === 'out' ? ' \u2192 ' : direction === 'in' ? ' \u2190 ' : ' \u00b7 ');
    add(node, 'span', 'text', text.length > WIRE_CHARS ? text.slice(0, WIRE_CHARS) + '\u2026' : text);
    wire.scrollTop = wire.scrollHeight;
    tellFrame('traffic', requests);
  }

  /* ---- Start -------------------------------------------------------------------------------------------- */

  function onSubmit(id, work) {
    byId(id).onsubmit = function () {
      work();
      return false;
    };
  }

  function start() {
    var kept = window.name.indexOf(MEMORY) === 0 ? window.name.slice(MEMORY.length).split(':') : [], i, names, option;
    key = kept[0] && kept[0].length === KEY_CHARS ? kept[0] : randomKey();
    if (parameter('compact')) { document.body.className += ' compact'; }
    if (parameter('look') === 'old') { document.body.className += ' old'; }
    showClients();
    setText(byId('missing-client'), client.name);
    setText(byId('missing-script'), client.script);
    show('missing', client.missing());
    if (client.missing()) { return; }
    show('chat', true);
    show('wire-box', Boolean(window.wiretap));
    show('talk', false);
    show('new-below', false);
    names = client.transports();
    for (i = 0; i < names.length; i += 1) {
      option = add(byId('way'), 'option', '', names[i]);
      option.value = names[i];
      option.selected = names[i] === parameter('transport');
    }
    choose(parameter('transport'));
    byId('nick').value = parameter('nick') || decodeURIComponent(kept[1] || '') || pick(ADJECTIVES) + ' ' + pick(ANIMALS);
    byId('room').value = parameter('room') || LOBBY;
    if (parameter('nick')) {
      wish = { nick: parameter('nick'), room: byId('room').value };
      show('door', false);
    }
    setText(byId('console-line'), 'new WebSocket("' + location.protocol.replace('http', 'ws') + '//' + location.host +
      '/plain/websocket?ns=/chat")');
    onSubmit('enter-form', function () { enter({ nick: byId('nick').value, room: byId('room').value }); });
    onSubmit('room-form', function () { enter({ nick: me.nick, room: byId('new-room').value }); });
    onSubmit('say-form', function () {
      var text = byId('text').value;
      byId('text').value = '';
      say(text);
    });
    onSubmit('way-form', function () {
      choose(byId('way').value);
      connect();
    });
    byId('to').onchange = toChanged;
    byId('leave').onclick = leave;
    byId('again').onclick = connect;
    byId('to-end').onclick = toEnd;
    byId('log').onscroll = function () { if (nearEnd()) { show('new-below', false); } };
    byId('text').onkeydown = function (event) {
      if ((event || window.event).keyCode === 27) {      /* Escape: to everybody again */
        byId('to').selectedIndex = 0;
        toChanged();
      }
    };
    window.onblur = function () { away = true; };
    window.onfocus = looked;
    if (document.addEventListener) {
      document.addEventListener('visibilitychange', function () { if (!document.hidden) { looked(); } }, false);
    }
    if (window.wiretap) { window.wiretap.ontraffic = traffic; }
    connect();
  }

  /* After the load event, or a forever-iframe would keep the page loading for ever. */
  window.onload = function () { setTimeout(start, 0); };
}());
