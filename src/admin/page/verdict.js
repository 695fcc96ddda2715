// What a person has to know first, in words.

/** Stages of a handover in their order, then those of a failure, and what each means. */
const STAGES = {
  settle: { label: 'settle', means: (from) => `still served by ${from}, nothing moves yet` },
  move1: { label: 'move 1', means: (from) => `sessions move when used, new ones begin at ${from}` },
  move2: { label: 'move 2', means: (_, to) => `sessions move when used, new ones begin at ${to}` },
  suspect: { label: 'suspect', means: (from) => `requests are refused: ${from} is down` },
  away: { label: 'away', means: (from, to) => `${to} stands in for ${from}` },
  back: { label: 'back', means: (from) => `${from} is back, what only it has is refused until every proxy knows` },
  wait: { label: 'wait', means: (from) => `${from} is back, sessions are served where they are` },
};
const HANDOVER = ['settle', 'move1', 'move2'];

const isHandover = (work) => HANDOVER.includes(work.stage);
const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);

const FULL_SOON_S = 3600;
const NEARLY_FULL_PERCENT = 90;
/** Failures are news for this long. */
const RECENT_MS = 60000;
/** A stage that lasts longer than it should by this is held up. */
const OVERDUE_MS = 60000;
/** So many backends are named one by one. */
const MAX_NAMED = 3;

/** All that is wrong or going on, the worst first: `{level, says}`, level `bad`, `warn` or `busy`. */
function findings(status, samples) {
  const found = [
    ...backendFindings(status),
    ...slotFindings(status),
    ...failureFindings(samples, status.now_ms),
    ...reloadFindings(status.last_reload),
    ...status.peers.flatMap((peer) => peerFindings(peer, status.map_version)),
  ];
  const order = { bad: 0, warn: 1, busy: 2 };
  return found.sort((a, b) => order[a.level] - order[b.level]);
}

function backendFindings(status) {
  const { backends } = status;
  const used = backends.filter((backend) => backend.state !== 'off');
  const down = used.filter((backend) => backend.verdict === 'down');
  const found = [];
  if (used.length === 0) {
    found.push({ level: 'bad', says: 'There is no backend to serve from' });
  } else if (down.length === used.length) {
    found.push({ level: 'bad', says: used.length === 1 ? 'The only backend is down' : `All ${count(used.length)} backends are down` });
  }
  const why = ({ reason }) => (reason ? `: ${reason}` : '');
  const suspect = used.filter((backend) => backend.verdict === 'suspect');
  return [
    ...found,
    ...each('bad', down, (backend) => `${backend.name} is down since ${moment(backend.since_ms)}${why(backend)}`, 'are down'),
    ...each('warn', suspect, (backend) => `${backend.name} failed lately${why(backend)}`, 'failed lately'),
    ...fullness(used),
  ];
}

function fullness(backends) {
  const soon = ({ seconds_to_full: left }) => left ?? Infinity;
  const full = backends.filter((backend) => (backend.used_percent ?? 0) >= 100);
  const filling = backends.filter((backend) => !full.includes(backend) && soon(backend) < FULL_SOON_S);
  const nearly = backends.filter((backend) => !full.includes(backend) && !filling.includes(backend) && backend.used_percent >= NEARLY_FULL_PERCENT);
  return [
    ...each('bad', full, (backend) => `${backend.name} is full`, 'are full'),
    ...each('warn', filling, (backend) => `${backend.name} is full in ${duration(soon(backend) * 1000)}`, `are full in less than ${duration(FULL_SOON_S * 1000)}`),
    ...each('warn', nearly, (backend) => `${backend.name} is ${count(Math.floor(backend.used_percent))} % full`, `are more than ${NEARLY_FULL_PERCENT} % full`),
  ];
}

/** A finding for each of a few backends, one for many. */
function each(level, backends, say, all) {
  if (backends.length <= MAX_NAMED) return backends.map((backend) => ({ level, says: say(backend) }));
  const some = backends.slice(0, MAX_NAMED).map((backend) => backend.name);
  return [{ level, says: `${count(backends.length)} backends ${all}: ${some.join(', ')} and ${count(backends.length - MAX_NAMED)} more` }];
}

