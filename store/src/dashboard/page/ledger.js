// What is done later, and what reaches into several systems: how much, since when, why not yet, and an
// operator's hand on it.

import { ago, badge, exact, h, mark, now, since, span, times, until } from './dom.js';
import { explain } from './explain.js';
import { command } from './live.js';

// What became of commands, by row: shown until the row is gone.
const said = new Map();
let redraw = () => {};

export const onCommand = (draw) => {
  redraw = draw;
};

export const forgetCommands = () => said.clear();

/** Of rows that are gone nothing more is said: one that comes back is another matter. */
function tidy(services) {
  const there = new Set(services.flatMap(({ overview }) => {
    const { deferred, sagas } = overview?.rows ?? {};
    return [...(deferred?.parked ?? []), ...(deferred?.waiting ?? []), ...(sagas?.open ?? [])].map(({ id }) => id);
  }));
  for (const id of said.keys()) {
    if (!there.has(id)) said.delete(id);
  }
}

/** Asks before it is done: what there is no way back from, or what costs others something. */
function confirm(title, text, yes) {
  const dialog = document.getElementById('confirm');
  document.getElementById('confirm-title').textContent = title;
  document.getElementById('confirm-text').textContent = text;
  document.getElementById('confirm-yes').textContent = yes;
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((go) => {
    dialog.addEventListener('close', () => go(dialog.returnValue === 'yes'), { once: true });
  });
}

const path = (service, ledger, id, verb) => (service === 'store'
  ? `/manage/${ledger}/${id}/${verb}`
  : `/manage/dashboard/${service}/${ledger}/${id}/${verb}`);

function button(service, ledger, row, verb, label, title, text) {
  const key = `${verb} ${row.id}`;
  const act = async () => {
    if (!await confirm(title, text, label)) return;
    said.set(row.id, [null, 'on its way …']);
    redraw();
    try {
      await command(path(service, ledger, row.id, verb));
      said.set(row.id, ['good', `${verb === 'discard' ? 'discarded' : 'retried'} at ${exact(now()).slice(11)}`]);
    } catch (error) {
      said.set(row.id, ['bad', error.refused ? `not done: ${error.message}` : `it isn't known whether it was done: ${error.message}`]);
    }
    redraw();
  };
  // Its name tells which one, for whoever doesn't see what stands beside it.
  return h('button', { type: 'button', key, onclick: act, 'aria-label': `${label} ${row.kind} ${row.id}` }, label);
}

const outcome = ({ id }) => {
  const [kind, text] = said.get(id) ?? [];
  return text && h('span', { class: 'outcome', role: 'status', key: 'outcome' }, kind && mark(kind), text);
};

/** Who has any, known or not. */
const parts = (services, field) => services.filter(({ overview }) => overview?.[field]);

/** Since when what is shown isn't known any more. */
function known(service) {
  const { rows } = service.overview;
  const last = rows.at ? [', as of ', ago(rows.at)] : ', and never was';
  const [why, at] = service.state !== 'here'
    ? [service.state === 'away' ? `${service.name} is away` : service.reason ?? 'it is not asked yet', service.since]
    : [rows.error, rows.unknownSince];
  return at && h('p', { class: 'stale' }, mark('idle'), h('span', {}, 'unknown ', since(at), `: ${why}`, last));
}

const nothing = (text) => [h('p', { class: 'quiet' }, text)];

function depth({ pending, sent, running }) {
  const parts = [[pending, 'wait'], [sent, 'sent'], [running, 'being made']].filter(([count]) => count);
  return parts.length ? `${pending + sent + running} deep: ${parts.map((part) => part.join(' ')).join(', ')}` : 'nothing waits';
}

