// Everything else: key figures, what is on the move, recent changes, the last reload, the peers.

const MOVES_SHOWN = 6;

function tiles(status, samples) {
  const last = samples.at(-1);
  const recent = samples.filter((sample) => sample.at_ms > status.now_ms - RECENT_MS);
  const { backends } = status;
  const failed = sum(recent, (sample) => sample.failed);
  const figures = [
    ['Requests', last ? rate(perSecond(last, last.requests)) : NONE, '/s'],
    ['Latency, 99 of 100', last?.p99_us != null ? micros(last.p99_us) : NONE, ''],
    ['Failed, last minute', samples.length > 0 ? count(failed) : NONE, '', failed > 0],
  ];
  if (backends.some((backend) => typeof backend.sessions === 'number')) {
    figures.push(['Sessions', count(sum(backends, (backend) => backend.sessions ?? 0)), '']);
    figures.push(['Held by sessions', bytes(sum(backends, (backend) => backend.session_bytes ?? 0)), '']);
  }
  if (backends.some((backend) => typeof backend.used_percent === 'number')) figures.push(firstFull(status));
  return figures;
}

/** When the first backend is full, or why nobody can say. */
function firstFull({ backends, under_way: underWay }) {
  const title = 'First one full in';
  const soonest = Math.min(...backends.map((backend) => backend.seconds_to_full ?? Infinity));
  if (Number.isFinite(soonest)) return [title, duration(soonest * 1000), ''];
  if (underWay.some(isHandover)) return [title, 'unknown while sessions move', ''];
  const without = backends.find((backend) => backend.state === 'active' && typeof backend.used_percent !== 'number');
  return [title, without ? `unknown: no capacity given for ${without.name}` : 'no time soon', ''];
}

function showTiles(status, samples) {
  show(byId('tiles'), tiles(status, samples), (figures) => figures.map(([title, value, unit, isAlarm]) => {
    const [, digits, rest] = /^([\d,.]+|–)?(.*)$/.exec(value);
    return html('div', {}, html('dt', {}, title),
      html('dd', { class: isAlarm ? 'alarm' : undefined }, digits ?? '', html('small', {}, ` ${rest.trim()}${unit}`)));
  }));
}

/** The part of the time that has passed; `null` when nobody knows the end. */
function progress({ began_ms: began, ends_ms: ends }, nowMs) {
  if (ends === null || ends <= began) return null;
  return Math.min(1, Math.max(0, (nowMs - began) / (ends - began)));
}

function ending(endsMs, nowMs) {
  const left = endsMs - nowMs;
  return left > 0 ? `in ${duration(left)}` : 'any moment';
}

function drawMove({ work, first, second, part, ends }) {
  const { stage, slots } = work;
  const bar = part === null ? html('span', { class: 'track none' })
    : html('span', { class: 'track tint', role: 'img', 'aria-label': `${count(part * 100)} % of the time`, ...tint(second.id) },
      html('i', { class: 'tint', '--part': part.toFixed(4), ...tint(first.id) }));
  return html('li', { title: work.means },
    html('span', { class: 'from' }, chip(second)),
    svg('svg', { class: 'arrow', viewBox: '0 0 16 10', role: 'img', 'aria-label': 'to' }, svg('path', { d: 'M1 5h13M10 1l4 4-4 4' })),
    html('span', { class: 'to' }, chip(first)),
    html('span', { class: 'stage', 'data-stage': stage }, work.label),
    bar,
    html('span', { class: 'slots' }, share(slots)),
    html('span', { class: 'ends' }, ends));
}

function drawMoves({ moves, summary }) {
  const nodes = [html('p', { class: 'summary' }, summary)];
  const shownMoves = moves.slice(0, MOVES_SHOWN);
  const rest = moves.slice(MOVES_SHOWN);
  if (shownMoves.length > 0) nodes.push(html('ul', { class: 'moves' }, ...shownMoves.map(drawMove)));
  if (rest.length > 0) {
    nodes.push(html('details', {}, html('summary', {}, `${count(rest.length)} more, ${share(sum(rest, (move) => move.work.slots))}`),
      html('ul', { class: 'moves' }, ...rest.map(drawMove))));
  }
  return nodes;
}

/** Backends that are to get sessions and do not yet. */
const waitingWords = (backends) => backends.filter((backend) => backend.slots_waiting > 0)
  .map((backend) => `${share(backend.slots_waiting)} of the sessions wait for ${backend.name}`);

/** The last failure after which sessions went on with their copies. */
function failoverWords({ last_failover: last, now_ms: nowMs }) {
  if (!last) return '';
  const sessions = typeof last.sessions === 'number' ? `about ${plural(last.sessions, 'session')}`
    : `the sessions of ${plural(last.slots, 'slot')}`;
  const pause = typeof last.pause_ms === 'number'
    ? ` after a pause of up to ${tenth.format(last.pause_ms / 1000)} s, ${plural(last.failed, 'request')} failed` : '';
  return `${duration(nowMs - last.at_ms)} ago ${last.backend} failed: ${sessions} went on at ${last.to.join(' and ')}${pause}.`;
}

const movesSummary = (status) => [summaryOfMoves(status), failoverWords(status)].filter(Boolean).join(' ');