function slotFindings({ slots, under_way: underWay, now_ms: nowMs }) {
  const found = [];
  const of = (n) => `${share(n)} of the sessions`;
  if (slots.suspect) found.push({ level: 'bad', says: `Requests for ${of(slots.suspect)} are refused` });
  if (slots.away) found.push({ level: 'warn', says: `Others stand in for ${of(slots.away)}: what the failed backend holds is out of reach` });
  if (slots.back) found.push({ level: 'warn', says: `A backend is back: some of ${of(slots.back)} are refused until every proxy knows` });
  if (slots.wait) found.push({ level: 'busy', says: `A backend is back: ${of(slots.wait)} are served at two places until outdated copies have died` });
  found.push(...underWay.filter((work) => isHandover(work) && nowMs > work.stage_ends_ms + OVERDUE_MS).map((work) => heldUp(work, nowMs)));
  const moving = underWay.filter(isHandover);
  if (moving.length > 0) {
    const left = Math.max(...moving.map((work) => work.ends_ms)) - nowMs;
    const end = left > 0 ? `, done in about ${duration(left)}` : ', about to be done';
    found.push({ level: 'busy', says: `A handover is under way: ${of(sum(moving, (t) => t.slots))}${end}` });
  }
  return found;
}

function heldUp({ stage, first, second, slots, stage_ends_ms: due }, nowMs) {
  const what = `The handover of ${share(slots)} of the sessions from ${second} to ${first}`;
  return { level: 'warn', says: `${what} is held up in ${STAGES[stage].label} for ${duration(nowMs - due)}` };
}

function failureFindings(samples, nowMs) {
  const recent = samples.filter((sample) => sample.at_ms > nowMs - RECENT_MS);
  const failed = sum(recent, (sample) => sample.failed);
  return failed > 0 ? [{ level: 'warn', says: `${plural(failed, 'request')} failed in the last minute` }] : [];
}

function reloadFindings(reload) {
  if (!reload) return [];
  if (reload.result === 'refused') {
    return [{ level: 'warn', says: `The last change of the files was refused at ${moment(reload.at_ms)}; what was in force stays` }];
  }
  const keys = reload.needs_restart;
  return keys.length > 0 ? [{ level: 'busy', says: `A restart is needed for ${keys.join(', ')}` }] : [];
}

function peerFindings(peer, version) {
  if (peer.failure) return [{ level: 'warn', says: `The proxy at ${peer.address} does not answer` }];
  if (peer.map_version !== null && peer.map_version !== version) {
    return [{ level: 'warn', says: `The proxy at ${peer.address} has version ${peer.map_version} of the partition map, this one ${version}` }];
  }
  if (peer.overrides_differ) {
    return [{ level: 'warn', says: `The proxy at ${peer.address} has other overrides than this one: give them to every proxy` }];
  }
  return [];
}

const MARKS = {
  good: 'M5 10.5l3.4 3.4L15 6.6',
  busy: 'M4.5 10h11M11 5.5l4.5 4.5L11 14.5',
  warn: 'M10 5v6M10 14.2v.3',
  bad: 'M6 6l8 8M14 6l-8 8',
  wait: 'M6 10h.2M10 10h.2M14 10h.2',
};

const ICON_COLOURS = { good: '#1f8a5b', busy: '#2f6fd6', warn: '#c98a00', bad: '#cf3a34', wait: '#808890' };

function showVerdict(level, headline, others) {
  const verdict = byId('verdict');
  if (verdict.dataset.level !== level || !byId('mark').hasChildNodes()) {
    verdict.dataset.level = level;
    byId('mark').replaceChildren(svg('svg', { viewBox: '0 0 20 20' }, svg('path', { d: MARKS[level] })));
    const icon = `<svg xmlns="${SVG}" viewBox="0 0 20 20"><rect width="20" height="20" rx="6" fill="${ICON_COLOURS[level]}"/><path d="${MARKS[level]}" fill="none" stroke="#fff" stroke-width="2.4" stroke-linecap="round" stroke-linejoin="round"/></svg>`;
    byId('icon').href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
  }
  text(byId('headline'), headline);
  document.title = `${headline} – staterouter`;
  byId('findings').hidden = others.length === 0;
  show(byId('findings'), others, (list) =>
    list.map(({ level: of, says }) => html('li', { 'data-level': of }, says)));
}

/** The verdict on a proxy that answers. */
function judge(status, samples) {
  const found = findings(status, samples);
  const worst = found[0];
  if (!worst) {
    showVerdict('good', 'All well', []);
  } else if (worst.level === 'busy') {
    showVerdict('busy', 'All well', found);
  } else {
    showVerdict(worst.level, worst.says, found.slice(1));
  }
}
