// Requests to the admin port this page came from. Where it asks for a token the person is asked
// once; it stays in sessionStorage, so it goes with the tab, and travels in Authorization alone
// (which is why events are read by fetch: EventSource sends no such field).

import { $ } from './dom.js';

const KEY = 'weir-token';
let asking = null;

$('token').addEventListener('cancel', (e) => e.preventDefault());      // there is nothing without it

function askToken(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = $('token');
    $('token-wrong').hidden = !wrong;
    $('token-value').value = '';
    dialog.addEventListener('close', () => {
      sessionStorage.setItem(KEY, $('token-value').value.trim());
      $('token-value').value = '';
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers };
    if (token) headers.Authorization = 'Bearer ' + token;
    const r = await fetch(path, { ...options, headers, cache: 'no-store', redirect: 'error' });
    if (r.status !== 401) return r;
    await r.body?.cancel();
    await askToken(token !== null && sessionStorage.getItem(KEY) === token);
  }
}

// The port answered, and the answer was no.
export class Refused extends Error {}

// What an answer says: {status, doc}. A problem (RFC 9457) is a doc like others.
export async function api(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { 'Content-Type': 'application/json' };
  }
  const r = await ask(path, options);
  return { status: r.status, doc: await r.json() };
}

// Server-sent events of a path (the HTML standard, 9.2), until it ends or the signal says so.
export async function* events(path, signal) {
  const r = await ask(path, { signal });
  if (!r.ok) throw new Refused((await r.json()).detail);
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf('\n\n')) >= 0) {
      const lines = rest.slice(0, end).split('\n');
      rest = rest.slice(end + 2);
      const data = lines.filter((l) => l.startsWith('data:')).map((l) => l.slice(5).trimStart());
      if (data.length > 0) yield JSON.parse(data.join('\n'));
    }
  }
}
