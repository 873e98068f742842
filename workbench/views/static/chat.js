// The Chat panel: a conversation with one checkpoint, with two side by side, or with two whose names are hidden until a vote. `host` is as in studio.js.
const MODES = { one: 'One', two: 'Side by side', blind: 'Blind A/B' }, MOST_VOTES = 1000;

function chatPanel(root, host, first) {
  const state = Object.assign({
    mode: 'one', sides: { left: null, right: null }, settings: { left: {}, right: {} }, system: '',
    sampling: { max_tokens: 256, temperature: 0.7, top_p: 1, seed: null }, turns: [], votes: [], draft: '',
  }, host.kept() ?? {});
  let models = first.models, cards = new Map(), asked = null, editing = null;
  for (const turn of state.turns) for (const side of Object.keys(turn.answers)) settledAnswer(turn.answers[side]);
  const keep = debounced(KEEP_MS, () => host.keep(state));
  const modelOf = (key) => models.find((model) => model.key === key);
  const used = () => (state.mode === 'one' ? ['left'] : ['left', 'right']);
  const asks = asking(host, (answer, kind) => {
    cards.get(answer.id)?.show(answer);
    if (kind === 'text') return;
    if (kind !== 'measured') { drawTalk(); reveal(); }
    draw();
    keep();
  });

  // --- what each side is asked: its own answers so far, or the one that was voted for
  function saidBy(turn, side) {
    const answer = turn.answers[turn.vote === 'left' || turn.vote === 'right' ? turn.vote : side] ?? turn.answers.left ?? turn.answers.right;
    return answer?.text ?? '';
  }
  function messages(side, turns) {
    const before = state.system.trim() ? [{ role: 'system', content: state.system }] : [];
    const said = turns.flatMap((turn, i) => {
      const answer = saidBy(turn, side), user = { role: 'user', content: turn.user };
      return i === turns.length - 1 ? [user] : answer ? [user, { role: 'assistant', content: answer }] : [];
    });
    return [...before, ...said];
  }
  function answerTurn(place, sides = used()) {
    const turn = state.turns[place], turns = state.turns.slice(0, place + 1);
    const ready = sides.filter((side) => modelOf(state.sides[side]));
    asks.drop(ready.map((side) => turn.answers[side]).filter(Boolean));
    const answers = asks.ask(ready.map((side) => {
      const model = modelOf(state.sides[side]);
      return { endpoint: model.endpoint, model: model.model, messages: messages(side, turns), attributes: model.steering ? { ...state.settings[side] } : {}, sampling: { ...state.sampling }, measure: Boolean(model.steering) };
    }));
    ready.forEach((side, i) => { turn.answers[side] = answers[i]; });
    turn.vote = null;
    drawTalk();
    draw();
    keep();
  }
  function send() {
    const user = draft.value.trim();
    if (!user || !ready()) return draft.focus();
    if (asks.all().some(asks.busy)) return;
    draft.value = state.draft = '';
    grow();
    const swapped = state.mode === 'blind' && Boolean(crypto.getRandomValues(new Uint8Array(1))[0] & 1);
    state.turns.push({ user, answers: {}, order: swapped ? ['right', 'left'] : ['left', 'right'], blind: state.mode === 'blind', vote: null });
    answerTurn(state.turns.length - 1);
    reveal();
  }
  function reveal() {
    const last = talk.lastElementChild;
    if (last && last.offsetHeight < innerHeight - 160) last.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
  }
  // Whatever came after a changed question was said to another one.
  function askAgain(place, user) {
    for (const turn of state.turns.slice(place)) asks.drop(Object.values(turn.answers));
    const turn = state.turns[place];
    state.turns = [...state.turns.slice(0, place), { ...turn, user, answers: {}, vote: null }];
    answerTurn(place);
  }
  const ready = () => used().every((side) => modelOf(state.sides[side]));
  const stopAll = () => asks.stop(asks.all());

  // --- votes
  function vote(place, winner) {
    const turn = state.turns[place], { left, right } = turn.answers;
    if (!left || !right || turn.vote || [left, right].some(asks.busy)) return;
    turn.vote = winner;
    const about = (answer) => ({ model: answer.question.model, endpoint: answer.question.endpoint, attributes: answer.question.attributes, text: answer.text });
    state.votes.push({ prompt: messages('left', state.turns.slice(0, place + 1)), left: about(left), right: about(right), winner, blind: turn.blind });
    state.votes.splice(0, Math.max(0, state.votes.length - MOST_VOTES));
    drawTalk();
    draw();
    keep();
    draft.focus();
  }
  function tally() {
    const counts = new Map();
    for (const each of state.votes.filter(({ blind }) => blind)) {
      for (const side of ['left', 'right']) {
        const count = counts.get(each[side].model) ?? { won: 0, lost: 0, tied: 0 };
        counts.set(each[side].model, count);
        count[each.winner === 'tie' ? 'tied' : each.winner === side ? 'won' : 'lost'] += 1;
      }
    }
    return [...counts].map(([model, { won, lost, tied }]) => `${model}: ${won} won, ${lost} lost${tied ? `, ${tied} tied` : ''}`).join(' · ');
  }
  const pairs = () => state.votes.filter(({ winner }) => winner !== 'tie').map((each) => {
    const [chosen, rejected] = each.winner === 'left' ? [each.left, each.right] : [each.right, each.left];
    return { prompt: each.prompt, chosen: chosen.text, rejected: rejected.text, chosen_model: chosen.model, rejected_model: rejected.model, blind: each.blind };
  });
  function conversations() {
    return used().filter((side) => state.turns.length && state.sides[side]).map((side) => {
      const last = state.turns.at(-1), answer = saidBy(last, side), model = modelOf(state.sides[side]);
      const all = [...messages(side, state.turns), ...(answer ? [{ role: 'assistant', content: answer }] : [])];
      return { messages: all, model: model?.model ?? state.sides[side], checkpoint: model?.source ?? null, attributes: model?.steering ? state.settings[side] : {}, sampling: state.sampling };
    });
  }

  // --- what stays: the bar and the composer
  const modes = h('div', { class: 'wb-modes', role: 'group', 'aria-label': 'How many answer' }, Object.entries(MODES).map(([mode, label]) => button(label, () => { state.mode = mode; drawBar(); drawTalk(); draw(); keep(); }, { 'data-mode': mode })));
  const choices = h('span', { style: 'display: contents' });
  const settings = h('div', { class: 'wb-both' });
  const system = h('textarea', { class: 'wb-input', rows: 2, 'aria-label': 'System prompt', placeholder: 'Before the conversation, in the words of your own', value: state.system });
  system.addEventListener('input', () => { state.system = system.value; keep(); });
  const status = h('span', { class: 'wb-about', role: 'status' });
  const fresh = button('New conversation', () => { asks.drop(asks.all()); state.turns = []; editing = null; drawTalk(); draw(); keep(); draft.focus(); });
  const save = button('Save as rows', () => download('conversations.jsonl', conversations()), { title: 'Each side’s conversation as a line: {"messages": [...]}' });
  const saveVotes = button('', () => download('votes.jsonl', pairs()), { title: 'A pair a vote: {"prompt", "chosen", "rejected"}; ties have none' });
  const draft = h('textarea', { class: 'wb-input', rows: 1, placeholder: 'Say something …', 'aria-label': 'Message', value: state.draft });
  draft.addEventListener('input', () => { state.draft = draft.value; draw(); keep(); });
  const grow = sendsByEnter(draft, send);
  const go = button('Send', send, { class: 'wb-button wb-primary', title: 'Enter' }), halt = button('Stop', stopAll, { title: 'Esc' });
  const talk = h('div', { class: 'wb-talk' });
  root.replaceChildren(
    h('div', { class: 'wb-ask' }, h('div', { class: 'wb-bar-row' }, modes, choices, h('span', { class: 'wb-space' }), fresh, save, saveVotes),
      h('details', { class: 'wb-more', open: Boolean(state.system) }, h('summary', {}, 'System prompt, sampling and attributes'), system, h('div', { class: 'wb-bar-row' }, samplingFields(state.sampling, keep)), settings), status),
    talk, h('div', { class: 'wb-composer' }, draft, halt, go));
  root.addEventListener('keydown', (event) => {
    const typing = event.target.matches('textarea, input, select');
    if (event.key === 'Escape' && asks.all().some(asks.busy)) { event.preventDefault(); stopAll(); }
    const last = state.turns.at(-1), by = { 1: 0, 2: 1 }[event.key];
    if (!typing && !event.ctrlKey && !event.metaKey && last && used().length === 2 && (by !== undefined || event.key === '0')) { event.preventDefault(); vote(state.turns.length - 1, by === undefined ? 'tie' : last.order[by]); }
    event.stopPropagation();
  });

  function drawBar() {
    for (const each of modes.children) each.setAttribute('aria-pressed', String(each.dataset.mode === state.mode));
    const label = { one: ['Checkpoint', ''], two: ['Left checkpoint', 'Right checkpoint'], blind: ['One of the two', 'The other of the two'] }[state.mode];
    choices.replaceChildren(...used().map((side, i) => modelChoice(models, state.sides[side], (key) => { choose(side, key); drawBar(); draw(); keep(); }, label[i]).root));
    settings.replaceChildren(...used().map((side, i) => {
      const model = modelOf(state.sides[side]);
      if (!model?.steering) return null;
      const reach = reachNote(host, model, state.settings[side], () => { drawBar(); keep(); });
      return h('div', { class: 'wb-setting' }, h('b', { class: 'wb-about' }, used().length > 1 ? `${label[i]}: ${named(model)}` : named(model)),
        sliders(model.steering, state.settings[side], { title: `${label[i]}: attributes`, onChange: () => { reach.check(); keep(); } }), reach.root);
    }).filter(Boolean));
  }
  function choose(side, key) {
    state.sides[side] = key;
    state.settings[side] = { ...(modelOf(key)?.steering?.first ?? {}) };
  }
  function sideView(turn, place, side, position) {
    const answer = turn.answers[side], letter = 'AB'[position], hidden = turn.blind && !turn.vote, last = place === state.turns.length - 1;
    const name = hidden ? letter : `${turn.blind ? `${letter} · ` : ''}${answer?.question.model ?? ''}`;
    if (editing?.answer === answer && answer) {
      const area = h('textarea', { class: 'wb-input', rows: 6, 'aria-label': 'The answer, changed', value: answer.text });
      return h('div', { class: 'wb-side' }, h('header', {}, name), area, h('div', { class: 'wb-bar-row wb-tight' },
        button('Save', () => { answer.text = area.value; answer.edited = true; editing = null; drawTalk(); keep(); }, { class: 'wb-button wb-primary wb-small' }), button('Cancel', () => { editing = null; drawTalk(); }, { class: 'wb-button wb-small' })));
    }
    const card = answerCard(`Answer ${used().length > 1 ? letter : ''} to message ${place + 1}`, {
      again: last ? () => answerTurn(place, [side]) : null, bare: true, steering: hidden ? null : modelOf(`${answer?.question.endpoint}/${answer?.question.model}`)?.steering,
      edit: () => { editing = { answer }; drawTalk(); },
    });
    // Before the vote not even its speed tells whose it is.
    const shown = (now) => (hidden ? { ...now, end: now.end && { finish_reason: now.end.finish_reason }, measured: undefined, unmeasured: undefined } : now);
    if (answer) cards.set(answer.id, { show: (now) => card.show(shown(now)) });
    card.show(answer ? shown(answer) : null);
    return h('div', { class: turn.vote === side ? 'wb-side wb-chosen' : 'wb-side', 'data-side': letter }, h('header', {}, name, turn.vote === side ? h('b', {}, 'your choice') : null), card.root);
  }
  function turnView(turn, place) {
    const sides = turn.order.filter((side) => turn.answers[side]);
    const both = sides.length === 2 && used().length === 2;
    const finished = both && sides.every((side) => !asks.busy(turn.answers[side]) && turn.answers[side].text);
    const votes = both && !turn.vote && place === state.turns.length - 1 ? h('div', { class: 'wb-votes', role: 'group', 'aria-label': 'Which answer is better?' },
      [['A is better', turn.order[0], '1'], ['Tie', 'tie', '0'], ['B is better', turn.order[1], '2']].map(([label, winner, key]) => h('button', { type: 'button', class: 'wb-button', disabled: !finished, onclick: () => vote(place, winner) }, label, h('kbd', { 'aria-hidden': 'true' }, key)))) : null;
    return h('section', { class: 'wb-turn', 'aria-label': `Message ${place + 1}` }, userView(turn, place), h('div', { class: 'wb-sides' }, sides.map((side, position) => sideView(turn, place, side, position))), votes);
  }
  function userView(turn, place) {
    if (editing?.turn !== turn) {
      const edit = button('Edit', () => { editing = { turn }; drawTalk(); talk.querySelector('.wb-editing textarea')?.focus(); }, { class: 'wb-link', title: 'Change the message and have it answered again; what came after it goes' });
      return h('div', { class: 'wb-user' }, h('p', {}, visible(turn.user)), h('div', { class: 'wb-about' }, edit));
    }
    const area = h('textarea', { class: 'wb-input', rows: 3, 'aria-label': 'The message, changed', value: turn.user });
    const done = () => { if (!area.value.trim()) return; editing = null; askAgain(place, area.value.trim()); };
    sendsByEnter(area, done);
    const later = state.turns.length - place - 1;
    return h('div', { class: 'wb-user wb-editing' }, area, h('div', { class: 'wb-bar-row wb-tight' }, button('Answer again', done, { class: 'wb-button wb-primary wb-small' }), button('Cancel', () => { editing = null; drawTalk(); }, { class: 'wb-button wb-small' }),
      later ? h('span', { class: 'wb-about' }, `The ${later === 1 ? 'message' : `${later} messages`} after it will go.`) : null));
  }
  function drawTalk() {
    cards = new Map();
    talk.replaceChildren(...(state.turns.length ? state.turns.map(turnView) : [h('p', { class: 'wb-empty' }, models.length ? 'The conversation appears here.' : 'No checkpoint is served yet. Start an endpoint above, then talk to it here.')]));
  }
  function draw() {
    const going = asks.all().filter(asks.busy).length, ties = state.votes.filter(({ winner }) => winner === 'tie').length, count = state.votes.length - ties;
    go.disabled = Boolean(going) || !draft.value.trim() || !ready();
    halt.disabled = !going;
    fresh.disabled = !state.turns.length;
    save.disabled = !state.turns.length || Boolean(going);
    saveVotes.textContent = `Save ${count} ${count === 1 ? 'vote' : 'votes'} as pairs`;
    saveVotes.hidden = !state.votes.length;
    saveVotes.disabled = !count;
    status.textContent = going ? `${going} ${going === 1 ? 'answer' : 'answers'} coming …` : tally();
    root.dataset.busy = String(Boolean(going));
  }
  function update(now) {
    models = now.models;
    const wanted = modelOf(now.first);
    if (wanted && asked !== now.first) { asked = now.first; if (state.sides.left !== wanted.key) choose('left', wanted.key); }
    for (const side of ['left', 'right']) {
      if (state.sides[side] && (modelOf(state.sides[side]) || state.turns.length)) continue;
      const other = models.find((model) => model.key !== state.sides[side === 'left' ? 'right' : 'left']) ?? models[0];
      if (other) choose(side, other.key);
    }
    drawBar();
    if (!asks.all().some(asks.busy)) drawTalk();
    draw();
  }
  update(first);
  return { update, stop() { stopAll(); host.keep(state); }, state };
}
