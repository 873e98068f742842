// The Steer panel: columns of a checkpoint and a setting each, one prompt for all, and a strip that sweeps one attribute. `host` is as in studio.js.
const MOST_COLUMNS = 6, LIVE_MS = 350, MOST_ROWS = 2000;

function steerPanel(root, host, first) {
  const state = Object.assign(
    { prompt: '', system: '', live: true, sampling: { max_tokens: 128, temperature: 0, top_p: 1, seed: null }, columns: [], strip: null, rows: [] }, host.kept() ?? {});
  let models = first.models, views = new Map(), strip = null, presets = {}, asked = null, note = '';
  for (const column of state.columns) settledAnswer(column.answer);
  for (const cell of state.strip?.cells ?? []) settledAnswer(cell.answer);
  const keep = debounced(KEEP_MS, () => host.keep(state));
  const modelOf = (key) => models.find((model) => model.key === key);

  const asks = asking(host, (answer, kind) => {
    cardOf(answer)?.show(answer);
    if (kind === 'text') return;
    if (kind === 'measured' || ((kind === 'end' || kind === 'error') && answer.text)) noteRow(answer);
    draw();
    keep();
  });
  function cardOf(answer) {
    const column = state.columns.find((each) => each.answer === answer);
    if (column) return views.get(column.id)?.card;
    const level = state.strip?.cells.findIndex((cell) => cell.answer === answer) ?? -1;
    return level >= 0 ? strip?.cards[level] : null;
  }
  function noteRow(answer) {
    const { model, endpoint, messages, attributes, sampling } = answer.question;
    const row = { prompt: messages, response: answer.text, requested: attributes, attributes: answer.measured ?? {}, measured_by: answer.measured_by ?? {}, checkpoint: modelOf(`${endpoint}/${model}`)?.source ?? model, model, finish_reason: answer.end?.finish_reason ?? 'error', sampling };
    const known = state.rows.findIndex((each) => each.id === answer.id);
    if (known >= 0) state.rows[known].row = row;
    else state.rows.push({ id: answer.id, row });
    state.rows.splice(0, Math.max(0, state.rows.length - MOST_ROWS));
  }

  // --- asking
  function question(column, attributes = column.attributes) {
    const model = modelOf(column.key);
    const messages = [...(state.system.trim() ? [{ role: 'system', content: state.system }] : []), { role: 'user', content: state.prompt }];
    return { endpoint: model.endpoint, model: model.model, messages, attributes: model.steering ? { ...attributes } : {}, sampling: { ...state.sampling } };
  }
  const ready = (column) => Boolean(state.prompt.trim() && modelOf(column.key));
  function askColumns(columns) {
    const asked = columns.filter(ready);
    if (!asked.length) return prompt.focus();
    asks.drop(asked.map((column) => column.answer).filter(Boolean));
    asks.ask(asked.map((column) => question(column))).forEach((answer, i) => { asked[i].answer = answer; views.get(asked[i].id)?.card.show(answer); });
    draw();
    keep();
  }
  const askSoon = debounced(LIVE_MS, (column) => { askColumns([column]); draw(); });
  const live = Object.assign((column) => { askSoon(column); draw(); }, { cancel: askSoon.cancel, waits: askSoon.waits });
  function changedSetting(column) {
    views.get(column.id).reach?.check();
    if (state.live && column.answer && ready(column)) live(column);
    keep();
  }
  function sweep(column, attribute) {
    const model = modelOf(column.key);
    if (!ready(column)) return prompt.focus();
    asks.drop((state.strip?.cells ?? []).map((cell) => cell.answer));
    const levels = model.steering.levels;
    const answers = asks.ask(levels.map((level) => question(column, { ...column.attributes, [attribute]: level })));
    state.strip = { attribute, key: column.key, setting: { ...column.attributes }, prompt: state.prompt, cells: levels.map((level, i) => ({ level, answer: answers[i] })) };
    drawStrip();
    draw();
    keep();
    strip.root.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  }
  function stopAll() { live.cancel(); asks.stop(asks.all()); }

  // --- what stays: the prompt and its bar
  const prompt = h('textarea', { class: 'wb-input wb-prompt-box', rows: 2, placeholder: 'Ask something …', 'aria-label': 'Prompt', value: state.prompt });
  prompt.addEventListener('input', () => { state.prompt = prompt.value; draw(); keep(); });
  const system = h('textarea', { class: 'wb-input', rows: 2, 'aria-label': 'System prompt', placeholder: 'Before the conversation, in the words of your own', value: state.system });
  system.addEventListener('input', () => { state.system = system.value; keep(); });
  sendsByEnter(prompt, () => askColumns(state.columns));
  const send = button('Send', () => askColumns(state.columns), { class: 'wb-button wb-primary', title: 'Enter' });
  const halt = button('Stop', stopAll, { title: 'Esc' });
  const add = button('Add a column', () => addColumn(state.columns.at(-1)));
  const save = button('', () => download('steered.jsonl', state.rows.map(({ row }) => row)), { title: 'Prompt, answer, what was requested and measured, checkpoint: a JSON object a line' });
  const forget = button('Clear', () => { state.rows = []; draw(); keep(); }, { class: 'wb-link', title: 'Forget the rows so far' });
  const follow = h('label', { class: 'wb-check' }, h('input', { type: 'checkbox', checked: state.live, onchange: (event) => { state.live = event.target.checked; keep(); } }), 'Answer as I slide');
  const status = h('span', { class: 'wb-about', role: 'status' });
  const board = h('div', { class: 'wb-columns' }), below = h('div', {}), none = h('p', { class: 'wb-empty' });
  root.replaceChildren(
    h('div', { class: 'wb-ask' },
      h('div', { class: 'wb-prompt-row' }, prompt, h('div', { class: 'wb-prompt-buttons' }, send, halt)),
      h('details', { class: 'wb-more', open: Boolean(state.system) }, h('summary', {}, 'System prompt and sampling'), system, h('div', { class: 'wb-bar-row' }, samplingFields(state.sampling, keep))),
      h('div', { class: 'wb-bar-row' }, follow, status, h('span', { class: 'wb-space' }), add, save, forget)),
    none, board, below);
  root.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && asks.all().some(asks.busy)) { event.preventDefault(); stopAll(); }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && !event.defaultPrevented) { event.preventDefault(); askColumns(state.columns); }
    event.stopPropagation();  // a key in here is no shortcut of the page's
  });

  // --- columns
  function addColumn(like) {
    const model = modelOf(like?.key) ?? models[0];
    if (!model || state.columns.length >= MOST_COLUMNS) return;
    const attributes = like && modelOf(like.key) ? { ...like.attributes } : { ...(model.steering?.first ?? {}) };
    state.columns.push({ id: newId(), key: model.key, attributes, answer: null });
    drawColumns();
    keep();
  }
  function removeColumn(column) {
    asks.drop([column.answer].filter(Boolean));
    state.columns = state.columns.filter((each) => each !== column);
    drawColumns();
    keep();
  }
  function chooseModel(column, key) {
    column.key = key;
    const steering = modelOf(key)?.steering;
    const fits = steering && Object.entries(column.attributes).every(([name, level]) => steering.attributes.includes(name) && steering.levels.includes(level));
    if (steering && (!fits || !Object.keys(column.attributes).length)) column.attributes = { ...steering.first };
    drawColumns();
    if (state.live && column.answer && ready(column)) live(column);
    keep();
  }
  function columnView(column, place) {
    const model = modelOf(column.key), steering = model?.steering, title = `Column ${place + 1}`;
    const choice = modelChoice(models, column.key, (key) => chooseModel(column, key), `${title}: checkpoint`);
    const card = answerCard(`${title}: answer`, { again: () => askColumns([column]), empty: 'The answer appears here, token by token.', steering });
    const reach = steering && reachNote(host, model, column.attributes, () => { drawColumns(); if (state.live && column.answer) live(column); keep(); });
    const head = h('div', { class: 'wb-column-head' }, choice.root,
      state.columns.length > 1 ? button('✕', () => removeColumn(column), { class: 'wb-link', 'aria-label': `Remove column ${place + 1}`, title: 'Remove the column' }) : null);
    const setting = steering
      ? [sliders(steering, column.attributes, { title: `${title}: attributes`, onChange: () => changedSetting(column), onSweep: (name) => sweep(column, name) }), reach.root, settingBar(column, model)]
      : [h('p', { class: 'wb-about' }, model ? 'This checkpoint was not trained with attributes: it answers without.' : 'No endpoint serves this checkpoint now. Start one above, or choose another.')];
    card.show(column.answer);
    return { root: h('section', { class: 'wb-column', 'aria-label': title }, h('div', { class: 'wb-setting' }, head, ...setting), card.root), card, reach };
  }
  function settingBar(column, model) {
    const take = (attributes) => {
      const { attributes: names, levels } = model.steering;
      const fit = Object.entries(attributes).filter(([name, level]) => names.includes(name) && levels.includes(level));
      if (!fit.length) return say('That preset has none of this checkpoint’s attributes.');
      column.attributes = Object.fromEntries(fit);
      drawColumns();
      if (state.live && column.answer) live(column);
      keep();
    };
    const pick = h('select', { class: 'wb-input wb-small', 'aria-label': 'Presets' }, h('option', { value: '' }, Object.keys(presets).length ? 'Presets …' : 'No presets yet'), Object.keys(presets).map((name) => h('option', {}, name)));
    const name = h('input', { class: 'wb-input wb-small', placeholder: 'name of a preset', maxlength: 60, 'aria-label': 'Name of a preset', value: column.preset ?? '' });
    name.addEventListener('input', () => { column.preset = name.value; });
    pick.addEventListener('change', () => { if (pick.value) { column.preset = pick.value; take(presets[pick.value]); } });
    const change = async (attributes) => {
      if (!name.value.trim()) return name.focus();
      try { presets = await host.preset(name.value, attributes); say(attributes ? `Kept as “${name.value.trim()}”.` : `Deleted “${name.value.trim()}”.`); drawColumns(); } catch (error) { say(error.message); }
    };
    name.addEventListener('keydown', (event) => { if (event.key === 'Enter' && !event.ctrlKey) change(column.attributes); });
    return h('div', { class: 'wb-bar-row wb-tight' }, pick,
      h('details', { class: 'wb-menu' }, h('summary', { class: 'wb-link' }, 'More'),
        h('div', { class: 'wb-menu-body' },
          h('div', { class: 'wb-bar-row wb-tight' }, name, button('Save', () => change(column.attributes), { class: 'wb-button wb-small' }), button('Delete', () => change(null), { class: 'wb-button wb-small' })),
          button('Set none', () => put(column, {}), { class: 'wb-link' }), button('As most training rows', () => put(column, model.steering.first), { class: 'wb-link' }),
          host.launch ? button('Launch SFT with these targets', () => host.launch({ endpoint: model.endpoint, model: model.model, attributes: column.attributes }), { class: 'wb-link' }) : null)));
  }
  function put(column, attributes) { column.attributes = { ...attributes }; drawColumns(); if (state.live && column.answer) live(column); keep(); }
  const say = (message) => { note = message; draw(); setTimeout(() => { if (note === message) { note = ''; draw(); } }, 6000); };

  function drawColumns() {
    const held = document.activeElement?.closest?.('.wb-slider')?.dataset.attribute, at = [...board.children].findIndex((each) => each.contains(document.activeElement));
    views = new Map(state.columns.map((column, place) => [column.id, columnView(column, place)]));
    board.replaceChildren(...[...views.values()].map((view) => view.root));
    if (held && at >= 0) board.children[at]?.querySelector(`.wb-slider[data-attribute="${CSS.escape(held)}"] .wb-range`)?.focus();
    draw();
  }
  function drawStrip() {
    if (!state.strip) { strip = null; return below.replaceChildren(); }
    const { attribute, key, setting, cells } = state.strip, model = modelOf(key);
    const cards = cells.map(({ level, answer }) => { const card = answerCard(`${attribute} ${level}: answer`, { steering: model?.steering, bare: true }); card.show(answer); return card; });
    const others = Object.entries(setting).filter(([name]) => name !== attribute).map(([name, level]) => `${name} ${level}`).join(', ');
    const close = button('✕', () => { asks.drop(cells.map((cell) => cell.answer)); state.strip = null; drawStrip(); draw(); keep(); }, { class: 'wb-link', 'aria-label': 'Close the sweep', title: 'Close the sweep' });
    strip = {
      cards,
      root: h('section', { class: 'wb-strip', 'aria-label': `Sweep of ${attribute}` },
        h('div', { class: 'wb-column-head' }, h('h4', {}, `${attribute} from ${cells[0].level} to ${cells.at(-1).level}`), h('span', { class: 'wb-about' }, [named(model) || key, others, state.strip.prompt.slice(0, 80)].filter(Boolean).join(' · ')), h('span', { class: 'wb-space' }), close),
        h('div', { class: 'wb-cells' }, cells.map(({ level }, i) => h('div', { class: 'wb-cell', 'data-level': level }, h('div', { class: 'wb-cell-head' }, `${attribute} ${level}`), cards[i].root)))),
    };
    below.replaceChildren(strip.root);
  }
  function draw() {
    const going = asks.all().filter(asks.busy).length;
    send.disabled = !state.prompt.trim() || !state.columns.some(ready);
    halt.disabled = !going;
    add.disabled = !models.length || state.columns.length >= MOST_COLUMNS;
    save.textContent = `Export ${state.rows.length} ${state.rows.length === 1 ? 'row' : 'rows'}`;
    save.disabled = forget.disabled = !state.rows.length;
    status.textContent = note || (going ? `${going} ${going === 1 ? 'answer' : 'answers'} coming …` : '');
    none.textContent = state.columns.length ? '' : 'No checkpoint is served yet. Start an endpoint above: its sliders appear here.';
    none.hidden = Boolean(state.columns.length);
    root.dataset.busy = String(Boolean(going) || live.waits());
  }
  function update(now) {
    const changed = JSON.stringify(now.models) !== JSON.stringify(models);
    models = now.models;
    const wanted = models.find((model) => model.key === now.first);
    const begin = (model) => addColumn({ key: model.key, attributes: model.steering?.first ?? {} });
    if (!state.columns.length && models.length) begin(wanted ?? models[0]);
    else if (wanted && asked !== now.first && !state.columns.some((column) => column.key === wanted.key)) begin(wanted);
    if (wanted) asked = now.first;  // once a visit: a column that was removed stays away
    if (changed) drawColumns();
  }
  host.presets().then((all) => { presets = all; if (Object.keys(all).length) drawColumns(); }, (error) => say(error.message));
  drawColumns();
  drawStrip();
  update(first);
  return { update, stop() { live.cancel(); asks.stop(asks.all()); host.keep(state); }, state };
}
