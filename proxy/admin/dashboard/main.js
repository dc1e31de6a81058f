// The dashboard: one stream of figures a second, and what is made of it. Nothing is kept but the
// token (live.js); a tab that is not looked at draws nothing.

import { Charts } from './charts.js';
import { $, text } from './dom.js';
import { explainForm } from './explain.js';
import { Past, Rates, inWindow } from './figures.js';
import { span } from './format.js';
import { Grid } from './grid.js';
import { Refused, api, events } from './live.js';
import { Origins, Outcomes, Purges, Slowest, Tiers, tiles } from './panels.js';
import { purgeForm } from './purge.js';
import { Writes } from './writes.js';

const AGAIN_MS = 2000;
const SILENT_MS = 5000;                 // of a stream that says something each second

let window_ = '1m';
let scope = null;                       // a route's name, or null for all
let paused = false;
let doc = null;                         // the last figures
let stream = null;                      // AbortController of what is read
let past = new Past();
let pasts = 0;                          // how often the scope changed: an answer may come too late
let rates = new Rates();
let heard = 0;                          // when the stream last said something

function complain(what) {
  text($('alert'), what);
  $('alert').hidden = what === '';
}

const entry = (route) => (route === null ? doc.total : doc.routes.find((r) => r.name === route));

// ---- drawing -----------------------------------------------------------------------------------

const charts = new Charts();
const outcomes = new Outcomes((o) => charts.toggle(o));
const origins = new Origins();
const tiers = new Tiers();
const slowest = new Slowest();
const purges = new Purges();
const writes = new Writes(complain);
const grid = new Grid(choose);

function draw() {
  if (doc === null) return;
  document.title = `${location.host} · weir`;
  text($('about'), `${doc.version} · up ${span(doc.uptime_s)} · ${location.host}`);
  tiles(doc, window_, rates);
  outcomes.update(entry(scope), window_);
  charts.draw(past);
  grid.update(doc.routes, window_, rates);
  origins.update(doc, window_);
  tiers.update(doc, rates);
  slowest.update(doc);
  purges.update(doc);
  writes.update(doc, rates);
}

let due = false;
function drawSoon() {
  if (due || paused) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (!paused) draw();
  });
}

function state(word, said) {
  $('state').dataset.state = word;
  text($('state'), said ?? word);
}

// ---- reading -----------------------------------------------------------------------------------

async function fetchPast() {
  const mine = ++pasts;
  const of = scope;
  const { status, doc: was } = await api('GET', '/stats/history' + (of === null ? '' : '?route=' + encodeURIComponent(of)));
  if (status === 200 && mine === pasts) {
    past.before(doc?.now_ms ? doc.now_ms / 1000 : Date.now() / 1000, was.steps);
    drawSoon();
  }
}

async function read() {
  for (;;) {
    stream = new AbortController();
    try {
      const windows = window_ === '10s' ? '10s' : `10s,${window_}`;
      let first = past.points.length === 0;
      for await (const event of events('/stats/stream?windows=' + windows, stream.signal)) {
        if (doc !== null && event.now_ms - event.uptime_s * 1000 > doc.now_ms + 2000) {     // another process by now
          past = new Past();
          rates = new Rates();
          first = true;
        }
        doc = event;
        heard = performance.now();
        rates.add(doc);
        past.add(doc.now_ms / 1000, inWindow(entry(scope), '10s'));
        if (first) fetchPast().catch((e) => complain('The past could not be read: ' + e.message));
        first = false;
        if (!paused) state('live');
        drawSoon();
      }
      state('lost', 'lost, trying again');
    } catch (e) {
      if (stream.signal.aborted) continue;      // another window was chosen, or it fell silent
      state('lost', 'lost, trying again');
      if (e instanceof Refused) complain(e.message);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

// What went away without a word (a sleeping machine, a tunnel) is noticed by its silence.
setInterval(() => {
  if ($('state').dataset.state === 'live' && performance.now() - heard > SILENT_MS) {
    state('lost', 'lost, trying again');
    stream.abort();
  }
}, SILENT_MS / 5);

// ---- choosing ----------------------------------------------------------------------------------

function choose(route) {
  scope = route;
  past = new Past();
  text($('scope'), route ?? 'all routes');
  $('scope').className = route === null ? '' : 'one';
  $('unscope').hidden = route === null;
  if (doc !== null) past.add(doc.now_ms / 1000, inWindow(entry(scope), '10s'));
  fetchPast().catch((e) => complain('The past could not be read: ' + e.message));
  drawSoon();
}

$('unscope').addEventListener('click', () => grid.choose(null));
$('windows').addEventListener('change', (e) => {
  window_ = e.target.value;
  stream?.abort();
});
$('quantiles').addEventListener('change', (e) => {
  charts.quantile = e.target.value;
  if (doc !== null) charts.draw(past);
});
$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  text($('pause'), paused ? 'Go on' : 'Pause');
  state(paused ? 'paused' : 'live');
  drawSoon();
});
document.addEventListener('keydown', (e) => {
  if (e.key === '/' && !e.ctrlKey && !e.metaKey && !e.target.closest('input, textarea, select, dialog')) {
    e.preventDefault();
    $('filter').focus();
  }
});

purgeForm(complain);
explainForm(complain);
read();
