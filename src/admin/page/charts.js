// Requests and latency over the last minutes. Both charts share one cursor.

const CHART = { height: 168, left: 52, right: 8, top: 8, bottom: 22 };
const WINDOW_MS = 15 * 60000;
const MIN_WINDOW_MS = 2 * 60000;

/** What the charts are drawn from, and the sample under the cursor. */
const chartData = { samples: [], backends: [], nowMs: 0, cursor: null };

const perSecond = (sample, n) => (n * 1000) / Math.max(1, sample.span_ms);

/** The next number upwards that reads well, and whose half does. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((round) => round >= value * 0.999);
}

/** How far back the charts go: a quarter of an hour, less after a start. */
function spanOf(samples, nowMs) {
  const first = samples.length > 0 ? samples[0].at_ms : nowMs;
  return Math.min(WINDOW_MS, Math.max(MIN_WINDOW_MS, nowMs - first));
}

/** Scales from 0 to a round number that is `highest` or more. */
function linear(highest) {
  const top = roundUp(highest);
  return { part: (value) => value / top, ticks: [0, top / 2, top] };
}

/** Scales over whole powers of ten. */
function logarithmic(lowest, highest) {
  const low = Math.floor(Math.log10(lowest));
  const high = Math.max(low + 1, Math.ceil(Math.log10(highest)));
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  return { part: (value) => (Math.log10(Math.max(value, ticks[0])) - low) / (high - low), ticks };
}

/** Where moments and values are in a chart. */
function frame(width, scale) {
  const { samples, nowMs } = chartData;
  const span = spanOf(samples, nowMs);
  const right = width - CHART.right;
  const base = CHART.height - CHART.bottom;
  return {
    span, right, base, width, ticks: scale.ticks,
    x: (ms) => CHART.left + (right - CHART.left) * (1 - (nowMs - ms) / span),
    y: (value) => base - (base - CHART.top) * Math.min(1, scale.part(value)),
    shown: samples.filter((sample) => sample.at_ms > nowMs - span - 5000),
  };
}

const path = (points) => points.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

function axes(area, label) {
  const lines = area.ticks.flatMap((tick, i) => {
    const y = area.y(tick);
    return [
      svg('path', { d: `M${CHART.left} ${y.toFixed(1)}H${area.right}`, class: i === 0 ? 'base' : 'grid' }),
      svg('text', { x: CHART.left - 8, y: y + 4, 'text-anchor': 'end' }, label(tick).replace('.0', '')),
    ];
  });
  const minutes = area.span / 60000;
  const step = [0.5, 1, 2, 5].find((size) => minutes / size <= area.width / 75) ?? 5;
  for (let back = 0; back <= minutes + 0.01; back += step) {
    const x = area.x(chartData.nowMs - back * 60000);
    const anchor = back === 0 ? 'end' : 'middle';
    const words = back === 0 ? 'now' : back < 1 ? `−${back * 60} s` : `−${back} min`;
    lines.push(svg('text', { x, y: CHART.height - 5, 'text-anchor': anchor }, words));
  }
  return lines;
}

function cursorLine(area) {
  const { cursor } = chartData;
  if (!cursor) return [];
  const x = area.x(cursor.at_ms).toFixed(1);
  return [svg('path', { d: `M${x} ${CHART.top}V${area.base}`, class: 'cursor' })];
}

/** Areas of the backends on top of each other, so that the upper edge is the total. */
function rateLayers(area) {
  const lower = area.shown.map(() => 0);
  return chartData.backends.flatMap((backend) => {
    const upper = area.shown.map((sample, i) => {
      const own = sample.backends.find((one) => one.id === backend.id);
      return lower[i] + (own ? perSecond(sample, own.requests) : 0);
    });
    if (upper.every((value, i) => value === lower[i])) return [];
    const edge = (values) => area.shown.map((sample, i) => [area.x(sample.at_ms), area.y(values[i])]);
    const d = `${path([...edge(upper), ...edge([...lower]).reverse()])}Z`;
    upper.forEach((value, i) => { lower[i] = value; });
    return [svg('path', { d, class: chartData.backends.length > MAX_LABELS ? 'tint layer thin' : 'tint layer', ...tint(backend.id) })];
  });
}

function drawRate(width) {
  const highest = Math.max(1, ...chartData.samples.map((sample) => perSecond(sample, sample.requests)));
  const area = frame(width, linear(highest));
  const total = area.shown.map((sample) => [area.x(sample.at_ms), area.y(perSecond(sample, sample.requests))]);
  const failed = area.shown.filter((sample) => sample.failed > 0).map((sample) =>
    svg('rect', { x: (area.x(sample.at_ms) - 1.5).toFixed(1), y: area.base, width: 3, height: 5, class: 'failed' }));
  return [...axes(area, rate), ...rateLayers(area), svg('path', { d: path(total), class: 'line total' }), ...failed, ...cursorLine(area)];
}

