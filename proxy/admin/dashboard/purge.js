// The purge form: what a purge would take is counted first, and only what was counted can be purged.

import { $, h } from './dom.js';
import { number } from './format.js';
import { api } from './live.js';
import { purged } from './panels.js';

const SPREAD_MS = 1000;

let counted = null;                     // the request whose dry run is shown

function question() {
  const kind = $('purge-kind').value;
  const soft = $('purge-soft').checked, erase = $('purge-erase').checked;
  const values = $('purge-values').value.split('\n').map((v) => v.trim()).filter(Boolean);
  return { [kind]: kind === 'all' ? true : values, ...(erase ? { erase } : { soft }) };
}

function say(...children) {
  $('purge-result').replaceChildren(...children);
}

function forget() {
  counted = null;
  $('purge-go').disabled = true;
  $('purge-go').textContent = 'Purge';
  const all = $('purge-kind').value === 'all';
  $('purge-values-label').hidden = all;
  $('purge-values').required = !all;
  say();
}

function results(doc, lead) {
  const later = doc.items.some((i) => !i.exact);
  return [
    h('p', { class: 'lead' }, lead),
    h('div', { class: 'scroll' }, h('table', {}, h('tbody', {}, ...doc.items.map((i) => h('tr', {},
      h('td', { class: 'mono fill', title: purged(i) }, purged(i)),
      h('td', { class: 'n' }, i.exact ? number(i.objects) : 'not counted')))))),
    later ? h('p', { class: 'quiet' }, 'What is not counted is in force at once all the same; its bytes are freed as they are met.') : null,
  ].filter(Boolean);
}

const responses = (n) => `${n} response${n === 1 ? '' : 's'}`;

function refused(doc) {
  return [h('p', { class: 'lead bad' }, doc.detail ?? 'refused'),
    ...(doc.not_understood ?? []).map((f) => h('p', {}, h('span', { class: 'mono' }, f.item), ': ', f.why))];
}

async function dryRun() {
  const ask = question();
  const { erase, ...what } = ask;
  const { status, doc } = await api('POST', '/purge', { ...what, dry_run: true });
  if (JSON.stringify(ask) !== JSON.stringify(question())) return;       // changed meanwhile
  if (status !== 200) {
    say(...refused(doc));
    return;
  }
  counted = ask;
  say(...results(doc, `A purge would take ${responses(doc.objects)}.`));
  $('purge-go').textContent = `${erase ? 'Erase' : 'Purge'} ${responses(doc.objects)}`;
  $('purge-go').disabled = false;
}

// Other instances may not have applied it yet: asked until they have.
async function spread(doc) {
  for (let tries = 0; tries < 60 && !doc.done; tries++) {
    await new Promise((resolve) => setTimeout(resolve, SPREAD_MS));
    const next = await api('GET', '/purge/' + encodeURIComponent(doc.id));
    if (next.status !== 200) return;
    if (next.doc.done) {
      $('purge-spread')?.replaceChildren('All instances have applied it.');
      return;
    }
  }
}

async function purge() {
  const ask = counted;
  $('purge-go').disabled = true;
  if (ask.erase) say(h('p', {}, 'Erasing…'));
  const { status, doc } = await api('POST', '/purge', ask);
  if (status !== 200 && status !== 202) {
    say(...refused(doc));
    return;
  }
  forget();
  say(...results(doc, `${doc.erased ? 'Erased' : 'Purged'} ${responses(doc.objects)}.`),
    h('p', { id: 'purge-spread', class: 'quiet' }, doc.done
      ? (doc.instances > 1 ? `Applied by all ${doc.instances} instances.` : '')
      : `In force here; not yet applied by ${(doc.missing ?? []).join(', ') || 'other instances'}.`));
  if (!doc.done && doc.id) await spread(doc);
}

export function purgeForm(complain) {
  const guarded = (what) => () => what().catch((e) => complain('The purge could not be sent: ' + e.message));
  $('purge-form').addEventListener('submit', (e) => { e.preventDefault(); guarded(dryRun)(); });
  // What is kept to be validated cannot be erased.
  for (const [one, other] of [['purge-soft', 'purge-erase'], ['purge-erase', 'purge-soft']]) {
    $(one).addEventListener('input', () => { if ($(one).checked) $(other).checked = false; });
  }
  $('purge-form').addEventListener('input', forget);
  $('purge-go').addEventListener('click', guarded(purge));
}
