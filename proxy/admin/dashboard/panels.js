// What is shown of the figures and not asked for: tiles, outcomes, origins, tiers, the slowest.

import { $, Table, facts, h, mark, meter, text } from './dom.js';
import { OUTCOMES, hitRate, inWindow, sum } from './figures.js';
import { bytes, number, percent, rate, span, time } from './format.js';

export function tiles(doc, window, rates) {
  const outcomes = inWindow(doc.total, window);
  const errors = outcomes.error?.rate ?? 0;
  const w = doc.writes;
  facts($('tiles'), [
    ['Requests', rate(sum(outcomes, 'rate')), '', ' /s'],
    ['Hit rate', percent(hitRate(outcomes))],
    ['Hit p99', time(outcomes.hit?.p99_us)],
    ['Miss p99', time(outcomes.miss?.p99_us)],
    ['Errors', rate(errors), errors > 0 ? 'bad' : '', ' /s'],
    ['To clients', bytes(rates.counter('client_bytes_out')), '', ' /s'],
    ['Connections', number(doc.gauges.client_connections), '', ` ${number(doc.gauges.origin_connections)} to origins`],
    w ? ['Pending writes', number(w.pending), w.takes ? '' : 'bad', w.dead > 0 ? ` ${number(w.dead)} dead` : '']
      : ['Resident', bytes(doc.process.resident_bytes)],
  ]);
}

// ---- by outcome: the legend of the charts as well ----------------------------------------------

const quantiles = [['p50', 'p50_us'], ['p75', 'p75_us'], ['p90', 'p90_us'], ['p95', 'p95_us'], ['p99', 'p99_us'],
  ['p99.9', 'p999_us'], ['max', 'max_us']];

export class Outcomes {
  constructor(toggle) {
    this.table = new Table($('outcomes'), [
      { title: 'Outcome', cell: (r, td) => {
        if (td.outcome === r.name) return;
        td.outcome = r.name;
        const key = h('button', { type: 'button', class: 'key', 'aria-pressed': 'true', title: 'show or hide in the charts' },
          mark(r.name), r.name);
        key.addEventListener('click', () => {
          key.setAttribute('aria-pressed', String(key.getAttribute('aria-pressed') !== 'true'));
          toggle(r.name);
        });
        td.replaceChildren(key);
      } },
      { title: 'Req/s', class: 'n', cell: (r) => rate(r.f.rate) },
      { title: 'Share', class: 'n', cell: (r) => percent(r.share) },
      { title: 'Requests', class: 'n', cell: (r) => number(r.f.count) },
      ...quantiles.map(([title, q]) => ({ title, class: 'n', cell: (r) => time(r.f[q]) })),
    ], 'No request in this time.');
  }

  update(entry, window) {
    const outcomes = inWindow(entry, window);
    const all = sum(outcomes, 'count');
    this.table.update(OUTCOMES.filter((o) => outcomes[o]).map((o) => ({ name: o, f: outcomes[o], share: outcomes[o].count / all })));
  }
}

// ---- origins -----------------------------------------------------------------------------------

function used(td, value, limit, said, trouble) {
  if (!td.meter) {
    td.meter = meter(trouble);
    td.replaceChildren(td.meter, h('span'));
  }
  const share = limit > 0 ? value / limit : 0;
  if (td.meter.value !== share) td.meter.value = share;
  text(td.lastChild, said);
}

function state(td, word, how) {
  if (td.className !== how) td.className = how;
  return word;
}

export class Origins {
  constructor() {
    const phase = (r, name, q) => time(r.times?.[name]?.[q]);
    this.table = new Table($('origins-table'), [
      { title: 'Server', cell: (r) => `${r.origin}  ${r.server}` },
      { title: 'State', cell: (r, td) => (r.ejected ? state(td, 'out', 'bad')
        : r.failures > 0 ? state(td, 'failing', 'warn') : state(td, 'up', 'good')) },
      { title: 'Connections', cell: (r, td) => used(td, r.connections, r.max, `${r.connections} of ${r.max}`, true) },
      { title: 'Busy', class: 'n', cell: (r) => number(r.busy) },
      { title: 'Waiting', class: 'n', cell: (r) => number(r.waiting) },
      { title: 'Req/s', class: 'n', cell: (r) => rate(r.times?.total?.rate ?? 0) },
      { title: 'Connect p50', class: 'n', cell: (r) => phase(r, 'connect', 'p50_us') },
      { title: 'First byte p50', class: 'n', cell: (r) => phase(r, 'first_byte', 'p50_us') },
      { title: 'p95', class: 'n', cell: (r) => phase(r, 'first_byte', 'p95_us') },
      { title: 'p99', class: 'n', cell: (r) => phase(r, 'first_byte', 'p99_us') },
      { title: 'Failures', class: 'n', cell: (r) => number(r.failures) },
    ], 'No origin was asked yet.');
  }

  update(doc, window) {
    const times = new Map(doc.origins.map((o) => [o.name, o]));
    this.table.update((doc.pools ?? []).map((p) => {
      const of = times.get(`${p.origin}/${p.server}`);
      const at = (name) => (of?.[name]?.[window]?.count > 0 ? of[name][window] : undefined);
      return { ...p, times: of && { connect: at('connect'), first_byte: at('first_byte'), total: at('total') } };
    }));
  }
}

// ---- tiers -------------------------------------------------------------------------------------

