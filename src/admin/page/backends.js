// The backends: a table where there is room, cards where there is not.

const NONE = '–';

/**
 * The columns. Those with `when` are there only if a backend has something to show in them; cards
 * leave out what is idle.
 */
const COLUMNS = [
  { title: 'Backend', draw: nameCell },
  { title: 'State', draw: stateCell },
  { title: 'Share', draw: shareCell },
  { title: 'Sessions', draw: sessionsCell, when: ({ sessions }) => typeof sessions === 'number' },
  { title: 'Copies', draw: copiesCell, when: ({ copies }) => typeof copies?.filled_percent === 'number' },
  { title: 'Used', draw: usedCell, when: ({ used_percent: used, engine }) => typeof used === 'number' || engine },
  { title: 'Requests', draw: rateCell },
  { title: 'Latency', draw: latencyCell },
  { title: 'Moved here', draw: movedCell, isIdle: (backend) => backend.moved_here + backend.absent_while_away === 0 },
  { title: 'Pending deletes', draw: pendingCell, isIdle: (backend) => backend.pending_deletes === 0 },
];

/** Bars of shares end here: an even share fills half of one. */
const fullBar = (backends) => Math.min(SLOTS, (2 * SLOTS) / backends.length);

const lines = (main, ...more) => [
  html('span', { class: 'main' }, main),
  ...more.filter(Boolean).map((line) => html('span', { class: 'more' }, line)),
];

function nameCell({ backend }) {
  return [
    html('div', { class: 'who' },
      html('i', { class: 'swatch tint', ...tint(backend.id), 'aria-hidden': 'true' }),
      html('span', { class: 'main name' }, backend.name),
      html('span', { class: 'more' }, `${backend.address} · id ${backend.id}`)),
  ];
}

/** How a backend is, in one word, and how much that matters. */
function condition({ state, verdict }) {
  if (state === 'off') return ['off', 'rest'];
  return [verdict, { up: 'good', suspect: 'warn', down: 'bad' }[verdict] ?? 'rest'];
}

function stateCell({ backend, nowMs }) {
  const [word, level] = condition(backend);
  const badges = [html('span', { class: 'badge', 'data-level': level }, word)];
  if (backend.state === 'drain') badges.push(html('span', { class: 'badge', 'data-level': 'busy' }, 'draining'));
  if (backend.state === 'removed') badges.push(html('span', { class: 'badge', 'data-level': 'busy' }, 'leaving'));
  if (backend.override) badges.push(html('span', { class: 'badge', 'data-level': 'rest' }, 'by override'));
  const since = word === 'off' ? undefined
    : html('span', { class: 'more', title: moment(backend.since_ms) }, `for ${duration(nowMs - backend.since_ms)}`);
  const reason = word !== 'off' && backend.reason ? html('span', { class: 'more reason' }, backend.reason) : undefined;
  return [html('span', { class: 'badges' }, ...badges), since, reason];
}

const meter = (percent, level, words) =>
  html('span', { class: 'meter', role: 'img', 'aria-label': words },
    html('i', { '--part': Math.min(1, Math.max(0, percent / 100)), 'data-level': level }));

function shareCell({ backend, full }) {
  const { slots_owned: owned, slots_first: first } = backend;
  const { slots_refused: refused, slots_waiting: waiting } = backend;
  const differs = owned !== first ? `serves ${share(first)} now` : undefined;
  const isRefused = refused > 0 ? html('span', { class: 'more alarm' }, `${share(refused)} refused`) : undefined;
  const waits = waiting > 0 ? `${share(waiting)} waiting` : undefined;
  const bar = html('span', { class: 'meter tint', ...tint(backend.id), 'aria-hidden': 'true' },
    html('i', { class: 'tinted', '--part': Math.min(1, owned / full) }));
  return [...lines(share(owned)), bar, ...lines('', differs, waits).slice(1), isRefused];
}

function sessionsCell({ backend }) {
  if (typeof backend.sessions !== 'number') return lines(NONE);
  const error = backend.sessions_error_percent;
  const about = error >= 0.05 ? ` ± ${tenth.format(error)} %` : '';
  return lines(`${count(backend.sessions)}${about}`, bytes(backend.session_bytes));
}

function copiesCell({ backend, nowMs }) {
  const { copies, slots_unprotected: unprotected } = backend;
  if (typeof copies?.filled_percent !== 'number') return lines(NONE);
  const kept = typeof copies.sessions === 'number' ? count(copies.sessions) : NONE;
  const fills = typeof copies.full_ms === 'number' ? `, full ${ending(copies.full_ms, nowMs)}` : '';
  const without = unprotected > 0
    ? html('span', { class: 'more' }, `serves ${share(unprotected)} without a copy`) : undefined;
  return [...lines(kept, `${count(copies.filled_percent)} % filled${fills}`), without];
}

