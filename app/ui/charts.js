// The app's charts ask the server for new points themselves: a page rerun never redraws them. `runCharts` is in workbench/views/static/charts.js.
const EVERY_MS = 500, IDLE_MS = 5000, SLOWEST_MS = 15000;
const states = new WeakMap();
let plotly;

const loadPlotly = () => (plotly ??= new Promise((done, failed) => {
  if (window.Plotly) return done(window.Plotly);
  const script = document.createElement('script');
  script.src = '/live/plotly.min.js';
  script.onload = () => done(window.Plotly);
  script.onerror = () => { plotly = undefined; script.remove(); failed(new Error('plotly did not load')); };
  document.head.appendChild(script);
}));

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector('.wb-charts');
  const known = states.get(root);
  if (known) known.update(data);
  else states.set(root, create(root, data));
  return () => { states.get(root)?.stop(); states.delete(root); };
}

function create(root, first) {
  let data = first, signature = '', cursor = '', epoch = 0, failures = 0, stopped = false, timer, busy = false;
  const charts = runCharts(root, {
    plotly: loadPlotly,
    key: () => data.run,
    axis: () => data.axis,
    empty: () => (data.live ? 'The curves appear with the first step.' : 'This run ended before its first step.'),
    lazy: false,
  });
  const schedule = (ms) => { clearTimeout(timer); if (!stopped) timer = setTimeout(tick, ms); };
  const restart = () => { epoch += 1; cursor = ''; schedule(0); };

  async function tick() {
    if (stopped || busy) return schedule(EVERY_MS);
    if (document.hidden || root.offsetParent === null) return schedule(EVERY_MS);
    busy = true;
    const mine = epoch;
    let next = EVERY_MS;
    try {
      await loadPlotly();
      const answer = await ask();
      if (stopped) return;
      if (mine === epoch) await charts.draw(answer);
      if (mine === epoch) {  // still: what was asked for did not change while this was drawn
        cursor = charts.long() ? '' : answer.cursor;
        next = answer.live ? EVERY_MS : IDLE_MS;
      } else next = 0;
      failures = 0;
      charts.say('');
    } catch (error) {
      failures += 1;
      next = Math.min(SLOWEST_MS, EVERY_MS * 2 ** (failures - 1));
      if (failures > 1 || error.status) charts.say(`${error.status ? error.message : 'Disconnected from the server'}. The curves go on when it answers; next try in ${Math.round(next / 1000)} s.`);
    } finally { busy = false; }
    schedule(next);
  }

  async function ask() {
    const query = new URLSearchParams({ smoothing: data.smoothing, axis: data.axis });
    if (cursor) query.set('after', cursor);
    const response = await fetch(`/live/${encodeURIComponent(data.run)}/metrics?${query}`, { cache: 'no-store', signal: AbortSignal.timeout(10000) });
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
    return answer;
  }

  const live = {
    update(now) {
      data = now;
      const wanted = [data.run, data.smoothing, data.axis, JSON.stringify(colours(root))].join('|');
      if (wanted !== signature) { signature = wanted; restart(); }
    },
    stop() { stopped = true; clearTimeout(timer); document.removeEventListener('visibilitychange', wake); charts.stop(); },
  };
  const wake = () => { if (!document.hidden) schedule(0); };
  document.addEventListener('visibilitychange', wake);
  live.update(first);
  return live;
}