function tierRows(doc, rates) {
  const { gauges, tiers } = doc;
  const rows = [{ name: 'memory', state: ['in use', 'good'], objects: gauges.cache_objects, size: gauges.cache_memory,
    limit: gauges.cache_memory_limit, hits: rates.counter('cache_hits', 'cache_stale'), misses: rates.counter('cache_misses'),
    stores: rates.counter('cache_stores'), evictions: rates.counter('cache_evictions') }];
  const how = (t) => (t.failing ? ['failing', 'bad'] : t.loading ? ['loading', 'warn'] : ['in use', 'good']);
  if (tiers?.disk) {
    rows.push({ name: 'disk', state: how(tiers.disk), objects: tiers.disk.objects, size: tiers.disk.bytes,
      limit: tiers.disk.limit_bytes, hits: rates.counter('disk_hits'), misses: rates.counter('disk_misses'),
      stores: rates.counter('disk_stores'), evictions: rates.counter('disk_evictions'), queued: tiers.disk.queued_bytes });
  }
  if (tiers?.redis) {
    rows.push({ name: 'Redis', state: how(tiers.redis), hits: rates.counter('redis_hits'), misses: rates.counter('redis_misses'),
      stores: rates.counter('redis_stores'), queued: tiers.redis.queued_bytes });
  }
  return rows;
}

export class Tiers {
  constructor() {
    this.table = new Table($('tiers-table'), [
      { title: 'Tier', cell: (r) => r.name },
      { title: 'State', cell: (r, td) => state(td, ...r.state) },
      { title: 'Size', cell: (r, td) => (r.limit === undefined ? '–' : used(td, r.size, r.limit, `${bytes(r.size)} of ${bytes(r.limit)}`, false)) },
      { title: 'Responses', class: 'n', cell: (r) => number(r.objects) },
      { title: 'Hits/s', class: 'n', cell: (r) => rate(r.hits) },
      { title: 'Misses/s', class: 'n', cell: (r) => rate(r.misses) },
      { title: 'Stores/s', class: 'n', cell: (r) => rate(r.stores) },
      { title: 'Evictions/s', class: 'n', cell: (r) => rate(r.evictions) },
      { title: 'Queue', class: 'n', cell: (r) => bytes(r.queued) },
    ], '');
  }

  update(doc, rates) {
    const { bus, redis } = doc;
    this.table.update(tierRows(doc, rates));
    const servers = new Map((redis ?? []).map((s) => [s.address, s]));
    const parts = [...servers.values()].map((s) => `${s.role} ${s.address}: ${s.state}`);
    if (bus) {
      parts.push(`purges are shared by ${bus.instances} instance${bus.instances === 1 ? '' : 's'}, lease ${bus.lease}, ` +
        `${number(bus.lag)} not applied here yet`);
    }
    text($('bus'), parts.length > 0 ? 'Redis: ' + parts.join('; ') : '');
    $('bus').className = bus?.lease === 'lost' ? 'bad' : 'quiet';
  }
}

// "FETCH=0.227s pool=0.000s tries=2" → "fetch 227 ms, tries 2"
function steps(said) {
  const parts = (said ?? '').split(' ').filter((p) => p !== '' && !p.endsWith('=0.000s')).map((p) => {
    const [name, value] = p.toLowerCase().split('=');
    return name + ' ' + (value.endsWith('s') ? time(parseFloat(value) * 1e6) : value);
  });
  return parts.join(', ') || '–';
}

// ---- the slowest, the last purges --------------------------------------------------------------

const ago = (doc, at_ms) => span((doc.now_ms - at_ms) / 1000) + ' ago';

export class Slowest {
  constructor() {
    this.table = new Table($('slowest-table'), [
      { title: 'Took', class: 'n', cell: (r) => time(r.us) },
      { title: 'When', cell: (r) => r.ago },
      { title: 'Status', class: 'n', cell: (r) => String(r.status || '–') },
      { title: 'Outcome', cell: (r, td) => {
        if (td.outcome !== r.outcome) td.replaceChildren(mark(r.outcome), r.outcome);
        td.outcome = r.outcome;
      } },
      { title: 'Request', class: 'mono fill', cell: (r) => `${r.method} ${r.url}` },
      { title: 'Route', class: 'short', cell: (r) => r.route ?? '–' },
      { title: 'Where the time went', cell: (r) => steps(r.steps) },
    ], 'None yet.');
  }

  update(doc) {
    this.table.update(doc.slowest.map((r) => ({ ...r, ago: ago(doc, r.at_ms) })));
  }
}

export class Purges {
  constructor() {
    this.table = new Table($('purges-table'), [
      { title: 'When', cell: (r) => r.ago },
      { title: 'What', class: 'mono fill', cell: (r) => r.items.map(purged).join(', ') },
      { title: 'How', cell: (r) => (r.erased ? 'erased' : r.soft ? 'soft' : 'hard') },
      { title: 'Responses', class: 'n', cell: (r) => number(r.objects) },
    ], 'None since the start.');
  }

  update(doc) {
    const c = doc.counters;
    text($('purge-totals'), `Since the start ${number(c.purges)} purges, those of writes included` +
      `${doc.bus ? `, and ${number(c.bus_applied)} of other instances` : ''}; ${number(c.purged_objects)} responses freed.`);
    this.table.update((doc.purges ?? []).map((p) => ({ ...p, ago: ago(doc, p.at_ms) })));
  }
}

export function purged(item) {
  const [kind] = Object.keys(item);
  return kind === 'all' ? 'everything' : `${kind} ${item[kind]}`;
}
