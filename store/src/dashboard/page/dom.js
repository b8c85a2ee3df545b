// What is wanted is described anew each time, and what is there is changed only where it differs: so
// focus, and what is under a pointer, stay.

const SVG = 'http://www.w3.org/2000/svg';
const keys = new WeakMap();

/** An element that is wanted. `key` tells it from others of its kind. */
export const h = (tag, attributes, ...children) => {
  const { key, ...rest } = attributes ?? {};
  return { tag, key, attributes: rest, children };
};

/** What there is, without what there isn't. */
const present = (children) => children.flat(9)
  .filter((child) => child !== null && child !== undefined && child !== false && child !== '');

/** Makes the children of a node what is wanted. */
export function patch(parent, children, svg = false) {
  const wanted = present(children);
  const named = new Set(wanted.map((child) => child.key).filter((key) => key !== undefined));
  for (const node of [...parent.childNodes]) {
    const key = keys.get(node);
    if (key !== undefined && !named.has(key)) node.remove();
  }
  const byKey = new Map();
  for (const node of parent.childNodes) {
    if (keys.has(node)) byKey.set(keys.get(node), node);
  }
  let next = parent.firstChild;
  for (const child of wanted) {
    const node = found(child, next, byKey) ?? made(child, svg);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    if (typeof child === 'object') dress(node, child, svg || child.tag === 'svg');
    else if (node.data !== String(child)) node.data = String(child);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

function found(child, next, byKey) {
  if (typeof child !== 'object') return next?.nodeType === Node.TEXT_NODE ? next : undefined;
  const node = child.key === undefined ? next : byKey.get(child.key);
  const fits = node && node.nodeType === Node.ELEMENT_NODE && node.localName === child.tag;
  return fits && keys.get(node) === child.key ? node : undefined;
}

function made(child, svg) {
  if (typeof child !== 'object') return document.createTextNode(String(child));
  const node = svg || child.tag === 'svg'
    ? document.createElementNS(SVG, child.tag)
    : document.createElement(child.tag);
  if (child.key !== undefined) keys.set(node, child.key);
  return node;
}

function dress(node, { attributes, children }, svg) {
  for (const { name } of [...node.attributes]) {
    // Whether details are open is the reader's affair.
    if (!(name in attributes) && name !== 'open') node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node[name] = value;
    else if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
  patch(node, children, svg);
}

// By how much the server's clock is ahead of this one's: times are told by the server's.
let ahead = 0;

export const setClock = (at) => {
  ahead = Date.parse(at) - Date.now();
};

export const now = () => Date.now() + ahead;

/** A time in milliseconds, as people say it. */
export function span(millis) {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** How often. */
export const times = (count) => (count === 1 ? 'once' : `${count} times`);

const two = (number) => String(number).padStart(2, '0');

/** A moment to the second, by the reader's clock. */
export function exact(moment) {
  const date = new Date(moment);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** "12 s ago", and the exact time for whoever points at it or moves to it. */
export const ago = (at) => when(at, `${span(now() - Date.parse(at))} ago`);

/** "for 12 s", likewise; where nobody saw its beginning, "for at least 12 s". */
export const since = (at, atLeast = false) => when(
  at,
  `for ${atLeast ? 'at least ' : ''}${span(now() - new Date(at).getTime())}`,
);

/** "in 4 s", or what is said when that is over. */
export const until = (moment, over) => when(
  moment,
  moment - now() > 0 ? `in ${span(Math.max(1000, moment - now()))}` : over,
);

function when(at, text) {
  const moment = typeof at === 'number' ? at : Date.parse(at);
  return h('time', { class: 'when', datetime: new Date(moment).toISOString(), tabindex: '0' },
    text, h('span', { class: 'exact' }, ` (${exact(moment)})`));
}

// A shape for each meaning, beside its word and its colour.
const SHAPES = {
  good: { tag: 'circle', cx: 6, cy: 6, r: 5 },
  bad: { tag: 'rect', x: 1, y: 1, width: 10, height: 10 },
  warn: { tag: 'path', d: 'M6 0.5 L11.8 11 L0.2 11 Z' },
  half: { tag: 'path', d: 'M6 1 A5 5 0 0 0 6 11 Z M6 1 A5 5 0 0 1 6 11' },
  idle: { tag: 'circle', cx: 6, cy: 6, r: 4.2 },
};

/** The shape of a meaning. Its word stands beside it. */
export function mark(kind, attributes = {}) {
  const { tag, ...shape } = SHAPES[kind];
  return h('svg', {
    class: `mark ${kind}`, viewBox: '0 0 12 12', width: 12, height: 12, 'aria-hidden': 'true', ...attributes,
  }, h(tag, shape));
}

/** A word with its shape. */
export const badge = (kind, word) => h('span', { class: `badge ${kind}` }, mark(kind), word);