function usedCell({ backend }) {
  const { used_percent: used, seconds_to_full: left, engine } = backend;
  const limit = typeof engine?.max_memory_bytes === 'number' ? ` of ${bytes(engine.max_memory_bytes)}` : '';
  const memory = engine ? `Redis: ${bytes(engine.memory_bytes)}${limit}` : undefined;
  if (typeof used !== 'number') return lines(NONE, memory);
  const isSoon = typeof left === 'number' && left < FULL_SOON_S;
  const level = used >= 100 ? 'bad' : used >= NEARLY_FULL_PERCENT || isSoon ? 'warn' : 'good';
  const until = typeof left === 'number' ? `full in ${duration(left * 1000)}`
    : typeof backend.sessions_per_minute === 'number' ? 'not filling up' : '';
  return [...lines(`${count(used)} %`), meter(used, level, `${count(used)} % used`), ...lines('', until, memory).slice(1)];
}

function rateCell({ own, last, spark }) {
  const words = own ? [rate(perSecond(last, own.requests)), html('small', {}, ' /s')] : [NONE];
  const failed = own?.failed > 0 ? html('span', { class: 'more alarm' }, `${rate(perSecond(last, own.failed))} failed /s`) : undefined;
  const refused = own?.refused > 0 ? html('span', { class: 'more alarm' }, `${rate(perSecond(last, own.refused))} refused with 400 /s`) : undefined;
  return [html('span', { class: 'with-spark' }, html('span', { class: 'main' }, ...words), spark()), failed, refused];
}

function latencyCell({ own }) {
  if (!own || own.p50_us === null) return lines(NONE);
  return lines(micros(own.p50_us), `99 %: ${micros(own.p99_us)}`);
}

function movedCell({ backend }) {
  const absent = backend.absent_while_away;
  return lines(count(backend.moved_here), absent > 0 ? `${count(absent)} lost while it was away` : undefined);
}

function pendingCell({ backend }) {
  return lines(count(backend.pending_deletes));
}

function backendsTable(columns) {
  const head = html('tr', { role: 'row' }, ...columns.map(({ title }) => html('th', { role: 'columnheader', scope: 'col' }, title)));
  return html('table', { role: 'table', class: 'backends' },
    html('thead', { role: 'rowgroup' }, head), html('tbody', { role: 'rowgroup', id: 'rows' }));
}

function rowOf(body, backend, columns) {
  const found = body.querySelector(`[data-id="${backend.id}"]`);
  return found ?? html('tr', { role: 'row', 'data-id': backend.id },
    ...columns.map(({ title }) => html('td', { role: 'cell', 'data-title': title })));
}

function countWords(backends) {
  const up = backends.filter((backend) => backend.state !== 'off' && backend.verdict !== 'down').length;
  return `${count(up)} of ${count(backends.length)} up`;
}

function showBackends(status, samples) {
  const { backends, now_ms: nowMs } = status;
  text(byId('backends-count'), backends.length > 0 ? countWords(backends) : '');
  const columns = COLUMNS.filter(({ when }) => !when || backends.some(when));
  const kind = backends.length === 0 ? [] : columns.map(({ title }) => title);
  show(byId('backends'), kind, () =>
    kind.length === 0 ? html('p', { class: 'empty' }, 'The partition map names no backend.') : backendsTable(columns));
  if (kind.length === 0) return;
  const last = samples.at(-1);
  const highest = Math.max(1, ...samples.flatMap((sample) => sample.backends.map((own) => perSecond(sample, own.requests))));
  const body = byId('rows');
  const rows = backends.map((backend) => {
    const row = rowOf(body, backend, columns);
    const own = last?.backends.find((one) => one.id === backend.id);
    const spark = () => sparkline(backend.id, samples, nowMs, highest);
    const facts = { backend, own, last, nowMs, spark, full: fullBar(backends) };
    columns.forEach(({ draw, isIdle }, i) => {
      const drawn = draw(facts).filter(Boolean);
      show(row.cells[i], drawn.map((node) => node.outerHTML), () => drawn);
      row.cells[i].classList.toggle('idle', isIdle?.(backend) ?? false);
    });
    row.dataset.level = condition(backend)[1];
    return row;
  });
  // Rows that stay in their order are not touched: focus and selection stay.
  const isSame = rows.length === body.children.length && rows.every((row, i) => row === body.children[i]);
  if (!isSame) body.replaceChildren(...rows);
}
