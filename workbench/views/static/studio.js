// What the Steer and the Chat panel are made of: elements, sliders, answers as they come. How questions reach an endpoint, the host knows:
//   host.ask(questions, onEvent)   a promise that ends when every question has its answer; events are those of workbench/steering/asking.py
//   host.stop(ids)                 cancel questions
//   host.reach(model, attributes)  a promise of {reachable, nearest, rows}
//   host.presets(), host.preset(name, attributes or null)   promises of {name: attributes}
//   host.kept(), host.keep(state)  the panel's state from one visit to the next
//   host.launch(value)             where the app has a Launch page
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]|\udb40[\udc00-\udc7f]/g;
const PAIRS = /[\ud800-\udbff][\udc00-\udfff]/g;
const KEEP_MS = 250;

function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'disabled') made[name] = value;
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
const button = (text, onclick, more = {}) => h('button', { type: 'button', class: 'wb-button', onclick, ...more }, text);

// Text from a model: characters that hide or turn the direction of writing are shown as escapes.
function visible(text) {
  const escaped = (part) => Array.from({ length: part.length }, (_, i) => `\\u${part.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');
  const pairs = [];
  const without = text.replace(/\r\n/g, '\n').replace(PAIRS, (pair) => { pairs.push(/\udb40[\udc00-\udc7f]/.test(pair) ? escaped(pair) : pair); return '\u{fffe}'; });
  return without.replace(HIDDEN, escaped).replace(/\ufffe/g, () => pairs.shift() ?? '\\ufffe');
}
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join('');
const number = (value) => String(Math.round(value * 100) / 100);
const seconds = (value) => (value < 10 ? `${value.toFixed(value < 1 ? 2 : 1)} s` : `${Math.round(value)} s`);
const words = (text) => (text.match(/\S+/g) ?? []).length;
const named = (model) => (model ? model.model + (model.step === null || model.model.endsWith(`:${model.step}`) ? '' : ` · step ${model.step}`) : '');

// Answers that are being given: one object a question, which its events change. `changed` is called with the answer and what kind of event it was.
function asking(host, changed) {
  const running = new Map();
  function onEvent(event) {
    const answer = running.get(event.id);
    if (!answer) return;  // it was replaced by a newer one
    if ('text' in event) { answer.text += event.text; answer.status = 'streaming'; }
    if ('end' in event) {
      answer.status = event.end === 'stopped' ? 'stopped' : 'done';
      answer.end = { finish_reason: event.end, tokens: event.tokens, first_s: event.first_s, seconds: event.seconds };
    }
    if ('measured' in event) { answer.measured = event.measured; answer.measured_by = event.measured_by; }
    if ('unmeasured' in event) answer.unmeasured = event.unmeasured;
    if ('error' in event) { answer.status = 'error'; answer.error = event.error; }
    changed(answer, 'text' in event ? 'text' : 'end' in event ? 'end' : 'error' in event ? 'error' : 'measured');
  }
  // Ask, and give back the answers, which fill up.
  function ask(questions) {
    const answers = questions.map((question) => {
      const answer = { id: newId(), status: 'waiting', text: '', question };
      running.set(answer.id, answer);
      return answer;
    });
    const open = () => answers.filter((answer) => running.get(answer.id) === answer);
    host.ask(answers.map(({ id, question }) => ({ id, ...question })), onEvent)
      .catch((error) => {
        for (const answer of open()) if (!['done', 'stopped', 'error'].includes(answer.status)) { answer.status = 'error'; answer.error = error.message; changed(answer, 'error'); }
      })
      .finally(() => {
        for (const answer of open()) {
          if (['waiting', 'streaming'].includes(answer.status)) { answer.status = 'error'; answer.error = 'The answer ended without its last word.'; changed(answer, 'error'); }
          running.delete(answer.id);
        }
      });
    return answers;
  }
  const busy = (answer) => Boolean(answer) && ['waiting', 'streaming'].includes(answer.status);
  function stop(answers) { const ids = answers.filter(busy).map(({ id }) => id); if (ids.length) host.stop(ids); }
  // Cancel, and hear no more of it.
  function drop(answers) { stop(answers); for (const { id } of answers) running.delete(id); }
  return { ask, stop, drop, busy, all: () => [...running.values()] };
}

// After a visit that ended in the middle of an answer.
function settledAnswer(answer) {
  if (answer && ['waiting', 'streaming'].includes(answer.status)) { answer.status = 'stopped'; answer.end = { finish_reason: 'stopped' }; }
  return answer;
}

function debounced(ms, call) {
  let timer;
  const later = (...given) => { clearTimeout(timer); timer = setTimeout(() => { timer = undefined; call(...given); }, ms); };
  later.cancel = () => { clearTimeout(timer); timer = undefined; };
  later.waits = () => timer !== undefined;
  return later;
}

// One slider an attribute, with the training rows' spread over its levels. `setting` is changed in place; what is not in it is not set.
function sliders(steering, setting, { onChange, onSweep, title }) {
  const root = h('div', { class: 'wb-sliders', role: 'group', 'aria-label': title });
  const [lowest, highest] = [steering.levels[0], steering.levels.at(-1)];
  const span = (level) => `calc(8px + (100% - 16px) * ${(level - lowest) / (highest - lowest)})`;
  for (const name of steering.attributes) {
    const shares = steering.shares[name] ?? [], most = Math.max(...shares, 1e-9);
    const percent = (level) => `${Math.round(100 * (shares[level - lowest] ?? 0))} % of the rated training rows`;
    const bars = steering.levels.map((level, i) => h('i', { style: `left: ${span(level)}; height: ${(100 * (shares[i] ?? 0)) / most}%`, title: `${level}: ${percent(level)}` }));
    const ticks = steering.levels.map((level) => h('span', { style: `left: ${span(level)}` }, String(level)));
    const value = h('output', { class: 'wb-level' });
    const range = h('input', { type: 'range', min: lowest, max: highest, step: 1, 'aria-label': name, class: 'wb-range' });
    const on = h('input', { type: 'checkbox', 'aria-label': `${name}: set` });
    const row = h('div', { class: 'wb-slider', 'data-attribute': name },
      h('label', { class: 'wb-attribute' }, on, h('span', { title: name }, name)),
      h('div', { class: 'wb-track' }, h('div', { class: 'wb-spread', 'aria-hidden': 'true' }, bars), range, h('div', { class: 'wb-ticks', 'aria-hidden': 'true' }, ticks)),
      value,
      onSweep ? button('Sweep', () => onSweep(name), { class: 'wb-link', title: `One answer at each level of ${name}`, 'aria-label': `Sweep ${name}` }) : h('span'));
    const draw = () => {
      const level = setting[name], set = level !== undefined;
      on.checked = set;
      if (set) range.value = level;
      value.textContent = set ? number(level) : '–';
      value.title = set ? '' : 'not set: the model is asked without it';
      range.setAttribute('aria-valuetext', set ? `${level}, ${percent(level)}` : 'not set');
      row.classList.toggle('wb-unset', !set);
      bars.forEach((bar, i) => bar.classList.toggle('wb-here', set && steering.levels[i] === level));
      range.style.setProperty('--wb-share', `${(100 * ((set ? level : lowest) - lowest)) / (highest - lowest)}%`);
    };
    const put = (level) => { if (level === undefined) delete setting[name]; else setting[name] = level; draw(); onChange(name); };
    on.addEventListener('change', () => put(on.checked ? Number(range.value) : undefined));
    range.addEventListener('input', () => put(Number(range.value)));
    range.addEventListener('pointerdown', () => { if (setting[name] === undefined) put(Number(range.value)); });
    range.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === 'Backspace' || event.key === 'Delete') { event.preventDefault(); put(undefined); }
      if (/^[0-9]$/.test(event.key) && Number(event.key) >= lowest && Number(event.key) <= highest) { event.preventDefault(); put(Number(event.key)); }
    });
    draw();
    root.append(row);
  }
  return root;
}

// Whether training rows have ratings like the setting, asked a moment after each change; with a button to take the nearest that they have.
function reachNote(host, model, setting, taken) {
  const root = h('div', { class: 'wb-reach', role: 'status' });
  let turn = 0;
  const check = debounced(150, async () => {
    const mine = (turn += 1);
    if (!Object.keys(setting).length) return root.replaceChildren();
    try {
      const reach = await host.reach(model, { ...setting });
      if (mine !== turn) return;
      root.title = reach.reason;
      if (reach.reachable) return root.replaceChildren();
      const nearest = reach.nearest && Object.entries(reach.nearest).filter(([name, level]) => setting[name] !== level).map(([name, level]) => `${name} ${number(level)}`).join(', ');
      const rows = reach.rows ? `Only ${reach.rows} training ${reach.rows === 1 ? 'row has' : 'rows have'} ratings like these` : 'No training row has ratings like these';
      root.replaceChildren(
        h('span', {}, h('b', {}, 'Out of reach. '), `${rows}. ${nearest ? `Nearest: ${nearest} (${reach.nearest_rows.toLocaleString('en')} rows).` : 'Set fewer attributes.'}`),
        nearest ? button('Use the nearest', () => { for (const name of Object.keys(setting)) delete setting[name]; Object.assign(setting, reach.nearest); taken(); }, { class: 'wb-button wb-small' }) : '');
    } catch (error) { if (mine === turn) root.replaceChildren(h('span', {}, `Reach is not known: ${error.message}`)); }
  });
  check();
  return { root, check };
}

// The measured attributes beside what was asked for: a ring at the request, a dot at the measurement.
function measuredRows(answer, steering) {
  const requested = answer.question.attributes ?? {}, measured = answer.measured ?? {};
  const names = [...new Set([...(steering?.attributes ?? []), ...Object.keys(measured)])].filter((name) => name in measured || name in requested);
  if (!names.length || !answer.measured) return null;
  const [lowest, highest] = steering ? [steering.levels[0], steering.levels.at(-1)] : [0, 4];
  const at = (value) => `left: ${Math.min(100, Math.max(0, (100 * (value - lowest)) / (highest - lowest)))}%`;
  return h('table', { class: 'wb-measured' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Attribute'), h('th', { scope: 'col' }, 'Asked'), h('th', { scope: 'col' }, 'Measured'), h('td', {}))),
    h('tbody', {}, names.map((name) => {
      const asked = requested[name], got = measured[name];
      const by = answer.measured_by?.[name];
      return h('tr', { 'data-measured': name },
        h('th', { scope: 'row', title: name }, name),
        h('td', {}, asked === undefined ? '–' : number(asked)),
        h('td', { title: by ? `measured by ${by}` : null }, got === undefined ? '–' : number(got), by === 'rule' ? h('small', {}, ' rule') : null),
        h('td', { 'aria-hidden': 'true' }, h('div', { class: 'wb-gauge' },
          asked === undefined ? null : h('i', { class: 'wb-ring', style: at(asked) }), got === undefined ? null : h('i', { class: 'wb-dot', style: at(got) }))));
    })));
}

const ENDS = { stop: '', length: 'truncated at the most tokens', stopped: 'stopped' };

// An answer as a card; `show` brings it up to date.
function answerCard(label, { again, edit, empty, steering, bare = false } = {}) {
  const text = h('div', { class: 'wb-text', tabindex: '0', role: 'region', 'aria-label': label }), about = h('div', { class: 'wb-about' }), error = h('div', { class: 'wb-error', role: 'alert' }), measured = h('div', {});
  const root = h('div', { class: bare ? 'wb-said wb-bare' : 'wb-said' }, text, error, about, measured);
  let shown = '', of = null;
  function show(answer) {
    root.dataset.status = answer ? answer.status : 'none';
    text.setAttribute('aria-busy', String(Boolean(answer) && ['waiting', 'streaming'].includes(answer.status)));
    const content = answer?.text ?? '';
    const down = text.scrollHeight - text.scrollTop - text.clientHeight < 24;
    if (of !== answer?.id || !content.startsWith(shown) || !shown) { text.replaceChildren(); shown = ''; of = answer?.id; }
    if (content.length > shown.length) { text.append(visible(content.slice(shown.length))); shown = content; text.normalize(); }
    if (!content && answer?.status === 'done') text.append(h('em', {}, '(empty answer)'));
    if (!content && answer?.status === 'waiting') text.append(h('em', {}, 'Waiting for the first token …'));
    if (!answer && empty) text.append(h('em', {}, empty));
    if (down) text.scrollTop = text.scrollHeight;
    error.replaceChildren(...(answer?.status === 'error' ? [h('span', {}, `${answer.text ? 'The answer broke off: ' : ''}${visible(answer.error ?? '')}`), again ? button('Try again', again, { class: 'wb-button wb-small' }) : ''] : []));
    if (answer && answer.status === 'streaming') return about.replaceChildren(`${words(content)} words`);
    measured.replaceChildren(...[answer && measuredRows(answer, steering), answer?.unmeasured ? h('div', { class: 'wb-about' }, `Not measured: ${answer.unmeasured}`) : null].filter(Boolean));
    if (!answer || answer.status === 'waiting') return about.replaceChildren();
    const end = answer.end ?? {}, rate = end.tokens > 1 && end.seconds > end.first_s ? (end.tokens - 1) / (end.seconds - end.first_s) : null;
    const parts = [`${words(content)} words`, end.tokens ? `${end.tokens} tokens` : '', end.first_s ? `first after ${seconds(end.first_s)}` : '', rate ? `${rate < 100 ? number(Math.round(rate * 10) / 10) : Math.round(rate).toLocaleString('en')} tokens/s` : '', ENDS[end.finish_reason] ?? ''];
    about.replaceChildren(h('span', {}, parts.filter(Boolean).join(' · ')),
      answer.edited ? h('span', {}, 'edited') : '',
      again && answer.status !== 'error' ? button('Again', again, { class: 'wb-link', title: 'Ask once more' }) : '',
      edit && content ? button('Edit', edit, { class: 'wb-link', title: 'Change the answer: the conversation continues with the changed one' }) : '',
      content ? button('Copy', (event) => { navigator.clipboard?.writeText(content).then(() => { event.target.textContent = 'Copied'; }); }, { class: 'wb-link' }) : '');
  }
  show(null);
  return { root, show };
}

// Fields of how an answer is drawn; `sampling` is changed in place.
function samplingFields(sampling, changed) {
  const field = (name, label, help, least, most, step) => {
    const input = h('input', { type: 'number', min: least, max: most, step, value: sampling[name] ?? '', class: 'wb-input wb-number', title: help, placeholder: name === 'seed' ? 'any' : '' });
    input.addEventListener('change', () => {
      const value = input.value === '' ? null : Math.min(most, Math.max(least, Number(input.value)));
      if (value === null && name !== 'seed') { input.value = sampling[name]; return; }
      sampling[name] = step === 1 && value !== null ? Math.round(value) : value;
      input.value = sampling[name] ?? '';
      changed();
    });
    return h('label', { class: 'wb-field' }, h('span', {}, label), input);
  };
  return [
    field('max_tokens', 'Most tokens', 'An answer ends there at the latest', 1, 32768, 1),
    field('temperature', 'Temperature', '0 takes the likeliest token each time', 0, 5, 0.1),
    field('top_p', 'Top-p', 'Tokens of this mass are drawn from', 0.01, 1, 0.05),
    field('seed', 'Seed', 'Empty: another answer each time, where the temperature is above 0', 0, 2147483647, 1),
  ];
}

function modelChoice(models, key, changed, label) {
  const select = h('select', { class: 'wb-input wb-model', 'aria-label': label });
  select.addEventListener('change', () => changed(select.value));
  function draw(now, chosen) {
    select.replaceChildren(...now.map((model) => h('option', { value: model.key }, named(model) + (now.some((other) => other !== model && other.model === model.model) ? ` (${model.endpoint})` : ''))));
    if (!now.some((model) => model.key === chosen)) select.append(h('option', { value: chosen ?? '' }, chosen ? `${chosen} (not served any more)` : 'no checkpoint'));
    select.value = chosen ?? '';
  }
  draw(models, key);
  return { root: select, draw };
}

// Enter sends and Shift+Enter breaks the line, where no input method is composing a word.
function sendsByEnter(area, send) {
  const grow = () => { area.style.height = 'auto'; area.style.height = `${Math.min(260, area.scrollHeight + 2)}px`; };
  area.addEventListener('input', grow);
  area.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  requestAnimationFrame(grow);
  return grow;
}

function download(name, rows) {
  const url = URL.createObjectURL(new Blob(rows.map((row) => `${JSON.stringify(row)}\n`), { type: 'application/jsonl' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
