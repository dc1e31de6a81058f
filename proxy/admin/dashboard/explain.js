// The explanation of a URL, as /explain gives it: the verdict first, then what it rests on.

import { $, h } from './dom.js';
import { bytes, span } from './format.js';
import { api } from './live.js';

function factList(list) {
  return h('dl', { class: 'facts' }, ...list.filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', { class: 'text' }, String(value)))));
}

function measure(c) {
  const s = (v) => `${v} s`;
  return c.is_s === undefined ? '' : ` ${s(c.is_s)}${c.limit_s === undefined ? '' : ' of ' + s(c.limit_s)}`;
}

// What was weighed; a clause that says nothing is left out.
function clauses(title, list) {
  const said = (list ?? []).filter((c) => c.outcome !== 'silent');
  if (said.length === 0) return null;
  const against = said.some((c) => c.outcome === 'forbids');
  return h('details', { open: against }, h('summary', {}, `${title} ${against ? 'No.' : 'Yes.'}`),
    h('ul', { class: 'clauses' }, ...said.map((c) => {
      const no = c.outcome === 'forbids';
      return h('li', {}, h('span', { class: no ? 'bad' : 'good', title: c.outcome }, no ? '✗' : '✓'),
        h('span', {}, `${c.clause}: ${c.asks}${measure(c)}`), h('span', {}, c.source ?? ''));
    })));
}

function stored(o) {
  const of = [['Status', o.status], ['Age', span(o.age_s)], ['Lifetime', `${o.lifetime_s} s, from ${o.lifetime_from ?? o.freshness_from}`],
    ['Left', o.fresh ? `${o.ttl_s} s` : 'stale'], ['Body', bytes(o.body_bytes)], ['Vary', o.vary],
    ['Tags', (o.tags ?? []).join(', ')], ['Soft purged', o.soft_purged ? 'yes' : ''], ['In doubt', o.in_doubt ? 'yes' : '']];
  return [h('h3', {}, o.selected ? 'Stored, and selected' : 'Stored, for other requests'), factList(of),
    clauses('May it be used now?', o.clauses), clauses('Might it be stored?', o.stored_by)];
}

function page(doc) {
  const good = ['hit', 'stale', 'stale-while-revalidate'].includes(doc.verdict?.outcome);
  return [
    h('p', { class: 'lead ' + (good ? 'good' : '') }, doc.verdict?.text ?? doc.answer ?? ''),
    factList([['Route', doc.route ? `${doc.route.name}${doc.route.line ? ' (line ' + doc.route.line + ')' : ''}` : 'none takes it'],
      ['Policy', doc.route?.policy], ['Origin', doc.route?.origin]]),
    h('p', { class: 'mono' }, 'key ', doc.key ?? '–'),
    clauses('Is the request one for the cache?', doc.request?.clauses),
    ...(doc.stored ?? []).flatMap(stored),
    ...(doc.advice?.length > 0 ? [h('h3', {}, 'What could be changed'),
      h('ul', {}, ...doc.advice.map((a) => h('li', {}, typeof a === 'string' ? a : a.text ?? a.change ?? JSON.stringify(a))))] : []),
    h('details', {}, h('summary', {}, 'All of it, as JSON'), h('pre', { tabIndex: 0 }, JSON.stringify(doc, null, 2))),
  ].filter(Boolean);
}

async function explain() {
  const query = new URLSearchParams({ url: $('explain-url').value.trim() });
  if ($('explain-method').value !== 'GET') query.append('method', $('explain-method').value);
  for (const line of $('explain-fields').value.split('\n')) {
    const [name, ...value] = line.split(':');
    if (value.length > 0) query.append('header', `${name.trim()}:${value.join(':').trim()}`);
  }
  const { status, doc } = await api('GET', '/explain?' + query);
  $('explain-result').replaceChildren(...(status === 200 ? page(doc) : [h('p', { class: 'lead bad' }, doc.detail ?? 'refused')]));
}

export function explainForm(complain) {
  $('explain-form').addEventListener('submit', (e) => {
    e.preventDefault();
    explain().catch((error) => complain('The question could not be sent: ' + error.message));
  });
}
