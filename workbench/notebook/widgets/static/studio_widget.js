// The notebook's side of the Steer and Chat panels: questions go to the kernel, which asks the endpoint. The panels are in workbench/views/static; PANEL is set before this.
const ACCEPT_MS = 20000, LOST = 'The kernel does not answer: it is busy with a cell, or it has ended.';

function render({ model, el }) {
  const root = h('div', { class: 'wb-studio', 'data-lm-suppress-shortcuts': 'true' });
  el.classList.add('wb-notebook');
  el.append(root);
  const pending = new Map();
  let last = model.get('kept');
  function request(kind, more, onEvent) {
    const id = newId();
    return new Promise((done, failed) => {
      const timer = setTimeout(() => { pending.delete(id); failed(new Error(LOST)); if (more.questions) model.send({ kind: 'stop', ids: more.questions.map((each) => each.id) }); }, ACCEPT_MS);
      pending.set(id, { onEvent, timer, done, failed });
      model.send({ kind, request: id, ...more });
    });
  }
  function onMessage(content) {
    const open = pending.get(content.to);
    if (!open) return;  // another view's
    clearTimeout(open.timer);
    if (content.kind === 'events') for (const event of content.events) open.onEvent(event);
    if (content.kind === 'reply') { pending.delete(content.to); if (content.error) open.failed(new Error(content.error)); else open.done(content.value); }
  }
  const host = {
    ask: (questions, onEvent) => request('ask', { questions }, onEvent),
    stop: (ids) => model.send({ kind: 'stop', ids }),
    reach: (served, attributes) => request('reach', { endpoint: served.endpoint, model: served.model, attributes }),
    presets: () => request('presets', {}),
    preset: (name, attributes) => request('preset', { name, attributes }),
    kept: () => (last ? JSON.parse(last) : null),
    keep: (state) => { last = JSON.stringify(state); model.set('kept', last); model.save_changes(); },
  };
  const panel = PANEL(root, host, model.get('data'));
  const update = () => panel.update(model.get('data'));
  model.on('msg:custom', onMessage);
  model.on('change:data', update);
  const leave = () => panel.stop();
  window.addEventListener('pagehide', leave);
  return () => { leave(); window.removeEventListener('pagehide', leave); model.off('msg:custom', onMessage); model.off('change:data', update); };
}

export default { render };
