// The ring as a picture. The outer band is who serves; where slots are not steady, the inner band
// is where their sessions may still be, with the stage as its texture.

const RING = { width: 470, height: 372, outer: 136, middle: 106, inner: 84, label: 150 };
const MAX_LABELS = 12;
const MIN_LABEL_SLOTS = SLOTS * 0.025;

/** The parts of the ring in order: steady slots of each backend, then its others. */
function segments({ backends, under_way: underWay }) {
  const byName = new Map(backends.map((backend) => [backend.name, backend]));
  return backends.map((backend) => {
    const own = underWay.filter((work) => work.first === backend.name);
    const parts = own.map(({ stage, label, second, slots }) => ({ stage, label, slots, second: byName.get(second) }));
    const steady = backend.slots_first - sum(own, (work) => work.slots);
    return { backend, parts: [{ stage: 'steady', slots: Math.max(0, steady) }, ...parts] };
  });
}

function point(radius, turn) {
  const angle = (turn - 0.25) * 2 * Math.PI;
  return `${(radius * Math.cos(angle)).toFixed(2)} ${(radius * Math.sin(angle)).toFixed(2)}`;
}

/** A sector of a band between two radii, from one share of a turn to another. */
function sector(outside, inside, from, to) {
  if (to - from > 0.99999) {
    return `${circle(outside)}${circle(inside)}`;
  }
  const large = to - from > 0.5 ? 1 : 0;
  return `M${point(outside, from)}A${outside} ${outside} 0 ${large} 1 ${point(outside, to)}` +
    `L${point(inside, to)}A${inside} ${inside} 0 ${large} 0 ${point(inside, from)}Z`;
}

const circle = (r) => `M${r} 0A${r} ${r} 0 1 1 ${-r} 0A${r} ${r} 0 1 1 ${r} 0Z`;

const hatch = (id, size, turn, shapes) =>
  svg('pattern', { id: `hatch-${id}`, width: size, height: size, patternUnits: 'userSpaceOnUse', patternTransform: `rotate(${turn})` },
    ...shapes.map((d) => svg('path', { d, class: 'hatch' })));

/** Textures in the colour of the card, laid over the colour of a backend. */
const textures = () => svg('defs', {},
  hatch('settle', 4, 0, []),
  hatch('move1', 6, 45, ['M0 0H6V2.8H0Z']),
  hatch('move2', 6, 45, ['M0 0H6V2.8H0Z']),
  hatch('turned', 6, 135, ['M0 0H6V2.8H0Z']),
  hatch('suspect', 5, 45, ['M0 0H5V1.5H0Z', 'M0 0V5H1.5V0Z']),
  hatch('away', 5, 0, ['M0 0H5V5H0ZM1.2 1.2V3.8H3.8V1.2Z']),
  hatch('back', 5, 0, ['M0 0H5V2H0Z']),
  hatch('wait', 5, 90, ['M0 0H5V2H0Z']));

function arcs(list) {
  const nodes = [];
  const labels = [];
  let turn = 0;
  for (const { backend, parts } of list) {
    const begin = turn;
    for (const { stage, label, slots, second } of parts) {
      const from = turn;
      turn += slots / SLOTS;
      if (!second || slots === 0) continue;
      const d = sector(RING.middle - 4, RING.inner, from, turn);
      const says = `${second.name} to ${backend.name}, ${label}: ${share(slots)}`;
      nodes.push(svg('g', {}, svg('title', {}, says),
        svg('path', { d, class: 'tint arc', 'fill-rule': 'evenodd', ...tint(second.id) }),
        svg('path', { d, fill: `url(#hatch-${stage})`, 'fill-rule': 'evenodd' })));
    }
    if (turn === begin) continue;
    const says = `${backend.name}: ${share((turn - begin) * SLOTS)}`;
    nodes.push(svg('g', {}, svg('title', {}, says),
      svg('path', { d: sector(RING.outer, RING.middle, begin, turn), class: 'tint arc', 'fill-rule': 'evenodd', ...tint(backend.id) })));
    labels.push({ backend, slots: (turn - begin) * SLOTS, at: (begin + turn) / 2 });
  }
  return { nodes, labels };
}

