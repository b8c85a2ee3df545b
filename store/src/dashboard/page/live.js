// What is known, as it is pushed: read from a stream that begins anew whenever it ends.

const KEY = 'management-token';

// A stream that says nothing for so long is given up: it says something twice a second.
const SILENCE = 4000;

// How long until it is tried again.
const WAIT = 1000;

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What every request carries. */
export const headers = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

let aborter = new AbortController();

/** Begins anew, now: with another token perhaps. */
export const again = () => aborter.abort();

/**
 * Goes on for good. `told` is given what is known; `lost` why there is nothing more; `locked` what the
 * server wants.
 */
export async function follow({ told, lost, locked }) {
  for (;;) {
    aborter = new AbortController();
    const { signal } = aborter;
    // What is given up is let go: a browser has few connections to a server.
    const attempt = new AbortController();
    signal.addEventListener('abort', () => attempt.abort(), { once: true });
    let gave = false;
    try {
      const answer = await patiently(fetch('/manage/dashboard/live', {
        headers: headers(), cache: 'no-store', signal: attempt.signal,
      }));
      if (answer.status === 401 || answer.status === 403) {
        const said = await answer.json();
        locked(answer.status, said.message, Boolean(token.get()));
        await aborted(signal);
        continue;
      }
      if (!answer.ok) throw new Error(`it answers ${answer.status}`);
      for await (const data of events(answer.body.getReader())) {
        gave = true;
        try {
          told(JSON.parse(data));
        } catch (error) {
          // A defect of this page is no loss of Store.
          reportError(error);
        }
      }
      // It ended as it should: the next one is there at once.
      if (gave) continue;
      throw new Error('it is about to end');
    } catch (error) {
      if (signal.aborted) continue;
      lost(error === SILENT || error.name === 'TypeError' ? reason(error) : error.message);
    } finally {
      attempt.abort();
    }
    await Promise.race([aborted(signal), new Promise((go) => setTimeout(go, WAIT))]);
  }
}

const SILENT = new Error('it says nothing');

const reason = (error) => (error === SILENT ? 'it says nothing' : 'no connection');

const aborted = (signal) => new Promise((go) => {
  if (signal.aborted) go();
  signal.addEventListener('abort', go, { once: true });
});

/** What comes of it, unless nothing does for too long. */
async function patiently(promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(SILENT), SILENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function* events(reader) {
  const decoder = new TextDecoder();
  let text = '';
  try {
    for (;;) {
      const { done, value } = await patiently(reader.read());
      if (done) return;
      text += decoder.decode(value, { stream: true });
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const event = text.slice(0, end);
        text = text.slice(end + 2);
        if (event.startsWith('data: ')) yield event.slice('data: '.length);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Store waits for the others for half of this at most.
const PATIENCE = 12_000;

/** What Store answers. What was wrong with it is thrown, and whether Store said so. */
async function ask(method, path) {
  const wrong = (message, refused) => Object.assign(new Error(message), { refused });
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(path, { method, headers: headers(), cache: 'no-store', signal });
    const said = await answer.json();
    if (answer.ok) return said;
    throw wrong(said.message ?? `Store answers ${answer.status}`, answer.status < 500);
  } catch (error) {
    throw error.refused === undefined ? wrong('Store gives no answer', false) : error;
  }
}

/** What is answered to an operator's question. */
export const question = (path) => ask('GET', path);

/** An operator's command. Unless it was refused it may have been carried out. */
export const command = (path) => ask('POST', path);
