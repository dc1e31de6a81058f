// The journal: how much waits and for how long, and the writes themselves, which can be tried again
// or dropped. The list is asked for when the figures say that something changed, and on request.

import { $, Table, confirmed, facts, h, text } from './dom.js';
import { bytes, number, rate, span } from './format.js';
import { api } from './live.js';

const PAGE = 50;

export class Writes {
  constructor(complain) {
    this.complain = complain;
    this.list = [];
    this.seen = '';
    this.asked = 0;                     // an answer to an earlier question is no answer
    this.table = new Table($('letters-table'), [
      { title: 'Accepted', cell: (w) => new Date(w.accepted).toLocaleString(undefined, { dateStyle: 'short', timeStyle: 'medium' }) },
      { title: 'State', cell: (w) => w.state },
      { title: 'Write', class: 'mono fill', cell: (w) => `${w.method} ${w.url}` },
      { title: 'Tries', class: 'n', cell: (w) => String(w.attempts) },
      { title: 'Answer', cell: (w) => [w.status, w.cause].filter(Boolean).join(' ') || '–' },
      { title: 'Id', class: 'mono', cell: (w) => w.id.slice(0, 8) },
      { title: '', class: 'n', cell: (w, td) => this.buttons(w, td) },
    ], 'None.');
    $('letters-state').addEventListener('change', () => this.load());
    $('letters-more').addEventListener('click', () => this.load(this.next));
    $('retry-all').addEventListener('click', () => this.all('retry', 'Retry all dead letters?',
      'Each is sent once more, behind what was delivered meanwhile: its content may be older than what is there.', 'Retry all'));
    $('drop-all').addEventListener('click', () => this.all('drop', 'Drop all dead letters?',
      'They are given up for good; nothing of them is sent.', 'Drop all'));
  }

  update(doc, rates) {
    const w = doc.writes;
    $('writes').hidden = false;
    $('letters').hidden = !w;
    if (!w) {
      facts($('journal'), [['Journal', 'none is configured (journal.path)', 'text']]);
      return;
    }
    facts($('journal'), [
      ['Depth', number(w.pending), '', ' pending'],
      ['Oldest', w.pending > 0 ? span(w.oldest_ms / 1000) : '–'],
      ['Dead letters', number(w.dead), w.dead > 0 ? 'bad' : ''],
      ['Being sent', number(w.delivering)],
      ['Accepted', rate(rates.counter('writes_accepted')), '', ' /s'],
      ['Delivered', rate(rates.counter('writes_delivered')), '', ' /s'],
      ['Tried again', rate(rates.counter('writes_retried')), '', ' /s'],
      ['Size', bytes(w.bytes), '', ` of ${bytes(w.bytes + w.room)}`],
      ...(w.takes ? [] : [['Takes no writes', w.why, 'text bad']]),
      ...(w.damaged ? [['Damaged file set aside', w.damaged, 'text bad']] : []),
    ]);
    $('retry-all').disabled = $('drop-all').disabled = w.dead === 0;
    const c = doc.counters;
    const seen = [w.pending, w.dead, w.delivering, c.writes_accepted, c.writes_attempts, c.writes_delivered].join();
    // A row is not taken away under the pointer, nor one that the keyboard is in.
    if (seen !== this.seen && !this.older && !$('letters-table').matches(':hover, :focus-within')) {
      this.seen = seen;
      this.load();
    }
  }

  // after: the id behind which to go on; without it from the beginning
  async load(after) {
    const mine = ++this.asked;
    try {
      const state = $('letters-state').value;
      const from = after ? '&after=' + encodeURIComponent(after) : '';
      const { status, doc } = await api('GET', `/writes?state=${state}&limit=${PAGE}${from}`);
      if (mine !== this.asked) return;
      if (status !== 200) throw new Error(doc.detail);
      this.list = after ? this.list.concat(doc.writes) : doc.writes;
      this.older = Boolean(after);      // further pages are not replaced under the reader's eyes
      this.next = doc.next;
      $('letters-more').hidden = doc.writes.length < PAGE;
      this.table.update(this.list);
      text($('letters-count'), `${this.list.length}${doc.writes.length < PAGE ? '' : ' shown'}`);
    } catch (e) {
      this.complain('The journal could not be read: ' + e.message);
    }
  }

  buttons(w, td) {
    const what = w.id + w.state;
    if (td.what === what) return;
    td.what = what;
    const dead = ['rejected', 'expired', 'uncertain'].includes(w.state);
    const may = dead || ['pending', 'waiting'].includes(w.state);
    const about = ` ${w.method} ${w.url}`;
    td.replaceChildren(...(may ? [
      h('button', { type: 'button', class: 'small', 'aria-label': 'Retry' + about, onclick: () => this.one('POST', w, '/retry') }, 'Retry'), ' ',
      h('button', { type: 'button', class: 'small danger', 'aria-label': 'Drop' + about, onclick: () => this.drop(w) }, 'Drop'),
    ] : []));
  }

  async drop(w) {
    if (await confirmed('Drop this write?', `${w.method} ${w.url}, accepted ${w.accepted}. It is given up for good.`, 'Drop')) {
      await this.one('DELETE', w, '');
    }
  }

  async one(method, w, verb) {
    const { status, doc } = await api(method, `/writes/${w.id}${verb}`, method === 'POST' ? {} : undefined);
    this.complain(status === 200 ? '' : `${w.id}: ${doc.detail}`);
    await this.load();
  }

  async all(verb, title, what, yes) {
    if (!await confirmed(title, what, yes)) return;
    const { status, doc } = await api('POST', '/writes/' + verb, { state: 'dead' });
    this.complain(status === 200 ? '' : doc.detail);
    await this.load();
  }
}
