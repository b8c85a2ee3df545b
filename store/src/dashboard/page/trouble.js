// What is wrong now, worst first: what a person on call reads before anything else.

import { ago, h, mark, since, span, until } from './dom.js';

/** The breakers of a service that stand before other services: by the system that they are for. */
export const breakersOf = (service) => (service.overview?.breakers ?? []).map((breaker) => {
  const [dependency, operation] = breaker.name.split('/');
  return { ...breaker, dependency, operation, caller: service.name };
});

/** How a breaker's state is shown: its shape, and its word. */
export const STATES = {
  closed: ['good', 'closed'],
  open: ['bad', 'open'],
  half_open: ['half', 'half-open'],
  forced_open: ['bad', 'forced open'],
  forced_closed: ['warn', 'forced closed'],
};

/** When a breaker lets a call through that probes. */
export function probe(service, breaker) {
  if (breaker.state === 'half_open') return breaker.probes ? 'a call is probing' : 'probes with the next call';
  if (breaker.state === 'forced_open') return 'only when an operator resets it';
  if (breaker.state !== 'open') return null;
  const moment = Date.parse(service.overview.at) + (breaker.retryAfterMs ?? 0);
  return ['probes ', until(moment, 'with the next call')];
}

/** What is called what: work that is made later has a breaker of its own. */
export const called = (breaker) => (breaker.dependency === 'deferred'
  ? `deferred ${breaker.operation}`
  : breaker.name);

/** Whether all of them are here: what isn't asked yet may be wrong. */
export const isWell = (services) => services.every(({ state }) => state === 'here') && !troubles(services).length;

/** What is wrong: `say` is what is read out, `tell` what is shown. */
export function troubles(services) {
  const all = [];
  for (const service of services) {
    const { name, overview } = service;
    if (service.state === 'away') {
      all.push({ key: `away ${name}`, kind: 'bad', say: `${name} is away`,
        tell: [h('b', {}, `${name} is away`), ' ', since(service.since, service.atLeast), `: ${service.reason}`] });
    } else if (service.state === 'refusing') {
      all.push({ key: `away ${name}`, kind: 'warn', say: `${name} refuses Store`,
        tell: [h('b', {}, `${name} refuses Store`), ' ', since(service.since, service.atLeast), `: ${service.reason}`] });
    }
    if (!overview) continue;
    const here = service.state === 'here';
    const { rows } = overview;
    if (here && rows.unknownSince) {
      all.push({ key: `rows ${name}`, kind: 'bad', say: `the database of ${name} gives no answer`,
        tell: [h('b', {}, `The database of ${name} gives no answer`), ' ', since(rows.unknownSince),
          `: ${rows.error}`] });
    }
    if (here) {
      for (const breaker of breakersOf(service).filter((one) => one.state !== 'closed')) {
        const [kind, word] = STATES[breaker.state];
        const next = probe(service, breaker);
        all.push({ key: `breaker ${name} ${breaker.name}`, kind,
          say: `${name} to ${called(breaker)}: breaker ${word}`,
          tell: [h('b', {}, `${name} → ${called(breaker)}: breaker ${word}`), ' ', since(breaker.since),
            breaker.reason ? `: ${breaker.reason}` : '', next ? [' · ', next] : ''] });
      }
    }
    for (const kind of rows.deferred?.kinds ?? []) {
      if (kind.parked > 0) {
        const what = `${kind.parked} deferred ${kind.parked === 1 ? 'call' : 'calls'} of ${name} parked: ${kind.kind}`;
        all.push({ key: `parked ${name} ${kind.kind}`, kind: 'bad', say: what,
          tell: [h('b', {}, what), ' · ', h('a', { href: '#deferred-title' }, 'see why')] });
      }
      if ((kind.lateMs ?? 0) > 5000) {
        all.push({ key: `late ${name} ${kind.kind}`, kind: 'warn', say: `deferred calls of ${name} are late: ${kind.kind}`,
          tell: [h('b', {}, `Deferred calls of ${name} are late: ${kind.kind}`), `, the first by ${span(kind.lateMs)}`] });
      }
    }
    if (rows.deferred?.broker === 'Down') {
      all.push({ key: `broker ${name}`, kind: 'warn', say: `the broker of ${name} is away`,
        tell: [h('b', {}, `The broker of ${name} is away`), ': its deferred calls are made from the database'] });
    }
    for (const kind of rows.sagas?.kinds ?? []) {
      if (kind.stuck > 0) {
        const what = `${kind.stuck} ${kind.stuck === 1 ? 'saga' : 'sagas'} of ${name} stuck: ${kind.kind}`;
        all.push({ key: `stuck ${name} ${kind.kind}`, kind: 'bad', say: what,
          tell: [h('b', {}, what), ' · ', h('a', { href: '#sagas-title' }, 'see why')] });
      }
    }
  }
  // What may be the cause of the others comes before them.
  const order = ['away', 'rows', 'stuck', 'parked', 'breaker'];
  const place = ({ key }) => order.indexOf(key.split(' ')[0]);
  const worst = ({ kind }) => ['bad', 'half', 'warn'].indexOf(kind);
  return all.sort((a, b) => worst(a) - worst(b) || place(a) - place(b));
}

/** The list of it, and what of it was wrong lately. */
export function showTrouble(services) {
  const wrong = troubles(services);
  const events = services
    .flatMap(({ name, overview }) => (overview?.events ?? []).map((event) => ({ ...event, caller: name })))
    .sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, 6);
  return [
    wrong.length
      ? h('ul', { class: 'troubles', key: 'wrong' }, wrong.map(({ key, kind, tell }) =>
        h('li', { key, class: kind }, mark(kind), h('span', {}, tell))))
      : isWell(services)
        ? h('p', { class: 'well', key: 'well' }, mark('good'), 'Nothing is wrong that Store knows of.')
        : h('p', { class: 'quiet', key: 'asking' }, 'Asking …'),
    events.length > 0 && h('details', { key: 'lately' }, h('summary', {}, 'What the breakers did lately'),
      h('ol', { class: 'events' }, events.map((event) => h('li', {},
        ago(event.at), ` ${event.caller} → ${event.breaker}: ${event.what.replaceAll('_', ' ')}`,
        event.reason ? `, ${event.reason}` : '')))),
  ];
}
