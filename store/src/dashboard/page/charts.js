// How much, how much of it fails, and how long it takes: from the counts that each service pushes.

import { badge, h } from './dom.js';
import { condition } from './map.js';

// How long a chart looks back, and over how long a rate is taken.
const BACK = 120_000;
const OVER = 2500;

const samples = new Map();

/** Keeps what was pushed. */
export function keep(services) {
  for (const { name, state, overview } of services) {
    const of = samples.get(name) ?? [];
    samples.set(name, of);
    if (state !== 'here' || !overview) continue;
    const at = Date.parse(overview.at);
    const last = of.at(-1);
    if (last && at <= last.at && last.replica === overview.replica) continue;
    const breakers = Object.fromEntries(overview.breakers.map((one) => [one.name, one]));
    of.push({ at, replica: overview.replica, traffic: overview.traffic, breakers });
    while (of.length && of[0].at < at - BACK - OVER) of.shift();
  }
}

/** The one to compare with: of the same replica, some seconds before. */
function before(of, number) {
  const sample = of[number];
  let found;
  for (let index = number - 1; index >= 0; index -= 1) {
    const other = of[index];
    if (other.replica !== sample.replica || sample.at - other.at > 3 * OVER) break;
    found = other;
    if (sample.at - other.at >= OVER) break;
  }
  return found;
}

/** What happened between two samples. */
function between(one, other) {
  const seconds = (other.at - one.at) / 1000;
  const count = other.traffic.requests - one.traffic.requests;
  const failures = other.traffic.failures - one.traffic.failures;
  const took = other.traffic.took.map((value, place) => value - one.traffic.took[place]);
  const within = (part) => {
    if (!count) return null;
    let left = count * part;
    const place = took.findIndex((value) => (left -= value) <= 0);
    return other.traffic.bounds[place] ?? 2 * other.traffic.bounds.at(-1);
  };
  return { rate: count / seconds, failed: count ? failures / count : 0, p50: within(0.5), p99: within(0.99) };
}

/** What goes through a breaker at present. */
export function rates(service, name) {
  const of = samples.get(service) ?? [];
  const last = of.length - 1;
  const one = last > 0 ? before(of, last) : undefined;
  const [then, recent] = [one?.breakers[name], of[last]?.breakers[name]];
  if (!then || !recent) return {};
  const seconds = (of[last].at - one.at) / 1000;
  // Permits that came to nothing are no calls: a ledger asks for them to see whether it may begin.
  const count = recent.successes + recent.failures - then.successes - then.failures;
  return {
    rate: count / seconds,
    failed: count ? Math.min(1, (recent.failures - then.failures) / count) : 0,
    rejected: (recent.rejected - then.rejected) / seconds,
  };
}

const [WIDTH, HEIGHT] = [120, 30];

/** Lines over the last two minutes, the highest of all at the top. */
function chart(label, value, points, lines, least) {
  const end = points.at(-1)?.at ?? 0;
  const most = Math.max(least, ...lines.flatMap(({ of }) => points.map(of).filter((y) => y !== null)));
  const paths = lines.map(({ kind, of }) => {
    let drawn = false;
    let last;
    const path = points.map((point) => {
      const y = of(point);
      // Nothing is known of the time between.
      if (y === null || (last !== undefined && point.at - last > 3000)) drawn = false;
      last = point.at;
      if (y === null) return '';
      const step = `${drawn ? 'L' : 'M'}${(WIDTH * (1 - (end - point.at) / BACK)).toFixed(1)} ${(HEIGHT - 2 - (HEIGHT - 4) * (y / most)).toFixed(1)}`;
      drawn = true;
      return step;
    }).join('');
    return path && h('path', { class: kind, d: path });
  });
  return h('div', { class: 'chart' },
    h('span', { class: 'quiet' }, label), ' ', h('b', {}, value),
    h('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${label}: ${value}` },
      h('path', { class: 'ground', d: `M0 ${HEIGHT - 1}H${WIDTH}` }), paths));
}

const number = (rate) => (rate >= 10 ? String(Math.round(rate)) : rate.toFixed(1));

export function showTraffic(services) {
  return [h('ul', { class: 'cards' }, services.map((service) => {
    const of = samples.get(service.name) ?? [];
    const points = of.flatMap((sample, index) => {
      const one = before(of, index);
      return one ? [{ at: sample.at, ...between(one, sample) }] : [];
    });
    const last = service.state === 'here' ? points.at(-1) : undefined;
    const some = last && last.rate > 0;
    const bulkheads = (service.state === 'here' ? service.overview?.bulkheads ?? [] : []);
    return h('li', { key: service.name },
      h('h3', {}, service.name, ' ', badge(...condition(service))),
      chart('Requests', last ? `${number(last.rate)}/s` : 'unknown', points, [{ kind: 'line', of: (point) => point.rate }], 1),
      chart('Answered 5xx', last ? `${Math.round(last.failed * 100)} %` : 'unknown', points, [{ kind: 'line bad', of: (point) => point.failed }], 0.1),
      chart('Half / 99 % within', some ? `${last.p50} / ${last.p99} ms` : last ? 'no requests' : 'unknown', points,
        [{ kind: 'line faint', of: (point) => point.p99 }, { kind: 'line', of: (point) => point.p50 }], 10),
      bulkheads.map((one) => h('p', { class: 'quiet', key: one.name },
        `${one.name.replace('requests/', 'at a time, ')}: ${one.inFlight} of ${one.limit}, ${one.waiting} wait, ${one.rejected} shed so far`)));
  }))];
}
