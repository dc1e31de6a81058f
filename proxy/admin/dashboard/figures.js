// What the page makes of the figures that come each second: rates of counters, and the past of what
// is charted.

export const OUTCOMES = ['hit', 'stale', 'miss', 'collapsed', 'revalidated', 'pass', 'write', 'accepted', 'error'];
const READS = ['hit', 'stale', 'miss', 'collapsed', 'revalidated'];
const KEPT_S = 600;                     // of the past
const RATE_S = 10;                      // that a counter's rate is taken over

// A point's hit rate; null when nothing was read.
export function hitRate(outcomes) {
  const count = (names) => names.reduce((n, o) => n + (outcomes[o]?.count ?? 0), 0);
  const reads = count(READS);
  return reads > 0 ? count(['hit', 'stale']) / reads : null;
}

// {hit: {"10s": FIGURES}} → {hit: FIGURES} of one window, those that were used in it.
export function inWindow(entry, window) {
  const out = {};
  for (const o of OUTCOMES) {
    const f = entry?.outcomes[o]?.[window];
    if (f?.count > 0) out[o] = f;
  }
  return out;
}

export const sum = (outcomes, what) => Object.values(outcomes).reduce((n, f) => n + f[what], 0);

// The last ten minutes of a route, or of all: points {t, outcomes}, each of the ten seconds before t.
export class Past {
  points = [];

  add(t, outcomes) {
    const { points } = this;
    if (points.length > 0 && points[points.length - 1].t >= t) return;
    points.push({ t, outcomes });
    while (points[0].t < t - KEPT_S) points.shift();
  }

  // What was before the page looked, of /stats/history.
  before(now, steps) {
    const first = this.points[0]?.t ?? Infinity;
    const older = steps.map((s) => ({ t: now - s.age_s, outcomes: s.outcomes })).filter((p) => p.t < first);
    this.points.unshift(...older);
  }
}

// Rates of counters, and of the bytes of routes, over the last seconds.
export class Rates {
  samples = [];

  add(doc) {
    const t = doc.now_ms / 1000;
    const bytes = new Map(doc.routes.map((r) => [r.name, r.bytes]));
    const last = this.samples[this.samples.length - 1];
    if (last && doc.counters.requests < last.counters.requests) this.samples = [];     // it began anew
    this.samples.push({ t, counters: doc.counters, bytes });
    while (this.samples[0].t < t - RATE_S - 0.5) this.samples.shift();
  }

  #over(of) {
    const [first] = this.samples;
    const last = this.samples[this.samples.length - 1];
    if (!last || last.t <= first.t) return null;
    const a = of(first), b = of(last);
    return a === undefined || b === undefined ? null : (b - a) / (last.t - first.t);
  }

  counter(...names) {
    return this.#over((s) => names.reduce((n, name) => n + s.counters[name], 0));
  }

  bytes(route) {
    return this.#over((s) => s.bytes.get(route));
  }
}
