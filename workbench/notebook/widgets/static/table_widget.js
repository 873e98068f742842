// A table whose rows are chosen by a click, or by the arrow keys and Enter. What is in it, and which row is chosen, the kernel says.
const BEAT_MS = 15000, RETRY_MS = 1000;

function render({ model, el }) {
  const view = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join('');
  const table = document.createElement('table');
  table.className = 'wb-table';
  el.classList.add('wb-notebook', 'wb-scroll');
  el.append(table);
  let rows = [], focus = 0, going = true, retry, stopped = false;
  const say = (kind, more = {}) => model.send({ kind, view, ...more });
  const cell = (tag, words, className) => { const made = document.createElement(tag); made.textContent = words; if (className) made.className = className; return made; };

  function draw(content) {
    const held = table.contains(document.activeElement);
    rows = content.rows;
    focus = Math.max(0, rows.findIndex(({ key }) => key === content.chosen));
    const head = document.createElement('thead'), body = document.createElement('tbody'), names = document.createElement('tr');
    for (const { title, number } of content.columns) { const made = cell('th', title, number ? 'wb-number' : ''); made.scope = 'col'; names.append(made); }
    head.append(names);
    rows.forEach(({ key, cells }, place) => {
      const row = document.createElement('tr');
      row.tabIndex = place === focus ? 0 : -1;
      row.setAttribute('aria-selected', key === content.chosen);
      cells.forEach((words, column) => row.append(cell('td', words, content.columns[column].number ? 'wb-number' : '')));
      row.addEventListener('click', () => choose(place));
      body.append(row);
    });
    table.setAttribute('role', 'grid');
    table.setAttribute('aria-label', content.label);
    table.replaceChildren(head, body);
    if (held) table.tBodies[0].rows[focus]?.focus();
  }
  function choose(place) { move(place); say('choose', { key: rows[place].key }); }
  function move(place) {
    const all = table.tBodies[0].rows;
    if (!all[place]) return;
    all[focus].tabIndex = -1;
    focus = place;
    all[focus].tabIndex = 0;
    all[focus].focus();
  }
  table.addEventListener('keydown', (event) => {
    const places = { ArrowDown: focus + 1, ArrowUp: focus - 1, Home: 0, End: rows.length - 1 };
    if (event.key in places) { event.preventDefault(); move(places[event.key]); }
    if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); choose(focus); }
    event.stopPropagation();
  });

  function onMessage(content) {
    if (content.kind !== 'rows' || (content.to && !content.to.includes(view))) return;
    clearTimeout(retry);
    going = content.going;
    draw(content);
  }
  const hello = () => { if (stopped) return; say('hello', { number: 1 }); retry = setTimeout(hello, RETRY_MS); };
  const beat = setInterval(() => { if (going) say('beat'); }, BEAT_MS);
  const leave = () => say('bye');
  window.addEventListener('pagehide', leave);
  model.on('msg:custom', onMessage);
  setTimeout(hello);
  return () => { stopped = true; clearTimeout(retry); clearInterval(beat); window.removeEventListener('pagehide', leave); model.off('msg:custom', onMessage); say('bye'); };
}

export default { render };
