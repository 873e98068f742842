// A run's charts: they draw a whole answer, and append what came after it. Where answers, plotly and the words come from, the host knows:
//   host.plotly()   a promise of plotly
//   host.key()      what the drawn answers are of; zoom is kept while it is the same
//   host.axis()     'step' or 'time'
//   host.empty()    what to say while there is no curve
//   host.lazy       draw only the charts that are on the screen, and points that move a curve by less than half a pixel together, every TOGETHER_MS
// Of points, x and y are both arrays of the same kind: plain or typed.
const THIN_AGAIN = 3000, TOGETHER_MS = 1200;
const DASHES = ['solid', 'dash', 'dot', 'dashdot'];   // past the palette's end
const SERIES_COLOUR = { chosen: 1, rejected: 4 };

function runCharts(root, host) {
  const banner = element('p', 'wb-banner', { role: 'status', hidden: '' });
  const body = element('div', 'wb-groups');
  body.append(element('p', 'wb-empty', {}, 'Loading the curves…'));
  root.replaceChildren(banner, body);
  const charts = new Map();   // chart key -> {spec, card, plot, lines, index, values, points, seen, waiting}
  let theme = colours(root), busyMs = 0;
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => target.wbDrawn && target.offsetWidth && window.Plotly.Plots.resize(target)));
  const looked = host.lazy ? new IntersectionObserver(onLooked, { rootMargin: '150px' }) : null;

  function onLooked(entries) {
    for (const { target, isIntersecting } of entries) {
      const chart = charts.get(target.dataset.chart);
      if (chart) { chart.seen = isIntersecting; flush(chart); }
    }
  }
  const visible = (chart) => !looked || (chart.seen && !document.hidden);
  const onShown = () => { if (!document.hidden) charts.forEach(flush); };
  if (looked) document.addEventListener('visibilitychange', onShown);

  // What a chart has to draw waits until it is seen: its lines as a whole, and the points after them.
  function flush(chart) {
    chart.turn = chart.turn.catch(() => {}).then(async () => {
      while (chart.waiting && visible(chart) && chart.card.isConnected) {
        const Plotly = await host.plotly(), { lines, more } = chart.waiting;
        chart.waiting = null;
        clearTimeout(chart.later); chart.later = undefined;
        const began = performance.now();
        if (lines) await react(Plotly, chart, lines);
        if (more.size) await Plotly.extendTraces(chart.plot, { x: [...more.values()].map(({ x }) => joined(x)), y: [...more.values()].map(({ y }) => joined(y)) }, [...more.keys()]);
        measure(chart);
        busyMs += performance.now() - began;
      }
    });
    return chart.turn;
  }

  async function draw(answer) {
    if (answer.reset) {
      theme = colours(root);
      return layOut(answer);
    }
    await Promise.all([...charts.values()].map((chart) => append(chart, answer)));
  }

  function drop(chart) { resized.unobserve(chart.plot); looked?.unobserve(chart.card); window.Plotly?.purge(chart.plot); chart.card.remove(); charts.delete(chart.spec.key); }

  async function layOut(answer) {
    const keys = new Set(answer.charts.map((spec) => spec.key));
    for (const [key, chart] of charts) if (!keys.has(key)) drop(chart);
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
    else body.replaceChildren(element('p', 'wb-empty', {}, host.empty()));
    await Promise.all([...charts.values()].map((chart) => whole(chart, answer)));
  }

  function cardOf(spec) {
    let chart = charts.get(spec.key);
    if (!chart) {
      const card = element('article', spec.wide ? 'wb-card wb-wide' : 'wb-card', { 'data-chart': spec.key });
      const head = element('header', 'wb-head');
      const plot = element('div', 'wb-plot', { role: 'img', tabindex: '-1' });
      head.append(element('h4', '', spec.help ? { title: spec.help } : {}, spec.title), element('span', 'wb-unit', {}, spec.unit), element('ul', 'wb-legend'));
      card.append(head, plot);
      chart = { card, plot, legend: head.lastChild, waiting: null, turn: Promise.resolve(), seen: false, index: new Map(), values: new Map(), points: 0 };
      charts.set(spec.key, chart);
      resized.observe(plot);
      looked?.observe(card);
    }
    return Object.assign(chart, { spec });
  }

  function whole(chart, answer) {
    const lines = [];   // {name, metric, label, number, kind, x, y}
    chart.values = new Map();
    chart.spec.series.forEach(([metric, label], number) => {
      const curve = answer.train?.[metric], held = chart.spec.stacked ? undefined : answer.held_out?.[metric];
      const smooth = curve?.smooth && chart.spec.smooth && !chart.spec.stacked;
      if (curve) lines.push({ name: `${metric}:raw`, label, number, kind: smooth ? 'faint' : 'line', x: curve.raw[0], y: curve.raw[1] });
      if (smooth) lines.push({ name: `${metric}:smooth`, label, number, kind: 'line', x: curve.smooth[0], y: curve.smooth[1] });
      if (held) lines.push({ name: `${metric}:held`, label, number, kind: 'held', x: held[0], y: held[1] });
      if (curve) chart.values.set(metric, { label, number, value: curve.last });
      if (held) chart.values.set(`${metric}:held`, { label: chart.spec.series.length > 1 ? `${label}, held out` : 'held out', number, value: held[1].at(-1), held: true });
    });
    chart.index = new Map(lines.map(({ name }, place) => [name, place]));
    chart.points = Math.max(0, ...lines.map(({ x }) => x.length));
    describe(chart);
    chart.waiting = { lines, more: new Map() };
    return flush(chart);
  }

  async function react(Plotly, chart, lines) {
    chart.lines = lines;
    await Plotly.react(chart.plot, lines.map((line) => trace(chart.spec, line)), layout(chart.spec), { displayModeBar: false, responsive: true, doubleClickDelay: 400 });
    chart.plot.wbDrawn = true;
  }

  function trace(spec, { label, number, kind, x, y }) {
    const colour = colourOf(spec, label, number, kind === 'held');
    if (kind === 'held') return { x, y, name: spec.series.length > 1 ? `${label}, held out` : 'held out', mode: 'lines+markers', line: { width: 1.6, color: colour, dash: 'dot' }, marker: { size: 6, symbol: 'diamond', color: colour }, hovertemplate: '%{y:.4~g}' };
    if (kind === 'faint') return { x, y, mode: 'lines', line: { width: 1, color: fade(colour, 0.28) }, hoverinfo: 'skip' };
    if (spec.stacked) return { x, y, name: label, mode: 'lines', stackgroup: 'one', line: { width: 0.8, color: colour }, fillcolor: fade(colour, 0.45), hovertemplate: '%{y:.3~g}' };
    return { x, y, name: label, mode: 'lines', line: { width: 2, color: colour, dash: DASHES[Math.floor(number / theme.palette.length) % DASHES.length] }, hovertemplate: '%{y:.4~g}' };
  }

  function append(chart, answer) {
    const more = chart.waiting?.more ?? new Map();
    let longest = 0;
    const add = (name, points) => {
      if (!points || !points[0].length || !chart.index.has(name)) return;
      const place = chart.index.get(name), known = more.get(place) ?? { x: [], y: [] };
      known.x.push(points[0]); known.y.push(points[1]);
      more.set(place, known);
      longest = Math.max(longest, points[0].length);
    };
    for (const [metric] of chart.spec.series) {
      const curve = answer.train?.[metric], held = answer.held_out?.[metric];
      if (curve) {
        add(`${metric}:raw`, curve.raw); add(`${metric}:smooth`, curve.smooth);
        if (chart.values.has(metric)) chart.values.get(metric).value = curve.last;
      }
      if (held) { add(`${metric}:held`, held); if (chart.values.has(`${metric}:held`)) chart.values.get(`${metric}:held`).value = held[1].at(-1); }
    }
    if (!longest) return undefined;
    chart.points += longest;
    chart.waiting ??= { lines: null, more };
    describe(chart);
    if (!looked || chart.waiting.lines || moves(chart, more)) return flush(chart);
    chart.later ??= setTimeout(() => flush(chart), TOGETHER_MS);
    return undefined;
  }

  // Whether the points that wait can be seen: they lie outside the axes, or half a pixel on.
  function moves(chart, more) {
    const { xaxis, yaxis } = chart.plot._fullLayout ?? {};
    if (!xaxis?.range || !yaxis?.range) return true;
    const [left, right] = xaxis.range, pixel = (right - left) / chart.plot.clientWidth;
    return [...more.values()].some(({ x, y }) => x.some((piece) => piece.at(-1) > right + pixel / 2) || y.some((piece) => piece.some((value) => value < yaxis.range[0] || value > yaxis.range[1])));
  }

  function describe(chart) {
    chart.legend.replaceChildren(...[...chart.values.values()].map(({ label, number, value, held }) => {
      const item = element('li'), swatch = element('i', held ? 'wb-dot' : '', { 'aria-hidden': 'true' });
      swatch.style.setProperty('--swatch', colourOf(chart.spec, label, number, held));
      item.append(swatch, `${label} `, element('b', typeof value === 'string' ? 'wb-bad' : '', {}, show(value)));
      return item;
    }));
    const now = [...chart.values.values()].map(({ label, value }) => `${label} ${show(value)}`).join(', ');
    chart.plot.setAttribute('aria-label', `${chart.spec.title}${chart.spec.unit ? ` in ${chart.spec.unit}` : ''} by ${host.axis()}; now ${now}`);
  }

  function measure(chart) {
    chart.card.dataset.points = Math.max(0, ...(chart.plot.data ?? []).map((trace) => trace.x.length));
    chart.card.dataset.last = Math.max(...(chart.plot.data ?? []).map((trace) => trace.x.at(-1) ?? 0));
  }

  function colourOf(spec, label, number, held) {
    if (held && spec.series.length === 1) return theme.palette[2];
    return theme.palette[SERIES_COLOUR[label] ?? number % theme.palette.length];
  }

  function layout(spec) {
    const axis = { gridcolor: theme.grid, linecolor: theme.grid, zeroline: false, automargin: true, tickfont: { size: 11, color: theme.muted }, nticks: 6, exponentformat: 'e', fixedrange: false };
    const steps = host.axis() === 'step';
    return {
      height: spec.wide ? 260 : 214, margin: { l: 46, r: 10, t: 6, b: 36 }, showlegend: false, uirevision: `${host.key()}:${host.axis()}`, hovermode: 'x unified',
      font: { family: theme.font, size: 12, color: theme.ink }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
      hoverlabel: { bgcolor: theme.surface, bordercolor: theme.grid, font: { color: theme.ink, size: 12 } },
      // half steps there are none: the axis is wide enough for whole ones from the first step on
      xaxis: { ...axis, showgrid: false, ...(steps ? { autorangeoptions: { include: 6 } } : {}), title: { text: steps ? 'step' : 'training time (minutes)', font: { size: 11, color: theme.muted }, standoff: 6 }, hoverformat: '~r', unifiedhovertitle: { text: steps ? 'step %{x}' : '%{x:.1f} min' } },
      yaxis: { ...axis, rangemode: spec.stacked || spec.group === 'Speed and memory' ? 'tozero' : 'normal' },
    };
  }

  return {
    draw,
    say(words) { banner.hidden = !words; if (banner.textContent !== words) banner.textContent = words; },
    // so many points came one by one that the whole is worth asking for again, thinned
    long: () => [...charts.values()].some((chart) => chart.points > THIN_AGAIN),
    busyMs: () => busyMs,
    themed: () => JSON.stringify(colours(root)) === JSON.stringify(theme),
    async recolour() {
      theme = colours(root);
      await Promise.all([...charts.values()].map((chart) => {
        describe(chart);
        if (!chart.waiting?.lines && chart.lines) {
          const lines = chart.lines.map((line, place) => ({ ...line, x: chart.plot.data[place].x, y: chart.plot.data[place].y }));
          chart.waiting = { lines, more: chart.waiting?.more ?? new Map() };
        }
        return flush(chart);
      }));
    },
    stop() {
      resized.disconnect(); looked?.disconnect(); document.removeEventListener('visibilitychange', onShown);
      for (const { plot, later } of charts.values()) { clearTimeout(later); window.Plotly?.purge(plot); }
    },
  };
}

function colours(root) {
  const style = getComputedStyle(root), read = (name) => style.getPropertyValue(`--wb-${name}`).trim();
  return { ink: read('ink'), muted: read('muted'), grid: read('grid'), surface: read('surface'), font: read('font'), palette: read('palette').split(',').map((colour) => colour.trim()) };
}

function element(tag, className = '', attributes = {}, words = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (words) made.textContent = words;
  return made;
}

function joined(arrays) {
  if (arrays.length === 1) return arrays[0];
  if (Array.isArray(arrays[0])) return arrays.flat();
  const all = new arrays[0].constructor(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const each of arrays) { all.set(each, at); at += each.length; }
  return all;
}

const fade = (colour, alpha) => colour + Math.round(alpha * 255).toString(16).padStart(2, '0');

function show(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'string') return value;
  if (value < 0) return `−${show(-value)}`;
  if (value >= 1000) return Math.round(value).toLocaleString('en');
  return value && value < 1e-3 ? value.toExponential(2) : value.toPrecision(4).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}