function drawLatency(width) {
  const asked = chartData.samples.filter((sample) => sample.p50_us !== null);
  const lowest = Math.min(1000, ...asked.map((sample) => Math.max(1, sample.p50_us)));
  const area = frame(width, logarithmic(lowest, Math.max(1000, ...asked.map((sample) => sample.p99_us))));
  const line = (key) => {
    let isBroken = true;
    return area.shown.map((sample) => {
      const value = sample[key];
      const command = isBroken ? 'M' : 'L';
      isBroken = value === null;
      return isBroken ? '' : `${command}${area.x(sample.at_ms).toFixed(1)} ${area.y(value).toFixed(1)}`;
    }).join('');
  };
  return [
    ...axes(area, micros),
    svg('path', { d: line('p99_us'), class: 'line p99' }),
    svg('path', { d: line('p50_us'), class: 'line p50' }),
    ...cursorLine(area),
  ];
}

const figure = (words, value, kind) => html('span', { class: kind }, value, html('small', {}, words));

function rateReadout(sample) {
  return [
    figure(' /s', rate(perSecond(sample, sample.requests))),
    figure(' failed', count(sample.failed), sample.failed > 0 ? 'alarm' : undefined),
  ];
}

function latencyReadout(sample) {
  if (sample.p50_us === null) return [figure('', 'no requests')];
  return [figure(' half within', micros(sample.p50_us), 'of-p50'), figure(' 99 of 100', micros(sample.p99_us), 'of-p99')];
}

const CHARTS = [
  { name: 'rate', draw: drawRate, readout: rateReadout, title: 'Requests per second' },
  { name: 'latency', draw: drawLatency, readout: latencyReadout, title: 'Latency of the backends' },
];

function redrawCharts() {
  const sample = chartData.cursor ?? chartData.samples.at(-1);
  for (const { name, draw, readout, title } of CHARTS) {
    const root = byId(name);
    const width = Math.max(200, root.clientWidth);
    const words = sample ? readout(sample) : [figure('', 'no sample yet')];
    const when = chartData.cursor ? [html('time', {}, moment(sample.at_ms))] : [];
    byId(`${name}-readout`).replaceChildren(...words, ...when);
    const picture = root.firstElementChild;
    picture.setAttribute('viewBox', `0 0 ${width} ${CHART.height}`);
    picture.setAttribute('aria-label', `${title}: ${byId(`${name}-readout`).textContent}. Left and right arrow keys show earlier moments.`);
    picture.replaceChildren(...draw(width));
  }
}

function moveCursor(ms) {
  const { samples } = chartData;
  const distance = (sample) => Math.abs(sample.at_ms - ms);
  chartData.cursor = ms === null || samples.length === 0 ? null
    : samples.reduce((best, sample) => (distance(sample) < distance(best) ? sample : best));
  redrawCharts();
}

function follow(event) {
  const box = event.currentTarget.getBoundingClientRect();
  const area = frame(box.width, linear(1));
  const part = (event.clientX - box.left - CHART.left) / (area.right - CHART.left);
  moveCursor(chartData.nowMs - (1 - part) * area.span);
}

function step(event) {
  const { samples, cursor } = chartData;
  const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === 'Escape') moveCursor(null);
  if (!steps || samples.length === 0) return;
  event.preventDefault();
  const index = (cursor ? samples.indexOf(cursor) : samples.length - 1) + steps;
  moveCursor(index >= samples.length ? null : samples[Math.max(0, index)].at_ms);
}

function beginCharts() {
  for (const { name } of CHARTS) {
    const picture = svg('svg', { role: 'img', tabindex: 0, height: CHART.height });
    picture.addEventListener('pointermove', follow);
    picture.addEventListener('pointerleave', () => moveCursor(null));
    picture.addEventListener('blur', () => moveCursor(null));
    picture.addEventListener('keydown', step);
    byId(name).append(picture);
    new ResizeObserver(redrawCharts).observe(byId(name));
  }
}

function showCharts(samples, backends, nowMs) {
  const cursor = samples.find((sample) => sample.at_ms === chartData.cursor?.at_ms) ?? null;
  Object.assign(chartData, { samples, backends, nowMs, cursor });
  redrawCharts();
}

/** The request rate of one backend as a small line. */
function sparkline(id, samples, nowMs, highest) {
  const [width, height] = [96, 22];
  const span = spanOf(samples, nowMs);
  const points = samples.filter((sample) => sample.at_ms > nowMs - span - 5000).map((sample) => {
    const own = sample.backends.find((one) => one.id === id);
    const value = own ? perSecond(sample, own.requests) : 0;
    return [width * (1 - (nowMs - sample.at_ms) / span), height - 1 - (height - 3) * Math.min(1, value / highest)];
  });
  if (points.length < 2) return svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'spark', 'aria-hidden': 'true' });
  const fill = `${path(points)}L${points.at(-1)[0].toFixed(1)} ${height}L${points[0][0].toFixed(1)} ${height}Z`;
  return svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'spark tint', 'aria-hidden': 'true', ...tint(id) },
    svg('path', { d: fill, class: 'spark-fill' }), svg('path', { d: path(points), class: 'spark-line' }));
}