const short = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

function ringLabel({ backend, slots, at }) {
  const [x, y] = point(RING.label, at).split(' ').map(Number);
  const middle = Math.abs(x) < 30;
  const anchor = middle ? 'middle' : x > 0 ? 'start' : 'end';
  const rise = y < 0 ? -12 : middle ? 12 : 6;
  return svg('text', { x, y: y + rise, 'text-anchor': anchor, class: 'ring-label' },
    svg('tspan', { class: 'ring-name' }, short(backend.name, middle ? 24 : 12)),
    svg('tspan', { x, dy: '1.25em', class: 'ring-share' }, share(slots)));
}

/** What stands in the middle: the one thing to know of the slots. */
function heart({ backends, slots }) {
  const moving = sum(HANDOVER, (stage) => slots[stage]);
  if (backends.length === 0) return ['–', 'no backend'];
  if (refusedSlots(backends) > 0) return [share(refusedSlots(backends)), 'refused'];
  if (slots.away > 0) return [share(slots.away), 'failed over'];
  if (moving > 0) return [share(moving), 'on the move'];
  if (slots.back + slots.wait > 0) return [share(slots.back + slots.wait), 'returning'];
  const waiting = sum(backends, (backend) => backend.slots_waiting);
  if (waiting > 0) return [share(waiting), 'waiting to move'];
  const owners = backends.filter((backend) => backend.slots_first > 0).length;
  return [count(owners), owners === 1 ? 'backend, all at home' : 'backends, all at home'];
}

function drawRing(status) {
  const { nodes, labels } = arcs(segments(status));
  const withLabels = labels.length > MAX_LABELS ? [] : labels.filter((label) => label.slots >= MIN_LABEL_SLOTS);
  const [big, small] = heart(status);
  const says = `Who serves which share: ${labels.map(({ backend, slots }) => `${backend.name} ${share(slots)}`).join(', ') || 'nobody'}. ${big} ${small}.`;
  const { width, height } = RING;
  return svg('svg', { viewBox: `${-width / 2} ${-height / 2} ${width} ${height}`, class: labels.length > MAX_LABELS ? 'ring fine' : 'ring', role: 'img', 'aria-label': says },
    textures(),
    svg('path', { d: circle(RING.outer) + circle(RING.middle), class: 'ring-track', 'fill-rule': 'evenodd' }),
    ...nodes,
    ...withLabels.map(ringLabel),
    svg('text', { y: 2, 'text-anchor': 'middle', class: 'ring-big' }, big),
    svg('text', { y: 22, 'text-anchor': 'middle', class: 'ring-small' }, small));
}

/** What the textures mean, of those that there are. */
function drawKey(works) {
  if (works.length === 0) return [html('p', { class: 'quiet' }, 'Outside: who serves.')];
  const labels = new Map();
  for (const { stage, label, slots } of works) {
    const known = labels.get(label)?.slots ?? 0;
    labels.set(label, { stage, slots: known + slots });
  }
  const swatch = (stage) => svg('svg', { class: 'texture', viewBox: '0 0 22 12', 'aria-hidden': 'true' },
    svg('rect', { width: 22, height: 12, rx: 2, class: 'texture-base' }),
    svg('rect', { width: 22, height: 12, rx: 2, fill: `url(#hatch-${stage})` }));
  return [
    html('p', { class: 'quiet' }, 'Outside: who serves. Inside: where sessions may still be.'),
    html('ul', {}, ...[...labels].map(([label, { stage, slots }]) =>
      html('li', {}, swatch(stage), html('span', {}, label), html('b', {}, share(slots))))),
  ];
}

function showRing(status) {
  const { slots, under_way: underWay } = status;
  const backends = status.backends.map(({ id, name, slots_first, slots_refused, slots_waiting }) => ({ id, name, slots_first, slots_refused, slots_waiting }));
  const works = underWay.map(({ stage, label, first, second, slots: n }) => ({ stage, label, first, second, slots: n }));
  show(byId('ring'), [backends, works, slots], () => drawRing(status));
  show(byId('ring-key'), works, drawKey);
}
