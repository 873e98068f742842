// The app's side of the Steer and Chat panels: questions go to this server, which knows the endpoints' tokens and the browser does not.
// The panels are in workbench/views/static. `PANEL` is set before this.
const panels = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector('.wb-studio');
  const known = panels.get(root);
  if (known) { known.trigger = setTriggerValue; known.panel.update(data); }
  else panels.set(root, create(root, data, setTriggerValue));
  return () => { const { panel, leave } = panels.get(root) ?? {}; panel?.stop(); leave?.(); panels.delete(root); };
}

function create(root, data, setTriggerValue) {
  const going = new Set(), name = `workbench-${data.panel}`;
  const made = { trigger: setTriggerValue, panel: null, leave: () => going.forEach((abort) => abort.abort()) };
  async function answered(response) {
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(body.error ?? `The app answered ${response.status}.`);
    return body;
  }
  async function fetched(path, options) {
    try { return await fetch(path, { cache: 'no-store', ...options }); } catch (error) {
      throw new Error(error.name === 'AbortError' ? 'The page was left.' : 'The app does not answer: it has ended, or the connection is broken.');
    }
  }
  const post = (path, body, more = {}) => fetched(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), ...more });
  const host = {
    async ask(questions, onEvent) {
      const abort = new AbortController();
      going.add(abort);
      try {
        const response = await post('/ask/answers', { questions }, { signal: abort.signal });
        if (!response.ok) await answered(response);
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ''; ;) {
          const { done, value } = await reader.read().catch(() => { throw new Error('The connection to the app broke.'); });
          if (done) return;
          const parts = (rest + value).split('\n\n');
          rest = parts.pop();
          for (const part of parts) if (part.startsWith('data: ')) onEvent(JSON.parse(part.slice(6)));
        }
      } finally { going.delete(abort); }
    },
    stop: (ids) => { post('/ask/stop', { ids }, { keepalive: true }).catch(() => {}); },
    reach: async (model, attributes) => answered(await post('/ask/reach', { endpoint: model.endpoint, model: model.model, attributes })),
    presets: async () => (await answered(await fetched('/ask/presets'))).presets,
    preset: async (preset, attributes) => (await answered(await post('/ask/presets', { name: preset, attributes }))).presets,
    kept: () => { try { return JSON.parse(sessionStorage.getItem(name)); } catch { return null; } },
    keep: (state) => { try { sessionStorage.setItem(name, JSON.stringify(state)); } catch { /* the tab's storage is full: the state lasts as long as the page */ } },
    launch: (value) => made.trigger('launch', value),
  };
  window.addEventListener('pagehide', made.leave);
  made.panel = PANEL(root, host, data);
  return made;
}
