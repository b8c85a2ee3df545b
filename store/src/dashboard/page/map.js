// The four services, and who calls whom.

import { h, mark, since, times } from './dom.js';
import { breakersOf, called, probe, STATES } from './trouble.js';

// Where they are when there is room, and when there isn't: no two calls cross.
const WIDE = {
  width: 720, height: 330, box: [132, 54],
  at: { store: [80, 44], order: [360, 150], warehouse: [640, 44], warranty: [360, 294] },
};
const NARROW = {
  width: 358, height: 380, box: [102, 52],
  at: { store: [53, 32], order: [179, 140], warehouse: [305, 32], warranty: [179, 348] },
};

const narrow = matchMedia('(max-width: 640px)');

const SERVICE = { here: ['good', 'here'], away: ['bad', 'away'], refusing: ['warn', 'refuses'], unknown: ['idle', 'unknown'] };

/** How a service is: its database counts. */
export function condition(service) {
  if (service.state === 'here' && service.overview?.rows.unknownSince) return ['warn', 'no database'];
  return SERVICE[service.state];
}

const SEVERITY = ['closed', 'forced_closed', 'half_open', 'forced_open', 'open'];

/** Each call between two services, with the worst of its breakers. */
function edges(services) {
  const known = new Set(services.map(({ name }) => name));
  const worst = new Map();
  for (const service of services) {
    for (const breaker of breakersOf(service).filter((one) => known.has(one.dependency))) {
      const key = `${service.name} → ${breaker.dependency}`;
      const before = worst.get(key);
      if (!before || SEVERITY.indexOf(breaker.state) > SEVERITY.indexOf(before.state)) {
        worst.set(key, { key, from: service.name, to: breaker.dependency, state: breaker.state, stale: service.state !== 'here' });
      }
    }
  }
  return [...worst.values()];
}

/** Where a line from one box to another leaves the first. */
function border([x, y], [toX, toY], [width, height], gap) {
  const [dx, dy] = [toX - x, toY - y];
  const scale = Math.min((width / 2 + gap) / Math.abs(dx || 1e-9), (height / 2 + gap) / Math.abs(dy || 1e-9));
  return [x + dx * scale, y + dy * scale];
}

export function showMap(services) {
  const { width, height, box, at } = narrow.matches ? NARROW : WIDE;
  const calls = edges(services);
  const lines = calls.map(({ key, from, to, state, stale }) => {
    const [[x1, y1], [x2, y2]] = [border(at[from], at[to], box, 2), border(at[to], at[from], box, 8)];
    const [kind, word] = stale ? SERVICE.unknown : STATES[state];
    const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
    const room = word.length * 7.8 + 28;
    return h('g', { key, class: `call ${kind}` },
      h('line', { x1, y1, x2, y2, 'marker-end': 'url(#arrow)' }),
      h('rect', { class: 'label', x: x - room / 2, y: y - 11, width: room, height: 22, rx: 4 }),
      mark(kind, { x: x - room / 2 + 5, y: y - 6 }),
      h('text', { x: x + 8, y: y + 4 }, word));
  });
  const boxes = services.filter(({ name }) => at[name]).map((service) => {
    const [x, y] = at[service.name];
    const [kind, word] = condition(service);
    return h('g', { key: service.name, class: `service ${kind}` },
      h('rect', { x: x - box[0] / 2, y: y - box[1] / 2, width: box[0], height: box[1], rx: 6 }),
      h('text', { class: 'name', x, y: y - 5 }, service.name),
      mark(kind, { x: x - word.length * 3.6 - 12, y: y + 6 }),
      h('text', { x: x + 6, y: y + 16 }, word));
  });
  const told = [
    ...services.map((service) => `${service.name}: ${condition(service)[1]}`),
    ...calls.map(({ from, to, state, stale }) => `${from} calls ${to}: ${stale ? 'unknown' : `breaker ${STATES[state][1]}`}`),
  ].join('; ');
  return [h('svg', { class: 'map', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': told },
    h('defs', {}, h('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 11, markerHeight: 11, markerUnits: 'userSpaceOnUse', orient: 'auto' },
      h('path', { d: 'M0 0 L8 4 L0 8 Z' }))),
    lines, boxes)];
}

const perSecond = (rate) => (rate === undefined ? '' : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s`);

/** What goes through, in words. */
function flow(rate, failed, rejected) {
  const through = rate ? `${perSecond(rate)}, ${Math.round(failed * 100)} % failed` : 'no calls';
  return rejected ? `${through}, ${perSecond(rejected)} rejected` : through;
}

/** Each breaker: what it is, since when, why, and what comes next. `rates` knows how much goes through. */
export function showBreakers(services, rates) {
  const all = services.flatMap((service) => breakersOf(service).map((breaker) => ({ service, breaker })));
  if (!all.length) return [h('p', { class: 'quiet' }, 'None is known yet.')];
  return [h('ul', { class: 'rows breakers' }, all.map(({ service, breaker }) => {
    const stale = service.state !== 'here';
    const [kind, word] = stale ? ['idle', `was ${STATES[breaker.state][1]}`] : STATES[breaker.state];
    const next = stale ? null : probe(service, breaker);
    const { rate, failed, rejected } = rates(service.name, breaker.name);
    return h('li', { key: `${service.name} ${breaker.name}`, class: kind },
      h('span', { class: 'who' }, h('b', {}, service.name), ' → ', h('b', {}, called(breaker))),
      h('span', { class: 'state' }, h('span', { class: `badge ${kind}` }, mark(kind), word), ' ',
        stale ? null : since(breaker.since)),
      h('span', { class: 'why' }, breaker.reason ? `${breaker.state === 'closed' ? 'last failure: ' : ''}${breaker.reason}` : (breaker.opened ? `opened ${times(breaker.opened)} since its start` : 'never opened since its start')),
      h('span', { class: 'next' }, next),
      h('span', { class: 'numbers' },
        stale || rate === undefined ? '' : flow(rate, failed, rejected)));
  }))];
}

/** Drawn anew where there is more room, or less. */
export const onTurn = (draw) => narrow.addEventListener('change', draw);
