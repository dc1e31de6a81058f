// The routes: one row each, of which only those that are seen exist, so that five hundred cost what
// twenty do. For the keyboard it is one stop: arrows move a mark, Enter chooses.

import { $, h, meter, text } from './dom.js';
import { hitRate, inWindow, sum } from './figures.js';
import { bytes, percent, rate, time } from './format.js';

const ROW = 26;
const ORIGIN = ['miss', 'revalidated', 'pass', 'write', 'accepted', 'error'];

// Of what a stored response did not answer, the figures of the outcome that most requests had.
function upstream(outcomes) {
  let most = null;
  for (const o of ORIGIN) {
    if (outcomes[o] && (most === null || outcomes[o].count > most.count)) most = outcomes[o];
  }
  return most;
}

const columns = [
  { title: 'Route', key: 'name', down: false },
  { title: 'Req/s', key: 'rate', class: 'n', show: (r) => rate(r.rate) },
  { title: 'Hit rate', key: 'hits', class: 'n', show: (r) => percent(r.hits) },
  { title: 'Hit p50', key: 'hit50', class: 'n', show: (r) => time(r.hit50) },
  { title: 'Hit p99', key: 'hit99', class: 'n', show: (r) => time(r.hit99) },
  { title: 'Origin p50', key: 'org50', class: 'n', show: (r) => time(r.org50), about: 'of what no stored response answered: its most frequent outcome' },
  { title: 'Origin p99', key: 'org99', class: 'n', show: (r) => time(r.org99), about: 'of what no stored response answered: its most frequent outcome' },
  { title: 'Errors/s', key: 'errors', class: 'n', show: (r) => rate(r.errors) },
  { title: 'Bytes/s', key: 'bytes', class: 'n', show: (r) => bytes(r.bytes) },
];

function figures(route, window, rates) {
  const outcomes = inWindow(route, window);
  const up = upstream(outcomes);
  return {
    name: route.name, rate: sum(outcomes, 'rate'), hits: hitRate(outcomes),
    hit50: outcomes.hit?.p50_us, hit99: outcomes.hit?.p99_us, org50: up?.p50_us, org99: up?.p99_us,
    errors: outcomes.error?.rate ?? 0, bytes: rates.bytes(route.name),
  };
}

