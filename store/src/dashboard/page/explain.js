// The story of one order, across the four services.

import { ago, badge, exact, h, mark, patch, until } from './dom.js';
import { question } from './live.js';

const $ = (id) => document.getElementById(id);

// How what happened is shown: its shape, and its meaning's colour.
const KINDS = {
  done: 'good', committed: 'good', complete: 'good', DECIDED: 'good', closed: 'good', PAID: 'good',
  refused: 'warn', unknown: 'warn', compensated: 'warn', undone: 'warn', undo_intent: 'warn', tombstone: 'warn', half_opened: 'half',
  opened: 'bad', failed: 'bad', parked: 'bad', undo_deferred: 'bad', forced_open: 'bad',
};

const why = ({ reason }) => (reason ? h('span', { class: 'why' }, `: ${reason}`) : null);

function story(told) {
  return [
    h('p', { key: 'outcome', class: 'outcome' }, h('b', {}, told.outcome), ' ', h('code', {}, told.orderUid), ', told ', ago(told.at)),
    told.gaps.length > 0 && h('ul', { key: 'gaps', class: 'troubles' }, told.gaps.map((gap) => h('li', { class: 'bad' }, mark('bad'),
      h('span', {}, h('b', {}, `${gap.service} gives no answer`), `: ${gap.reason}. What it knows is missing here.`)))),
    told.waits.length > 0 && [h('h3', { key: 'waits' }, 'Still to happen'), h('ul', { key: 'waiting', class: 'rows' }, told.waits.map((wait) => h('li', { class: 'warn' },
      h('span', {}, mark('warn'), h('b', {}, wait.service), ` ${wait.text}`, wait.on ? `, for ${wait.on}` : '',
        wait.until ? [', due ', until(Date.parse(wait.until), 'now')] : ''), why(wait))))],
    h('h3', { key: 'facts' }, 'Now'),
    told.facts.length
      ? h('ul', { key: 'now', class: 'rows' }, told.facts.map((fact) => h('li', {}, h('span', {}, h('b', {}, fact.service), ` ${fact.text}`))))
      : h('p', { key: 'now', class: 'quiet' }, 'Nobody says anything.'),
    h('h3', { key: 'events' }, 'What happened'),
    told.events.length
      ? h('ol', { key: 'happened', class: 'rows story' }, told.events.map((event) => {
        const kind = KINDS[event.state] ?? 'idle';
        return h('li', { class: kind },
          h('span', { class: 'at' }, exact(event.at).slice(11), `.${event.at.slice(20, 23)}`),
          h('span', { class: 'who' }, badge(kind, event.service)),
          h('span', {}, event.text, why(event)));
      }))
      : h('p', { key: 'happened', class: 'quiet' }, 'Nothing that anybody still knows of: journals and ledgers are kept for some time.'),
  ];
}

async function tell(id) {
  const into = $('explain').querySelector(':scope > div');
  patch(into, [h('p', {}, 'Asking all four …')]);
  try {
    patch(into, story(await question(`/manage/explain/${encodeURIComponent(id)}`)));
  } catch (error) {
    patch(into, [h('p', { class: 'stale' }, mark('bad'), error.message)]);
  }
}

/** Has an order's story told, from wherever its id stands. */
export function explain(id) {
  $('order').value = id;
  $('explain').scrollIntoView();
  $('order').focus();
  return tell(id);
}

$('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  tell($('order').value.trim());
});
