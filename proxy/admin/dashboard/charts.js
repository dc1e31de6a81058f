// Three charts of the same past, with one cursor: requests a second (stacked), latency (on a
// logarithmic scale) and hit rate. Colours and ink are those of the style sheet, dark or light.

import { $, h, mark, text } from './dom.js';
import { OUTCOMES, hitRate } from './figures.js';
import { percent, rate, time } from './format.js';

const SHOWN_S = 300;                    // at least
const sync = uPlot.sync('weir');
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const faded = (color, share) => color + Math.round(share * 255).toString(16).padStart(2, '0');

const whole = (v) => (v > 0 && Number.isInteger(Math.round(Math.log10(v) * 1e6) / 1e6) ? v : null);

function axes(values, size, log) {
  const filter = log ? (u, splits) => splits.map(whole) : (u, splits) => splits;
  const common = {
    stroke: ink('--quiet'), font: '11px ' + getComputedStyle(document.body).fontFamily,
    grid: { stroke: ink('--line'), width: 1 }, ticks: { show: false },
  };
  return [
    { ...common, grid: { show: false }, space: 70, size: 26, gap: 8,
      values: (u, list) => list.map((s) => clock(s)) },
    { ...common, size, gap: 4, space: 34, filter, grid: { ...common.grid, filter }, values: (u, list) => list.map((v) => (v === null ? '' : values(v))) },
  ];
}

function clock(s) {
  const d = new Date(s * 1000);
  const two = (n) => String(n).padStart(2, '0');
  return two(d.getHours()) + ':' + two(d.getMinutes()) + (d.getSeconds() ? ':' + two(d.getSeconds()) : '');
}

function chart(id, series, scale, values, size, bands = []) {
  const box = $(id);
  const u = new uPlot({
    width: box.clientWidth, height: box.clientHeight, padding: [8, 18, 0, 0], bands,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 }, sync: { key: sync.key } },
    scales: { x: { time: true }, y: scale },
    axes: axes(values, size, scale.distr === 3),
    series: [{}, ...series],
  }, [[], ...series.map(() => [])], box);
  return u;
}

// What stands under the cursor: the time, and a line for each [outcome, text].
function tip(u, lines) {
  const box = u.root.parentElement;
  if (!u.tip?.isConnected) {
    u.tip = h('div', { class: 'tip', 'aria-hidden': 'true' });
    box.append(u.tip);
  }
  u.tip.hidden = lines === null;
  if (lines === null) return;
  u.tip.replaceChildren(h('p', {}, clock(u.data[0][u.cursor.idx])),
    ...lines.map(([o, said]) => h('div', {}, mark(o), h('span', {}, o), h('span', {}, said))));
  const left = u.bbox.left / devicePixelRatio + u.cursor.left;
  u.tip.style.left = left > box.clientWidth / 2 ? 'auto' : left + 12 + 'px';
  u.tip.style.right = left > box.clientWidth / 2 ? box.clientWidth - left + 12 + 'px' : 'auto';
}

export class Charts {
  constructor() {
    this.hidden = new Set();
    this.seen = [];
    this.quantile = 'p99_us';
    this.all = [];
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.make());
    new ResizeObserver(() => this.all.forEach((u) => {
      const box = u.root.parentElement;
      u.setSize({ width: box.clientWidth, height: box.clientHeight });
    })).observe($('chart-traffic'));
    this.make();
  }

  make() {
    this.all.forEach((u) => { u.tip?.remove(); u.destroy(); });
    // Stacked: each is drawn as the sum of itself and those below, the highest first, so that hits
    // are the ground on which the others stand, and their line is seen.
    const colors = Object.fromEntries(OUTCOMES.map((o) => [o, ink('--' + o)]));
    const shown = this.seen.filter((o) => !this.hidden.has(o));
    this.shown = shown;
    const stacked = shown.toReversed().map((o) => ({
      label: o, stroke: colors[o], width: 1.25, fill: faded(colors[o], 0.28), points: { show: false } }));
    const single = shown.map((o) => ({ label: o, stroke: colors[o], width: 1.5, points: { show: false }, spanGaps: false }));
    this.traffic = chart('chart-traffic', stacked, { range: (u, lo, hi) => [0, Math.max(1, (hi ?? 0) * 1.08)] },
      rate, 40, shown.slice(1).map((o, i) => ({ series: [i + 1, i + 2] })));
    this.latency = chart('chart-latency', single,
      { distr: 3, range: (u, lo, hi) => (lo > 0 ? decades(lo, hi) : [10, 1e4]) }, brief, 46);
    this.hits = chart('chart-hits', [{ label: 'hit rate', stroke: colors.hit, width: 1.5,
      fill: faded(colors.hit, 0.14), points: { show: false } }], { range: [0, 1] }, (v) => Math.round(v * 100) + ' %', 44);
    this.all = [this.traffic, this.latency, this.hits];
    const lines = [
      (p) => this.shown.filter((o) => p.outcomes[o]).map((o) => [o, rate(p.outcomes[o].rate)]),
      (p) => this.shown.filter((o) => p.outcomes[o]).map((o) => [o, time(p.outcomes[o][this.quantile])]),
      (p) => [['hit', percent(hitRate(p.outcomes))]],
    ];
    this.all.forEach((u, i) => {
      // Of the three, which share a cursor, the one that the pointer is over speaks.
      u.hooks.setCursor = [() => {
        const p = u.root.matches(':hover') ? this.past?.points[u.cursor.idx] : undefined;
        tip(u, p ? lines[i](p) : null);
      }];
      u.over.addEventListener('mouseleave', () => tip(u, null));
    });
    if (this.past) this.draw(this.past);
  }

  // Shows or hides an outcome.
  toggle(outcome) {
    if (!this.hidden.delete(outcome)) this.hidden.add(outcome);
    this.make();
  }

  draw(past) {
    const points = past.points;
    this.past = past;
    const seen = OUTCOMES.filter((o) => points.some((p) => p.outcomes[o]));
    if (seen.join() !== this.seen.join()) {
      this.seen = seen;
      this.make();
      return;
    }
    const x = points.map((p) => p.t);
    const below = x.map(() => 0);
    const traffic = this.shown.map((o) => points.map((p, i) => (below[i] += p.outcomes[o]?.rate ?? 0))).reverse();
    const latency = this.shown.map((o) => points.map((p) => p.outcomes[o]?.[this.quantile] || null));
    const end = x[x.length - 1] ?? Date.now() / 1000;
    const range = { min: Math.min(x[0] ?? end, end - SHOWN_S), max: end };
    const put = (u, columns) => u.batch(() => {
      u.setData([x, ...columns], false);
      u.setScale('x', range);
    });
    put(this.traffic, traffic);
    put(this.latency, latency);
    put(this.hits, [points.map((p) => hitRate(p.outcomes))]);
    text($('chart-quantile'), this.quantile === 'max_us' ? 'max' : this.quantile.replace('_us', '').replace('p999', 'p99.9'));
  }
}

const decades = (lo, hi) => [10 ** Math.floor(Math.log10(lo)), 10 ** Math.ceil(Math.log10(hi * 1.01))];

// 100000 → "100 ms"
function brief(us) {
  if (us < 1e3) return us + ' µs';
  return us < 1e6 ? us / 1e3 + ' ms' : us / 1e6 + ' s';
}