export class Grid {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.rows = [];
    this.list = [];                     // filtered and sorted
    this.at = 0;
    this.chosen = null;
    this.sort = { key: 'rate', down: true };
    this.body = $('grid-body');
    this.grid = $('grid');
    this.space = $('grid-space');
    this.pool = [];
    $('grid-head').append(...columns.map((c) => h('div', { role: 'columnheader', class: c.class ?? '' },
      h('button', { type: 'button', title: c.about ?? '', onclick: () => this.by(c) }, c.title))));
    $('filter').addEventListener('input', () => { this.at = 0; this.body.scrollTop = 0; this.arrange(); });
    $('filter').addEventListener('keydown', (e) => {
      if (e.key === 'ArrowDown' || e.key === 'Enter') { e.preventDefault(); this.grid.focus(); }
    });
    this.body.addEventListener('scroll', () => this.paint(), { passive: true });
    this.grid.addEventListener('keydown', (e) => { if (e.target === this.grid) this.key(e); });
    new ResizeObserver(() => this.paint()).observe(this.body);
    this.arrange();
  }

  by(column) {
    const down = column.down ?? true;
    this.sort = { key: column.key, down: this.sort.key === column.key ? !this.sort.down : down };
    this.arrange();
  }

  update(routes, window, rates) {
    this.rows = routes.map((r) => figures(r, window, rates)).filter((r) => r.rate > 0);
    this.arrange();
  }

  arrange() {
    const { key, down } = this.sort;
    const words = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
    const name = this.list[this.at]?.name;
    const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
    // What has no value comes last, either way.
    const of = (r) => r[key] ?? (down ? -Infinity : Infinity);
    this.list = this.rows.filter((r) => words.every((w) => r.name.toLowerCase().includes(w)));
    this.list.sort(key === 'name' ? byName : (a, b) => of(a) - of(b) || byName(a, b));
    if (down) key === 'name' ? this.list.reverse() : this.list.sort((a, b) => of(b) - of(a) || byName(a, b));
    const still = this.list.findIndex((r) => r.name === name);
    if (still >= 0 && document.activeElement === this.grid) this.at = still;
    this.at = Math.max(0, Math.min(this.at, this.list.length - 1));
    [...$('grid-head').children].forEach((e, i) => e.setAttribute('aria-sort',
      columns[i].key !== key ? 'none' : down ? 'descending' : 'ascending'));
    text($('routes-count'), words.length > 0 ? `${this.list.length} of ${this.rows.length}` : `${this.rows.length} in use`);
    this.grid.setAttribute('aria-rowcount', String(this.list.length + 1));
    this.space.style.height = this.list.length * ROW + 'px';
    this.body.style.height = Math.max(3, Math.min(14, this.list.length)) * ROW + 2 + 'px';
    this.paint();
  }

  make() {
    const row = h('div', { role: 'row', class: 'grid-row' },
      ...columns.map((c) => h('div', { role: 'gridcell', class: c.class ?? '' })));
    const share = meter(false);
    row.children[2].append(share, h('span'));
    row.share = share;
    row.id = 'route-row-' + this.pool.length;
    row.addEventListener('click', () => { this.at = row.index; this.choose(this.list[row.index]); this.grid.focus(); });
    this.space.append(row);
    this.pool.push(row);
    return row;
  }

  paint() {
    const first = Math.floor(this.body.scrollTop / ROW);
    const n = Math.min(Math.ceil(this.body.clientHeight / ROW) + 1, this.list.length - first);
    for (let i = 0; i < Math.max(n, this.pool.length); i++) {
      const row = this.pool[i] ?? this.make();
      row.hidden = i >= n;
      if (i < n) this.fill(row, first + i);
    }
    if (!this.space.firstElementChild || (this.list.length === 0) !== Boolean(this.nothing)) {
      this.nothing?.remove();
      this.nothing = this.list.length > 0 ? null : h('p', { class: 'grid-none' }, 'No route that was used has such a name.');
      if (this.nothing) this.space.before(this.nothing);
    }
    if (this.nothing) text(this.nothing, this.rows.length > 0 ? 'No route in use has such a name.' : 'No request in this time.');
    const at = this.pool.find((row) => !row.hidden && row.index === this.at);
    if (at) this.grid.setAttribute('aria-activedescendant', at.id);
    else this.grid.removeAttribute('aria-activedescendant');
  }

  fill(row, index) {
    const r = this.list[index];
    row.index = index;
    row.style.transform = `translateY(${index * ROW}px)`;
    row.setAttribute('aria-rowindex', String(index + 2));
    row.setAttribute('aria-selected', String(r.name === this.chosen));
    row.classList.toggle('at', index === this.at);
    columns.forEach((c, i) => {
      if (i === 0) {
        text(row.children[0], r.name);
        if (row.children[0].title !== r.name) row.children[0].title = r.name;
      } else if (c.key === 'hits') {
        row.share.hidden = r.hits === null;
        if (row.share.value !== r.hits) row.share.value = r.hits ?? 0;
        text(row.children[i].lastChild, c.show(r));
      } else {
        text(row.children[i], c.show(r));
      }
    });
    row.children[7].classList.toggle('bad', r.errors > 0);
  }

  choose(route) {
    this.chosen = !route || route.name === this.chosen ? null : route.name;
    this.paint();
    this.onChoose(this.chosen);
  }

  key(e) {
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (e.key in moves) {
      this.at = Math.max(0, Math.min(this.list.length - 1, this.at + moves[e.key]));
      const top = this.at * ROW;
      if (top < this.body.scrollTop) this.body.scrollTop = top;
      else if (top + ROW > this.body.scrollTop + this.body.clientHeight) this.body.scrollTop = top + ROW - this.body.clientHeight;
      this.paint();
    } else if (e.key === 'Enter' || e.key === ' ') {
      this.choose(this.list[this.at]);
    } else if (e.key === 'Escape' && this.chosen !== null) {
      this.choose(null);
    } else {
      return;
    }
    e.preventDefault();
  }
}
