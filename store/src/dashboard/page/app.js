// The page's beginning: it follows what is pushed, and draws it.

import { ago, exact, h, mark, now, patch, setClock, span } from './dom.js';
import { again, follow, token } from './live.js';
import { keep, rates, showTraffic } from './charts.js';
import { forgetStory } from './explain.js';
import { forgetCommands, onCommand, showDeferred, showSagas } from './ledger.js';
import { onTurn, showBreakers, showMap } from './map.js';
import { isWell, showTrouble, troubles } from './trouble.js';

const $ = (id) => document.getElementById(id);
const body = (id) => $(id).querySelector(':scope > div');

let known = null;
let away = null;
let told = null;

/** What is so, as far as that is known: while Store is away nothing is. */
function seen() {
  if (!away) return known.services;
  const lost = { since: new Date(away.since).toISOString(), atLeast: false };
  return known.services.map((service) => ({ ...service, ...lost,
    ...(service.name === 'store' ? { state: 'away', reason: away.reason } : { state: 'unknown', reason: 'Store is away' }) }));
}

function draw() {
  connection();
  if (!known) return;
  const services = seen();
  patch(body('trouble'), showTrouble(services));
  patch(body('map'), showMap(services));
  patch(body('traffic'), showTraffic(services));
  patch(body('breakers'), showBreakers(services, rates));
  patch(body('deferred'), showDeferred(services));
  patch(body('sagas'), showSagas(services));
}

/** Whether what is shown is what is so. */
function connection() {
  const leave = token.get() && h('button', { type: 'button', onclick: forget }, 'Forget the token');
  if (away) {
    patch($('connection'), [mark('bad'), h('b', {}, `Store is away for ${span(now() - away.since)}`),
      ` (since ${exact(away.since)}): ${away.reason}; trying again. `,
      known ? 'What is shown is what was so before.' : '', leave]);
  } else if (known) {
    patch($('connection'), [mark('good'), h('b', {}, 'Live'), ', told ', ago(known.at), ' ', leave]);
  } else {
    patch($('connection'), [mark('idle'), 'Asking …']);
  }
  $('all').classList.toggle('stale', Boolean(away));
}

/** What has changed, for whoever hears the page: without the times, which change always. */
function say() {
  const wrong = known ? troubles(known.services) : [];
  const well = known && isWell(known.services);
  const text = away ? 'Store is away' : wrong.map((one) => one.say).join('; ') || (well ? 'Nothing is wrong' : '');
  const title = away ? 'Store is away' : wrong.length ? `${wrong.length} wrong` : well ? 'all well' : 'asking';
  document.title = `${title} – Store, live`;
  if (text !== told) {
    told = text;
    $('told').textContent = text;
  }
}

function forget() {
  token.forget();
  again();
}

/** Whoever isn't let in has been shown nothing. */
function clear() {
  [known, away, told] = [null, null, ''];
  $('told').textContent = told;
  forgetCommands();
  forgetStory();
  for (const part of document.querySelectorAll('#all > section > div')) patch(part, []);
}

function show(locked) {
  $('locked').hidden = !locked;
  $('all').hidden = locked;
}

const INVALID = 'That token is not a valid one: it may have been replaced.';

$('locked').addEventListener('submit', (event) => {
  event.preventDefault();
  const shown = $('token').value.trim();
  $('token').value = '';
  if (/^[\x21-\x7e]+$/.test(shown)) {
    token.set(shown);
    again();
  } else {
    // No request could carry it.
    $('locked-why').textContent = INVALID;
  }
});

onTurn(draw);
onCommand(draw);
// Times go on, whether or not anything comes.
setInterval(draw, 1000);
draw();

follow({
  told(all) {
    [known, away] = [all, null];
    setClock(all.at);
    keep(all.services);
    show(false);
    say();
    draw();
  },
  lost(reason) {
    away = { since: away?.since ?? now(), reason };
    show(false);
    say();
    draw();
  },
  locked(status, message, shown) {
    clear();
    const why = status === 401
      ? shown ? INVALID : 'Operators show a management token.'
      : message;
    $('locked-why').textContent = why;
    for (const part of ['token', 'locked-note']) $(part).hidden = status !== 401;
    if (shown) token.forget();
    show(true);
    patch($('connection'), [mark('warn'), h('b', {}, 'Locked')]);
    document.title = 'locked – Store, live';
    if (status === 401) $('token').focus();
  },
});
