// The story of one order, across the four services.

import { badge, exact, h, mark, patch } from './dom.js';
import { question } from './live.js';

const $ = (id) => document.getElementById(id);

// How what happened is shown: its shape, and its meaning's colour.
const KINDS = {
  done: 'good', committed: 'good', complete: 'good', DECIDED: 'good', closed: 'good', PAID: 'good',
  refused: 'warn', unknown: 'warn', compensated: 'warn', undone: 'warn', undo_intent: 'warn', tombstone: 'warn', half_opened: 'half',
  opened: 'bad', failed: 'bad', parked: 'bad', undo_deferred: 'bad', forced_open: 'bad',
};

// The last question: what comes of an earlier one is of no interest any more.
let asked = 0;

const why = ({ reason }) => (reason ? h('span', { class: 'why' }, `: ${reason}`) : null);

/** A moment to the millisecond, with its day where that isn't the one before. */
function moment({ at }, index, events) {
  const [day, time] = exact(at).split(' ');
  const another = index === 0 || exact(events[index - 1].at).split(' ')[0] !== day;
  return h('span', { class: 'at' }, another ? `${day} ` : '', `${time}.${at.slice(20, 23)}`);
}

// It is as it was when it was told, and so are its times.
function story(told) {
  return [
    h('p', { key: 'outcome', class: 'outcome' }, h('b', {}, told.outcome), ' ', h('code', {}, told.orderUid), `, told at ${exact(told.at)}`),
    told.gaps.length > 0 && h('ul', { key: 'gaps', class: 'troubles' }, told.gaps.map((gap) => h('li', { class: 'bad' }, mark('bad'),
      h('span', {}, h('b', {}, `${gap.service} gives no answer`), `: ${gap.reason}. What it knows is missing here.`)))),
    told.waits.length > 0 && [h('h3', { key: 'waits' }, 'Still to happen'), h('ul', { key: 'waiting', class: 'rows' }, told.waits.map((wait) => h('li', { class: 'warn' },
      h('span', {}, mark('warn'), h('b', {}, wait.service), ` ${wait.text}`, wait.on ? `, for ${wait.on}` : '',
        wait.until ? `, not before ${exact(wait.until)}` : '', why(wait)))))],
    h('h3', { key: 'facts' }, 'Now'),
    told.facts.length
      ? h('ul', { key: 'now', class: 'rows' }, told.facts.map((fact) => h('li', {}, h('span', {}, h('b', {}, fact.service), ` ${fact.text}`))))
      : h('p', { key: 'now', class: 'quiet' }, 'Nobody says anything.'),
    h('h3', { key: 'events' }, 'What happened'),
    told.events.length
      ? h('ol', { key: 'happened', class: 'rows story' }, told.events.map((event, index, all) => {
        const kind = KINDS[event.state] ?? 'idle';
        return h('li', { class: kind },
          moment(event, index, all),
          h('span', { class: 'who' }, badge(kind, event.service)),
          h('span', {}, event.text, why(event)));
      }))
      : h('p', { key: 'happened', class: 'quiet' }, 'Nothing that anybody still knows of: journals and ledgers are kept for some time.'),
  ];
}

async function tell(id) {
  const into = $('explain').querySelector(':scope > div');
  asked += 1;
  const mine = asked;
  patch(into, [h('p', {}, 'Asking all four …')]);
  const answer = await question(`/manage/explain/${encodeURIComponent(id)}`).then(
    story,
    (error) => [h('p', { class: 'stale' }, mark('bad'), error.message)],
  );
  if (mine === asked) patch(into, answer);
}

/** What is asked or told is nobody's business any more. */
export function forgetStory() {
  asked += 1;
  $('order').value = '';
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
