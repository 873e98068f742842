// The notebook's charts get their points from the kernel as buffers. `runCharts` is in workbench/views/static/charts.js.
const BEAT_MS = 15000, SILENT_MS = 60000, PLOTLY_MS = 60000, RETRY_MS = 1000;

// One plotly for all widgets of the page: the first view that needs it asks its kernel.
function loadPlotly(ask) {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  window.wbPlotly ??= Promise.race([
    ask().then(async (packed) => {
      const source = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))).blob();
      const guarded = new Blob(['(function (define, module, exports) {', source, '\n}).call(window);'], { type: 'text/javascript' });
      await new Promise((done, failed) => {
        const script = document.createElement('script');
        script.src = URL.createObjectURL(guarded);
        script.onload = done;
        script.onerror = () => failed(new Error('the browser did not run plotly'));
        document.head.append(script);
      });
      return window.Plotly;
    }),
    new Promise((_, failed) => setTimeout(() => failed(new Error('plotly did not come')), PLOTLY_MS)),
  ]).catch((error) => { window.wbPlotly = undefined; throw error; });
  return window.wbPlotly;
}

function unpack(content, buffers) {
  const bytes = ({ buffer, byteOffset, byteLength }) => buffer.slice(byteOffset, byteOffset + byteLength);  // aligned, and without what else came with it
  const xs = new Float64Array(bytes(buffers[0])), ys = new Float32Array(bytes(buffers[1]));
  const points = (place) => place && [xs.slice(place[0], place[0] + place[2]), ys.slice(place[1], place[1] + place[2])];
  const each = (curves, of) => curves && Object.fromEntries(Object.entries(curves).map(([name, curve]) => [name, of(curve)]));
  return {
    ...content,
    train: each(content.train, ({ raw, smooth, last }) => ({ raw: points(raw), smooth: points(smooth), last })),
    held_out: each(content.held_out, points),
  };
}

function render({ model, el }) {
  const view = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join('');
  const root = element('div', 'wb-charts');
  el.classList.add('wb-notebook');
  el.append(root);
  let cursor = '', axis = 'step', going = true, heard = Date.now(), stopped = false, turn = Promise.resolve(), given = null, hellos = 0, retry;
  const say = (kind, more = {}) => model.send({ kind, view, ...more });
  // JupyterLab's first messages may wait behind a long cell, later ones go to a subshell of the kernel: hello is said until there is an answer.
  function hello() {
    cursor = '';
    hellos += 1;
    const again = () => { if (stopped) return; say('hello', { number: hellos }); clearTimeout(retry); retry = setTimeout(again, RETRY_MS); };
    again();
  }
  const charts = runCharts(root, {
    plotly: async () => {
      for (;;) {
        try {
          return await loadPlotly(() => new Promise((done) => {
            const asking = setInterval(() => { if (stopped) clearInterval(asking); else say('plotly'); }, 5 * RETRY_MS);
            given = (packed) => { clearInterval(asking); done(packed); };
            say('plotly');
          }));
        } catch (error) {
          if (stopped) throw error;
          charts.say(`The curves wait for the kernel: ${error.message}.`);
        }
      }
    },
    key: () => view,
    axis: () => axis,
    empty: () => (going ? 'The curves appear with the first step.' : 'There are no curves: it ended before its first step.'),
    lazy: true,
  });

  function onMessage(content, buffers) {
    heard = Date.now();
    if (content.to && !content.to.includes(view)) return;
    if (content.kind === 'plotly') given?.(buffers[0]);
    else if (content.kind === 'say') charts.say(content.words);
    else if (content.kind === 'curves') turn = turn.then(() => onCurves(content, buffers)).catch((error) => { charts.say(`These curves cannot be drawn: ${error.message}.`); console.error(error); });
  }

  async function onCurves(content, buffers) {
    if (stopped) return;
    if (!content.reset && content.since !== cursor) { if (cursor) hello(); return; }
    clearTimeout(retry);
    ({ cursor, axis, going } = content);
    charts.say('');
    const began = performance.now();
    charts.draw(unpack(content, buffers)).then(() => {
      const { dataset } = root;   // what was drawn, and what it took, for measurements
      root.wbBusyMs = charts.busyMs;
      Object.assign(dataset, { cursor: content.cursor, draws: +(dataset.draws ?? 0) + 1, madeMs: content.made_ms, drawnMs: performance.now() - began });
    }).catch((error) => { charts.say(`These curves cannot be drawn: ${error.message}.`); console.error(error); });
    if (charts.long()) hello();
  }

  const beat = setInterval(() => {
    if (!going) return;
    say('beat');
    if (Date.now() - heard > SILENT_MS) charts.say('No news from the kernel for a minute: it is busy, or it has ended. Run the cell again if it has.');
  }, BEAT_MS);
  const themed = new MutationObserver(() => { if (!charts.themed()) charts.recolour(); });
  themed.observe(document.body, { attributes: true });
  const leave = () => say('bye');
  window.addEventListener('pagehide', leave);
  model.on('msg:custom', onMessage);
  setTimeout(hello);
  return () => {
    stopped = true;
    clearTimeout(retry);
    clearInterval(beat); themed.disconnect(); window.removeEventListener('pagehide', leave); model.off('msg:custom', onMessage);
    charts.stop();
    say('bye');
  };
}

export default { render };
