/* What worked last with which server. In localStorage where that can be used; it is forgotten after a while, since
   people carry their machines to other networks. */

var MEMORY_KEY = 'polysock', MEMORY_MS = 3600000, MEMORY_ENTRIES = 20;
var memory = null;

function recall() {
  if (!memory) {
    try { memory = decodeJson(root.localStorage.getItem(MEMORY_KEY)); } catch (e) { /* none, or forbidden */ }
    if (!memory || typeof memory !== 'object' || isArray(memory)) { memory = {}; }
  }
  return memory;
}

function recallTransport(url) {
  var entry = has(recall(), url) ? memory[url] : null;
  return isArray(entry) && now() - entry[1] < MEMORY_MS && now() >= entry[1] ? entry[0] : null;
}

/* transport null: forget */
function rememberTransport(url, transport) {
  var oldest = null, count = 0, name;
  recall();
  if (transport) { memory[url] = [transport, now()]; } else { delete memory[url]; }
  for (name in memory) {
    if (has(memory, name)) {
      count += 1;
      if (oldest === null || memory[name][1] < memory[oldest][1]) { oldest = name; }
    }
  }
  if (count > MEMORY_ENTRIES) { delete memory[oldest]; }
  try { root.localStorage.setItem(MEMORY_KEY, encodeJson(memory)); } catch (e) { /* then for this page only */ }
}
