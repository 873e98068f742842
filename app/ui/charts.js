// Charts that ask the server for new points themselves and append them: a page rerun never redraws them.
const EVERY_MS = 500, IDLE_MS = 5000, SLOWEST_MS = 15000, THIN_AGAIN = 3000;
const SERIES_COLOUR = { chosen: 1, rejected: 4 };
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
  const banner = element('p', 'wb-banner', { role: 'status', hidden: '' });
  const body = element('div', 'wb-groups');
  body.append(element('p', 'wb-empty', {}, 'Loading the curves…'));
  root.replaceChildren(banner, body);
  const charts = new Map();   // chart key -> {spec, card, plot, traces, points}
  let data = first, signature = '', cursor = '', epoch = 0, failures = 0, stopped = false, timer, theme, busy = false;
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => target.wbDrawn && target.offsetWidth && window.Plotly.Plots.resize(target)));

  const say = (words) => { banner.hidden = !words; if (banner.textContent !== words) banner.textContent = words; };
  const schedule = (ms) => { clearTimeout(timer); if (!stopped) timer = setTimeout(tick, ms); };
  const restart = () => { epoch += 1; cursor = ''; schedule(0); };

  async function tick() {
    if (stopped || busy) return schedule(EVERY_MS);
    if (document.hidden || root.offsetParent === null) return schedule(EVERY_MS);
    busy = true;
    const mine = epoch;
    let next = EVERY_MS;
    try {
      const Plotly = await loadPlotly();
      const answer = await ask();
      if (stopped) return;
      if (mine === epoch) await draw(Plotly, answer);
      if (mine === epoch) {  // still: what was asked for did not change while this was drawn
        cursor = [...charts.values()].some((chart) => chart.points > THIN_AGAIN) ? '' : answer.cursor;
        next = answer.live ? EVERY_MS : IDLE_MS;
      } else next = 0;
      failures = 0;
      say('');
    } catch (error) {
      failures += 1;
      next = Math.min(SLOWEST_MS, EVERY_MS * 2 ** (failures - 1));
      if (failures > 1 || error.status) say(`${error.status ? error.message : 'Disconnected from the server'}. The curves go on when it answers; next try in ${Math.round(next / 1000)} s.`);
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

  async function draw(Plotly, answer) {
    if (answer.reset) {
      theme = colours(root);
      await layOut(Plotly, answer);
    } else for (const chart of charts.values()) await append(Plotly, chart, answer);
  }

  async function layOut(Plotly, answer) {
    const keys = new Set(answer.charts.map((spec) => spec.key));
    for (const [key, chart] of charts) if (!keys.has(key)) { resized.unobserve(chart.plot); Plotly.purge(chart.plot); chart.card.remove(); charts.delete(key); }
    const groups = new Map();
    for (const spec of answer.charts) groups.set(spec.group, [...(groups.get(spec.group) ?? []), spec]);
    const sections = [];
    for (const [name, specs] of groups) {
      const section = body.querySelector(`[data-group="${name}"]`) ?? element('section', 'wb-group', { 'data-group': name, 'aria-label': name });
      if (!section.firstChild) section.append(element('h3', 'wb-group-title', {}, name), element('div', 'wb-grid'));
      sections.push(section);
      for (const spec of specs) section.lastChild.append(cardOf(spec).card);
    }
    if (sections.length) body.replaceChildren(...sections);
    else body.replaceChildren(element('p', 'wb-empty', {}, data.live ? 'The curves appear with the first step.' : 'This run ended before its first step.'));
    for (const chart of charts.values()) await plot(Plotly, chart, answer);
  }

  function cardOf(spec) {
    let chart = charts.get(spec.key);
    if (!chart) {
      const card = element('article', spec.wide ? 'wb-card wb-wide' : 'wb-card', { 'data-chart': spec.key });
      const head = element('header', 'wb-head');
      const plot = element('div', 'wb-plot', { role: 'img', tabindex: '-1' });
      head.append(element('h4', '', spec.help ? { title: spec.help } : {}, spec.title), element('span', 'wb-unit', {}, spec.unit), element('ul', 'wb-legend'));
      card.append(head, plot);
      chart = { card, plot, legend: head.lastChild };
      charts.set(spec.key, chart);
      resized.observe(plot);
    }
    return Object.assign(chart, { spec });
  }

  async function plot(Plotly, chart, answer) {
    const { spec } = chart, traces = [];
    chart.index = new Map(); chart.values = new Map(); chart.points = 0;
    const put = (name, trace) => { chart.index.set(name, traces.length); chart.points = Math.max(chart.points, trace.x.length); traces.push(trace); };
    spec.series.forEach(([metric, label], number) => {
      const colour = colourOf(label, number), curve = answer.train?.[metric], held = answer.held_out?.[metric];
      const line = { width: 2, color: colour };
      if (curve && spec.stacked) put(`${metric}:raw`, { x: curve.raw[0], y: curve.raw[1], name: label, mode: 'lines', stackgroup: 'one', line: { width: 0.8, color: colour }, fillcolor: fade(colour, 0.45), hovertemplate: '%{y:.3~g}' });
      else if (curve && curve.smooth && spec.smooth) {
        put(`${metric}:raw`, { x: curve.raw[0], y: curve.raw[1], mode: 'lines', line: { width: 1, color: fade(colour, 0.28) }, hoverinfo: 'skip' });
        put(`${metric}:smooth`, { x: curve.smooth[0], y: curve.smooth[1], name: label, mode: 'lines', line, hovertemplate: '%{y:.4~g}' });
      } else if (curve) put(`${metric}:raw`, { x: curve.raw[0], y: curve.raw[1], name: label, mode: 'lines', line, hovertemplate: '%{y:.4~g}' });
      const heldColour = spec.series.length > 1 ? colour : theme.palette[2];
      if (held && !spec.stacked) put(`${metric}:held`, { x: held[0], y: held[1], name: spec.series.length > 1 ? `${label}, held out` : 'held out', mode: 'lines+markers', line: { width: 1.6, color: heldColour, dash: 'dot' }, marker: { size: 6, symbol: 'diamond', color: heldColour }, hovertemplate: '%{y:.4~g}' });
      if (curve) chart.values.set(metric, { label, colour, value: curve.last });
      if (held && !spec.stacked) chart.values.set(`${metric}:held`, { label: spec.series.length > 1 ? `${label}, held out` : 'held out', colour: heldColour, value: held[1].at(-1), dot: true });
    });
    await Plotly.react(chart.plot, traces, layout(spec), { displayModeBar: false, responsive: true, doubleClickDelay: 400 });
    chart.plot.wbDrawn = true;
    describe(chart);
  }

  async function append(Plotly, chart, answer) {
    const x = [], y = [], indices = [];
    const add = (name, points) => {
      if (!points || !points[0].length || !chart.index.has(name)) return;
      indices.push(chart.index.get(name)); x.push(points[0]); y.push(points[1]); chart.points += points[0].length;
    };
    for (const [metric] of chart.spec.series) {
      const curve = answer.train?.[metric], held = answer.held_out?.[metric];
      if (curve) {
        add(`${metric}:raw`, curve.raw); add(`${metric}:smooth`, curve.smooth);
        if (chart.values.has(metric)) chart.values.get(metric).value = curve.last;
      }
      if (held) { add(`${metric}:held`, held); if (chart.values.has(`${metric}:held`)) chart.values.get(`${metric}:held`).value = held[1].at(-1); }
    }
    if (!indices.length) return;
    await Plotly.extendTraces(chart.plot, { x, y }, indices);
    describe(chart);
  }

  function describe(chart) {
    chart.legend.replaceChildren(...[...chart.values.values()].map(({ label, colour, value, dot }) => {
      const item = element('li'), swatch = element('i', dot ? 'wb-dot' : '', { 'aria-hidden': 'true' });
      swatch.style.setProperty('--swatch', colour);
      item.append(swatch, `${label} `, element('b', typeof value === 'string' ? 'wb-bad' : '', {}, show(value)));
      return item;
    }));
    const now = [...chart.values.values()].map(({ label, value }) => `${label} ${show(value)}`).join(', ');
    chart.plot.setAttribute('aria-label', `${chart.spec.title}${chart.spec.unit ? ` in ${chart.spec.unit}` : ''} by ${data.axis}; now ${now}`);
    chart.card.dataset.points = Math.max(0, ...(chart.plot.data ?? []).map((trace) => trace.x.length));
    chart.card.dataset.last = Math.max(...(chart.plot.data ?? []).map((trace) => trace.x.at(-1) ?? 0));
  }

  const colourOf = (label, number) => theme.palette[SERIES_COLOUR[label] ?? number % theme.palette.length];

  function layout(spec) {
    const axis = { gridcolor: theme.grid, linecolor: theme.grid, zeroline: false, automargin: true, tickfont: { size: 11, color: theme.muted }, nticks: 6, exponentformat: 'e', fixedrange: false };
    return {
      height: spec.wide ? 260 : 214, margin: { l: 46, r: 10, t: 6, b: 36 }, showlegend: false, uirevision: `${data.run}:${data.axis}`, hovermode: 'x unified',
      font: { family: theme.font, size: 12, color: theme.ink }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      hoverlabel: { bgcolor: theme.surface, bordercolor: theme.grid, font: { color: theme.ink, size: 12 } },
      // half steps there are none: the axis is wide enough for whole ones from the first step on
      xaxis: { ...axis, showgrid: false, ...(data.axis === 'step' ? { autorangeoptions: { include: 6 } } : {}), title: { text: data.axis === 'step' ? 'step' : 'training time (minutes)', font: { size: 11, color: theme.muted }, standoff: 6 }, hoverformat: '~r', unifiedhovertitle: { text: data.axis === 'step' ? 'step %{x}' : '%{x:.1f} min' } },
      yaxis: { ...axis, rangemode: spec.stacked || spec.group === 'Speed and memory' ? 'tozero' : 'normal' },
    };
  }

  const live = {
    update(now) {
      data = now;
      const wanted = [data.run, data.smoothing, data.axis, JSON.stringify(colours(root))].join('|');
      if (wanted !== signature) { signature = wanted; restart(); }
    },
    stop() { stopped = true; clearTimeout(timer); resized.disconnect(); document.removeEventListener('visibilitychange', wake); for (const { plot } of charts.values()) window.Plotly?.purge(plot); },
  };
  const wake = () => { if (!document.hidden) schedule(0); };
  document.addEventListener('visibilitychange', wake);
  live.update(first);
  return live;
}

function colours(root) {
  const style = getComputedStyle(root), read = (name) => style.getPropertyValue(`--st-${name}`).trim();
  return { ink: read('text-color'), muted: read('gray-text-color') || read('gray-color'), grid: read('dataframe-border-color'), surface: read('background-color'), font: read('font'), palette: read('chart-categorical-colors').split(',').map((colour) => colour.trim()) };
}

function element(tag, className = '', attributes = {}, words = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (words) made.textContent = words;
  return made;
}

const fade = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, '0');

function show(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'string') return value;
  if (value < 0) return `−${show(-value)}`;
  if (value >= 1000) return Math.round(value).toLocaleString('en');
  return value && value < 1e-3 ? value.toExponential(2) : value.toPrecision(4).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}
