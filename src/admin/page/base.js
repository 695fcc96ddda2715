'use strict';

// Nodes, numbers in words, and the colour of each backend. Whatever comes from the proxy becomes
// text, never markup: the content security policy forbids anything else.

const SLOTS = 16384;
const SVG = 'http://www.w3.org/2000/svg';

const byId = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith('--')) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

const html = (tag, attributes = {}, ...children) =>
  build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

const shown = new WeakMap();

/** Draws into `node` only when `value` differs from last time: focus and selection stay. */
function show(node, value, draw) {
  const signature = JSON.stringify(value);
  if (shown.get(node) === signature) return;
  shown.set(node, signature);
  const drawn = draw(value);
  node.replaceChildren(...(Array.isArray(drawn) ? drawn : [drawn]));
}

const text = (node, value) => {
  if (node.textContent !== value) node.textContent = value;
};

const integer = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en-US', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

const count = (n) => integer.format(n);
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const rate = (n) => (n > 0 && n < 9.95 ? tenth.format(n) : count(n));

/** Slots as a share of all. */
function share(slots) {
  const percent = (slots * 100) / SLOTS;
  return percent > 0 && percent < 0.05 ? '< 0.1 %' : `${tenth.format(percent)} %`;
}


function micros(us) {
  if (us < 999.5) return `${count(us)} µs`;
  if (us < 9950) return `${tenth.format(us / 1e3)} ms`;
  if (us < 999500) return `${count(us / 1e3)} ms`;
  return `${tenth.format(us / 1e6)} s`;
}

function bytes(n) {
  let unit = 0;
  while (n >= 1023.5 && unit < 5) {
    n /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && n < 9.95 ? tenth : integer;
  return `${digits.format(n)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit]}`;
}

function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return `${s} s`;
  const min = Math.round(s / 60);
  if (min < 100) return `${min} min`;
  const h = Math.round(s / 3600);
  const two = (big, bigUnit, small, unit) => (small > 0 ? `${big} ${bigUnit} ${small} ${unit}` : `${big} ${bigUnit}`);
  if (min < 24 * 60) return two(Math.floor(min / 60), 'h', min % 60, 'min');
  if (h < 100 * 24) return two(Math.floor(h / 24), 'd', h % 24, 'h');
  return `${count(h / 24)} d`;
}

const clockFormat = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const dayFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/** A time of the proxy, with the day if it is not today's. */
function moment(ms) {
  const time = new Date(ms);
  const clock = clockFormat.format(time);
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? clock : `${dayFormat.format(time)}, ${clock}`;
}

const hourAndMinute = (ms) => clockFormat.format(new Date(ms)).slice(0, 5);

// Neighbours in this list differ as much as can be; further rounds differ in lightness.
const HUES = [255, 55, 170, 320, 120, 20, 215, 290, 85, 345, 145, 195, 270];
const ROUNDS = [0, -0.13, 0.1, -0.22, 0.16];
const ranks = new Map();

/** Gives each backend its colour. Those that come later take the next ones: nobody's changes. */
function rankBackends(backends) {
  const ids = backends.map((backend) => backend.id).sort((a, b) => a - b);
  for (const id of ids) if (!ranks.has(id)) ranks.set(id, ranks.size);
}

/** Attributes that set the colour of a backend for whatever has the class `tint`. */
function tint(id) {
  const rank = ranks.get(id) ?? 0;
  const round = Math.floor(rank / HUES.length) % ROUNDS.length;
  return { '--hue': HUES[rank % HUES.length], '--lift': ROUNDS[round] };
}

const chip = (backend) =>
  html('span', { class: 'chip', title: backend.name },
    html('i', { class: 'swatch tint', ...tint(backend.id), 'aria-hidden': 'true' }),
    html('span', { class: 'chip-name' }, backend.name));
