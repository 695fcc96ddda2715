// What a person has to know first, in words.

const HANDOVER = ['settle', 'move1', 'move2', 'turned'];

const isHandover = (work) => HANDOVER.includes(work.stage);
const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);

const refusedSlots = (backends) => sum(backends, (backend) => backend.slots_refused);

const FULL_SOON_S = 3600;
const NEARLY_FULL_PERCENT = 90;
/** Failures are news for this long. */
const RECENT_MS = 60000;
/** So many findings of one kind are shown one by one. */
const MAX_ALIKE = 3;

/** How the levels of findings are drawn. */
const LEVELS = { critical: 'bad', warning: 'warn', info: 'busy' };
const drawnAs = ({ level }) => LEVELS[level] ?? 'warn';

/** How long it has lasted, and when it should be over. */
function times({ since_ms: since, until_ms: until }, nowMs) {
  const lasts = since === null ? [] : [`since ${moment(since)}`];
  const left = until === null ? [] : [until > nowMs ? `over in ${duration(until - nowMs)}` : 'should be over'];
  return [...lasts, ...left].join(', ');
}

/** One finding as it is listed: `{level, says, times, advice}`. */
function listed(finding, nowMs) {
  const { says, means, action } = finding;
  return { level: drawnAs(finding), says, times: times(finding, nowMs), advice: [`Users: ${means}`, `To do: ${action}`] };
}

/** The findings as they are listed: of many alike the first ones, and how many more there are. */
function listFindings(findings, nowMs) {
  const alike = new Map();
  for (const finding of findings) alike.set(finding.code, [...(alike.get(finding.code) ?? []), finding]);
  return [...alike.values()].flatMap((group) => {
    const few = group.slice(0, MAX_ALIKE).map((finding) => listed(finding, nowMs));
    const more = group.length - few.length;
    const named = group.slice(MAX_ALIKE).map(({ about }) => about).filter(Boolean).slice(0, MAX_ALIKE);
    const names = more > named.length ? [...named, '…'] : named;
    return more > 0 ? [...few, { level: drawnAs(group[0]), says: `${count(more)} more like this: ${names.join(', ')}`, times: '', advice: [] }] : few;
  });
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
  const host = memory.status ? `${memory.status.host} – ` : '';
  document.title = `${headline} – ${host}staterouter`;
  byId('findings').hidden = others.length === 0;
  show(byId('findings'), others, (list) =>
    list.map(({ level: of, says, times: when, advice }) => html('li', { 'data-level': of }, sentence(says),
      when ? html('span', { class: 'quiet' }, ` ${when}`) : undefined,
      ...advice.map((line) => html('span', { class: 'advice' }, line)))));
}

/** The verdict on a proxy that answers. */
function judge({ findings, now_ms: nowMs }) {
  const found = listFindings(findings, nowMs);
  const worst = found[0];
  if (!worst) {
    showVerdict('good', 'All well', []);
  } else if (worst.level === 'busy') {
    showVerdict('busy', 'All well', found);
  } else {
    // What it is stands in the headline already.
    showVerdict(worst.level, sentence(worst.says), [{ ...worst, says: '' }, ...found.slice(1)]);
  }
}

/** Names of backends stay as they are written. */
const sentence = (says) => (/^(the|requests|sessions|no|cannot|control|a) /.test(says) ? says[0].toUpperCase() + says.slice(1) : says);