function summaryOfMoves({ backends, under_way: underWay, now_ms: nowMs }) {
  const handovers = underWay.filter(isHandover);
  const refused = refusedSlots(backends);
  const waiting = waitingWords(backends);
  const others = [refused > 0 ? `Requests for ${share(refused)} of the sessions are refused.` : '',
    waiting.length > 0 ? `${waiting.slice(0, MOVES_SHOWN).join(', ')}.` : ''].filter(Boolean);
  if (handovers.length === 0 && others.length > 0) return `Nothing moves. ${others.join(' ')}`;
  if (underWay.length === 0) return 'Nothing. Every session is where the partition map wants it.';
  if (handovers.length === 0) return 'No handover. A backend has failed or returned:';
  const end = Math.max(...handovers.map((work) => work.ends_ms ?? Infinity));
  const when = end === Infinity ? 'which does not end while sessions cannot be moved' : end > nowMs ? `expected to end in ${duration(end - nowMs)}, at about ${hourAndMinute(end)}` : 'about to end';
  const slots = sum(handovers, (work) => work.slots);
  const empty = backends.filter((backend) => backend.empty_ms)
    .map(({ name, empty_ms: emptyMs }) => `${name} should be empty ${ending(emptyMs, nowMs)}.`);
  return [`A handover of ${share(slots)} of the sessions, ${plural(slots, 'slot')}, ${when}.`, ...empty, ...others].join(' ');
}

function showMoves(status) {
  const { backends, under_way: underWay, now_ms: nowMs } = status;
  const byName = new Map(backends.map(({ id, name }) => [name, { id, name }]));
  const unknown = (name) => byName.get(name) ?? { id: 0, name };
  const moves = underWay.map((work) => ({
    work,
    first: unknown(work.first),
    second: unknown(work.second),
    part: progress(work, nowMs),
    ends: work.ends_ms === null ? `for ${duration(nowMs - work.began_ms)}` : ending(work.ends_ms, nowMs),
  }));
  moves.sort((a, b) => b.work.slots - a.work.slots);
  const root = byId('moves');
  const isOpen = root.querySelector('details')?.open;
  show(root, { moves, summary: movesSummary(status) }, drawMoves);
  const details = root.querySelector('details');
  if (isOpen && details) details.open = true;
}

const EVENT_LEVELS = { warn: 'warn', error: 'bad' };

function showEvents(events) {
  show(byId('events'), events, (list) => {
    if (list.length === 0) return html('p', { class: 'empty' }, 'Nothing has changed since the proxy was started.');
    return html('ol', { class: 'events', tabindex: 0 }, ...[...list].reverse().map(({ at_ms: at, kind, level, backend, says }) =>
      html('li', { 'data-level': EVENT_LEVELS[level] ?? (kind === 'slots' ? 'busy' : 'good') },
        html('time', { datetime: new Date(at).toISOString() }, moment(at)),
        html('span', {}, backend ? html('b', {}, `${backend} `) : '', says))));
  });
}

const RESULTS = {
  applied: ['good', 'in force'],
  unchanged: ['rest', 'nothing new'],
  refused: ['bad', 'refused'],
};

function showReload(reload, mapVersion) {
  show(byId('reload'), [reload, mapVersion], () => {
    if (!reload) return html('p', { class: 'empty' }, `None since the start. Version ${mapVersion} of the partition map is in force.`);
    const [level, word] = RESULTS[reload.result] ?? ['rest', reload.result];
    const about = html('p', { class: 'about' }, html('span', { class: 'badge', 'data-level': level }, word), ` ${moment(reload.at_ms)}`);
    const version = html('p', { class: 'quiet' }, `Version ${reload.map_version} of the partition map is in force.`);
    const faults = reload.faults.map((fault) => html('li', {}, html('pre', {}, fault)));
    const restart = reload.needs_restart.length > 0 ? html('p', {}, `Needs a restart: ${reload.needs_restart.join(', ')}`) : undefined;
    return [about, version, faults.length > 0 ? html('ul', { class: 'faults', tabindex: 0 }, ...faults) : undefined, restart].filter(Boolean);
  });
}

function showPeers(peers, mapVersion) {
  show(byId('peers'), [peers, mapVersion], () => {
    if (peers.length === 0) return html('p', { class: 'empty' }, 'This proxy is alone: it has no peers.');
    return html('ul', { class: 'peers' }, ...peers.map((peer) => {
      const isOther = !peer.failure && (peer.map_version !== mapVersion || peer.overrides_differ);
      const [level, word] = peer.failure ? ['bad', 'silent'] : isOther ? ['warn', 'differs'] : ['good', 'answers'];
      return html('li', {}, html('span', { class: 'main name' }, peer.address), html('span', { class: 'badge', 'data-level': level }, word),
        html('span', { class: 'more' }, peer.failure ?? `version ${peer.map_version} of the partition map`));
    }));
  });
}

const APPLICATIONS_SHOWN = 8;

function drawApplication({ name, requests, requests_failed: failed, requests_renamed: renamed, sessions, session_bytes: size }, all) {
  const more = [sessions === null ? '' : `${plural(sessions, 'session')}, ${bytes(size)}`,
    failed > 0 ? `${plural(failed, 'request')} failed` : '', renamed > 0 ? `${count(renamed)} came under another id` : ''].filter(Boolean);
  return html('li', {}, html('span', { class: 'main name' }, name), html('span', { class: 'badge', 'data-level': 'rest' }, `${tenth.format(all > 0 ? (requests * 100) / all : 0)} %`),
    html('span', { class: 'more' }, more.join('; ')));
}

/** Those of the partition map, by their requests; a pool without any has no such card. */
function showApplications(applications) {
  byId('applications-card').hidden = applications.length === 0;
  show(byId('applications'), applications, () => {
    const all = sum(applications, ({ requests }) => requests);
    const ranked = [...applications].sort((a, b) => b.requests - a.requests);
    const rest = ranked.length - APPLICATIONS_SHOWN;
    return [html('ul', { class: 'peers' }, ...ranked.slice(0, APPLICATIONS_SHOWN).map((application) => drawApplication(application, all))),
      rest > 0 ? html('p', { class: 'quiet' }, `And ${plural(rest, 'application')} with fewer requests.`) : undefined].filter(Boolean);
  });
}
