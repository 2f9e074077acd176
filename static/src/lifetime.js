/* The page goes and may come back. Modern browsers keep a page that the user leaves (back/forward cache), unless it
   listens to unload or holds connections: so let go at pagehide, and come back at pageshow. Only browsers without
   pagehide get an unload handler. */

var living = [], watching = false;

function goAway() {
  var list = living.slice(0), i;
  for (i = 0; i < list.length; i += 1) { list[i].suspend(); }
}

function comeBack() {
  var list = living.slice(0), i;
  for (i = 0; i < list.length; i += 1) { list[i].resume(); }
}

/* thing: suspend() lets its connection go without a word; resume() finds out that it is gone. */
function watchPage(thing) {
  living.push(thing);
  if (watching) { return; }
  watching = true;
  if ('onpagehide' in root) {
    addWindowListener('pagehide', goAway);
    addWindowListener('pageshow', comeBack);
  } else {
    addWindowListener('unload', goAway);
  }
}

function unwatchPage(thing) {
  var at = indexOf(living, thing);
  if (at >= 0) { living.splice(at, 1); }
}