export function showDeferred(services) {
  tidy(services);
  const all = parts(services, 'defers');
  if (!all.length) return nothing('None is known yet.');
  return all.map((service) => {
    const ledger = service.overview.rows.deferred;
    const stale = known(service);
    if (!ledger) return h('div', { key: service.name }, h('h3', {}, service.name), stale);
    const carrier = { Work: ['good', 'carried by RabbitMQ'], Down: ['warn', 'RabbitMQ is away: made from the database'], Absent: ['idle', 'made from the database'] };
    return h('div', { key: service.name, class: stale ? 'part idle' : 'part' },
      h('h3', {}, service.name, ' ', badge(...carrier[ledger.broker])),
      stale,
      h('ul', { class: 'rows kinds' }, ledger.kinds.map((kind) => h('li', { key: kind.kind },
        h('b', {}, kind.kind),
        h('span', {}, depth(kind)),
        kind.oldestMs !== undefined && h('span', {}, `oldest ${span(kind.oldestMs)}`),
        kind.oldestMs !== undefined && h('span', {}, kind.lateMs === undefined ? 'none late' : `late by ${span(kind.lateMs)}`),
        kind.parked ? badge('bad', `${kind.parked} parked`) : h('span', {}, 'none parked')))),
      ledger.parked.length > 0 && h('h4', { key: 'parked' }, 'Parked'),
      ledger.parked.length > 0 && h('ul', { key: 'those parked', class: 'rows calls' }, ledger.parked.map((call) => h('li', { key: call.id, class: 'bad' },
        h('span', { class: 'who' }, badge('bad', 'parked'), ' ', h('b', {}, call.kind), ' ', h('code', {}, call.id)),
        h('span', { class: 'why' }, call.lastError ?? 'no reason is known'),
        h('span', { class: 'state' }, call.endedAt ? ago(call.endedAt) : '', `, begun ${times(call.attempts)}`),
        h('span', { class: 'buttons' },
          button(service.name, 'deferred', call, 'retry', 'Retry', 'Retry this call?',
            `${call.kind} ${call.id} is made again from the beginning, now. Its id is the same: what it has done already is not done twice.`),
          button(service.name, 'deferred', call, 'discard', 'Discard', 'Discard this call?',
            `${call.kind} ${call.id} is not made any more, and what it was to do stays undone. It can be retried later, as long as it is kept.`),
          outcome(call))))),
      ledger.waiting.length > 0 && h('h4', { key: 'waiting' }, 'Waiting'),
      ledger.waiting.length > 0 && h('ul', { key: 'those waiting', class: 'rows calls' }, ledger.waiting.slice(0, 20).map((call) => h('li', { key: call.id },
        h('span', { class: 'who' }, h('b', {}, call.kind), ' ', h('code', {}, call.id)),
        h('span', { class: 'why' }, call.lastError ?? 'not tried yet'),
        h('span', { class: 'state' }, 'due ', until(Date.parse(call.notBefore), 'now, or when its breaker lets it')),
        h('span', { class: 'buttons' },
          button(service.name, 'deferred', call, 'retry', 'Retry now', 'Try this call now?',
            `${call.kind} ${call.id} waits, and is due at once then. While its breaker is open it waits for that.`),
          outcome(call))))),
      ledger.waiting.length > 20 && h('p', { class: 'quiet' }, 'More wait: /manage/deferred lists them.'));
  });
}

const SAGA = { running: ['idle', 'in flight'], compensating: ['warn', 'compensating'], stuck: ['bad', 'stuck'] };

export function showSagas(services) {
  const all = parts(services, 'hasSagas');
  if (!all.length) return nothing('None is known yet.');
  return all.map((service) => {
    const journal = service.overview.rows.sagas;
    const stale = known(service);
    if (!journal) return h('div', { key: service.name }, h('h3', {}, service.name), stale);
    const { kinds, open } = journal;
    return h('div', { key: service.name, class: stale ? 'part idle' : 'part' },
      h('h3', {}, service.name),
      stale,
      h('ul', { class: 'rows kinds' }, kinds.map((kind) => h('li', { key: kind.kind },
        h('b', {}, kind.kind),
        h('span', {}, `${kind.running} in flight`),
        kind.compensating ? badge('warn', `${kind.compensating} compensating`) : h('span', {}, 'none compensating'),
        kind.stuck ? badge('bad', `${kind.stuck} stuck`) : h('span', {}, 'none stuck'),
        kind.oldestMs !== undefined && h('span', {}, `oldest ${span(kind.oldestMs)}`)))),
      open.length > 0 && h('ul', { class: 'rows calls' }, open.map((saga) => {
        const [kind, word] = SAGA[saga.state] ?? ['idle', saga.state];
        return h('li', { key: saga.id, class: kind },
          h('span', { class: 'who' }, badge(kind, saga.forward && kind === 'idle' ? 'going forward' : word), ' ', h('b', {}, saga.kind), ' ',
            h('code', {}, saga.key ?? saga.id), ' ',
            saga.key && h('button', { type: 'button', class: 'plain', 'aria-label': `Explain ${saga.key}`, onclick: () => explain(saga.key) }, 'explain')),
          h('span', { class: 'why' }, saga.reason ?? (saga.dependency ? `waits for ${saga.dependency}` : 'under way')),
          h('span', { class: 'state' }, 'begun ', ago(saga.begunAt)),
          h('span', { class: 'buttons' }, saga.state === 'stuck' && button(service.name, 'sagas', saga, 'retry', 'Retry', 'Retry this saga?',
            `What was given up of ${saga.kind} ${saga.id} is tried again, and at once what waits. What it has done already is not done twice.`),
          outcome(saga)));
      })));
  });
}
