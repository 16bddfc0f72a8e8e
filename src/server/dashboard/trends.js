/**
 * The trends of a patient: charts of hours and days with their gaps, alerts and limits, the history of the cuff, and a file of it all.
 * @module
 */

import { AXIS_PX, Chart, RIGHT_PX, clockOf, loadPlotter, sayTime } from './chart.js';
import { button, fill, hide, make, priorityMark, table, write } from './elements.js';
import { nibpHistory } from './nibp.js';
import { hear, repeat } from './pages.js';
import { ask, askFile, isAbort, wordsOf } from './rest.js';
import { Stream, bandsOf, linesOf, pointOf, pointsOfReading } from './series.js';
import { numberOf } from './ward.js';

/** @typedef {import('./pages.js').Context} Context @typedef {import('./chart.js').Kind} Kind @typedef {import('./chart.js').Span} Span */

const HOUR_MS = 3_600_000;
/** What can be chosen: words, ms, and in how many requests it is asked for, the newest first. @type {[string, number, number][]} */
const SPANS = [['1 h', HOUR_MS, 1], ['6 h', 6 * HOUR_MS, 2], ['24 h', 24 * HOUR_MS, 4], ['3 d', 72 * HOUR_MS, 6], ['7 d', 168 * HOUR_MS, 14]];
/** The shortest and the longest time that can be zoomed to, in ms. */
const SHORTEST_MS = 60_000;
const LONGEST_MS = 168 * HOUR_MS;
/** Points of one stream in the window. */
const POINTS = 1800;
/** Pages of one request that are followed; what is beyond is said. */
const MAX_PAGES = 200;
/** Pages of changes of alerts. */
const MAX_ALERT_PAGES = 10;
/** The live end is drawn this often at most, and the log is asked again for the live window, in ms. */
const TAIL_MS = 2000;
const RELOAD_MS = 60_000;
/** What came so long ago is on disk, or the bridge says that it is not, in ms. */
const SETTLED_MS = 10_000;
/** A file larger than this is not made in a browser, in bytes. */
const MAX_FILE = 256 * 1024 * 1024;

const PRESSURE = ['systolic', 'diastolic', 'mean'];
const STYLE = getComputedStyle(document.documentElement);
/** A vital sign has one colour in every view. @param {string} name */
const colour = (name) => STYLE.getPropertyValue(`--${name}`).trim();
/** @type {Kind[]} */
const KINDS = [
  { name: 'HR / PR', unit: 'bpm', metrics: ['heart_rate', 'pulse_rate'], colours: { heart_rate: colour('hr'), pulse_rate: colour('spo2') }, room: [50, 110], always: true, words: { heart_rate: 'HR', pulse_rate: 'PR' } },
  { name: 'SpO₂', unit: '%', metrics: ['spo2'], colours: { spo2: colour('spo2') }, room: [88, 100], always: true },
  { name: 'NIBP', unit: 'mmHg', metrics: PRESSURE.map((part) => `blood_pressure.${part}`), colours: Object.fromEntries(PRESSURE.map((part) => [`blood_pressure.${part}`, colour('nibp')])), room: [50, 150], spot: true, always: true,
    words: { 'blood_pressure.systolic': '▼ sys', 'blood_pressure.diastolic': '▲ dia', 'blood_pressure.mean': '● mean' } },
  { name: 'ART', unit: 'mmHg', metrics: PRESSURE.map((part) => `arterial_pressure.${part}`), colours: Object.fromEntries(PRESSURE.map((part) => [`arterial_pressure.${part}`, '#ff8a80'])), room: [50, 150],
    words: { 'arterial_pressure.systolic': 'sys', 'arterial_pressure.diastolic': 'dia', 'arterial_pressure.mean': 'mean' } },
  { name: 'RESP', unit: 'rpm', metrics: ['respiratory_rate'], colours: { respiratory_rate: colour('resp') }, room: [5, 30], always: true },
  { name: 'TEMP', unit: '°C', metrics: ['temperature'], colours: { temperature: colour('temp') }, room: [35, 39], always: true, sparse: true },
  { name: 'EtCO₂', unit: 'mmHg', metrics: ['etco2'], colours: { etco2: colour('etco2') }, room: [20, 60] },
  { name: 'CVP', unit: 'mmHg', metrics: ['central_venous_pressure'], colours: { central_venous_pressure: '#8ab4ff' }, room: [0, 20] },
  { name: 'Glucose', unit: 'mg/dL', metrics: ['glucose'], colours: { glucose: '#ffb86b' }, room: [60, 200], sparse: true },
  { name: 'NEWS2', unit: 'points', metrics: ['news2'], colours: { news2: colour('text') }, room: [0, 8], sparse: true },
];

/** The charts that are open, for whoever looks into them. @type {Trends | undefined} */
let open;

/** What the open page draws: times, values and gaps of each chart. */
export const drawn = () => open?.charts.map((chart) => chart.drawn) ?? [];

/** @param {HTMLElement} place @param {Context} context */
export async function show(place, context) {
  const Plotter = await loadPlotter();
  if (context.signal.aborted) return;
  const trends = new Trends(place, context, Plotter);
  open = trends;
  context.signal.addEventListener('abort', () => {
    trends.leave();
    if (open === trends) open = undefined;
  });
  await trends.load();
}

class Trends {
  /** @type {Map<string, Stream>} */ #streams = new Map();
  /** @type {Chart[]} */ charts = [];
  /** @type {any[]} */ #limits = [];
  /** @type {import('./series.js').Band[]} */ #bands = [];
  /** The window: `to` is undefined while it follows the present. @type {{length: number, to: number | undefined}} */ #window;
  /** @type {AbortController | undefined} */ #loading;
  #loadedAt = 0;
  #drawnAt = 0;
  #undated = 0;
  /** Of what came since: the newest of each metric. @type {Map<string, string>} */ #named = new Map();
  /** Everything of the window was read: what is not there was not measured. */
  #isWhole = false;
  #drawing = false;
  /** @type {Span} */ #span = { from: 0, to: 1 };
  #isNibp;
  #nibp;

  /** @param {HTMLElement} place @param {Context} context @param {import('./chart.js').Plotter} Plotter */
  constructor(place, context, Plotter) {
    this.context = context;
    this.Plotter = Plotter;
    this.#isNibp = context.query.has('nibp');
    this.#window = { length: this.#isNibp ? 24 * HOUR_MS : HOUR_MS, to: undefined };
    this.says = make('p', { class: 'trend-says', role: 'status' });
    this.when = make('p', { class: 'trend-when' });
    this.at = make('p', { class: 'trend-at', 'aria-live': 'polite' });
    this.lane = make('div', { class: 'alert-lane', role: 'img', 'aria-label': 'No alerts in this time' });
    this.list = make('div', { class: 'charts' });
    this.alerts = make('details', { class: 'trend-alerts' });
    this.#nibp = nibpHistory(context);
    this.tools = this.#tools();
    place.append(this.tools, make('div', { class: 'trend-line' }, this.when, this.at, this.says), this.lane, this.list, this.alerts, this.#nibp.element);
    if (this.#isNibp) place.insertBefore(this.#nibp.element, this.alerts);
    this.#listen(place);
  }

  /** @param {HTMLElement} place */
  #listen(place) {
    const { context } = this;
    hear(context, 'health_update', ({ data }) => this.#heard(data));
    hear(context, 'limits_changed', ({ data }) => data.patient_id === context.patient?.id && this.#loadLimits().then(() => this.drawSoon()));
    hear(context, 'alert', ({ data }) => data.patient_id === context.patient?.id && this.#loadAlerts().then(() => this.drawSoon()));
    // After a break the log has what did not come.
    hear(context, 'snapshot', () => this.load());
    hear(context, 'gap', () => this.#isLive && this.load());
    const sizes = new ResizeObserver(() => this.drawSoon());
    sizes.observe(place);
    context.signal.addEventListener('abort', () => sizes.disconnect());
    repeat(context, 1000, () => this.#tick());
  }

  get #isLive() {
    return this.#window.to === undefined;
  }

  /** What the window is now: the live end has a little room for what comes. @returns {Span} */
  #current() {
    const to = Math.round(this.#window.to ?? this.#now() + this.#window.length / 200);
    return { from: to - Math.round(this.#window.length), to };
  }

  /** What is shown: all charts show the same, until it is drawn again. @returns {Span} */
  span() {
    return this.#span;
  }

  /** The bridge's time; the browser's only where the bridge has not told one. */
  #now() {
    return this.context.client.wall ?? Date.now();
  }

  /** @param {string} metric @param {string} device */
  #stream(metric, device) {
    const key = `${metric}|${device}`;
    const stream = this.#streams.get(key) ?? new Stream(metric, device);
    this.#streams.set(key, stream);
    return stream;
  }

  /** A reading came. @param {any} data */
  #heard(data) {
    if (data.patient_id !== this.context.patient?.id) return;
    for (const { metric, point } of pointsOfReading(data)) {
      if (KINDS.some(({ metrics }) => metrics.includes(metric))) this.#stream(metric, data.device_id).push(point);
    }
    if (data.metric === 'blood_pressure') this.#nibp.heard(data);
    if (!data.timestamp) {
      this.#undated += 1;
      this.#named.set(data.metric, ` · ${data.metric.replaceAll('_', ' ')} ${numberOf(data).text}`);
      this.#sayUndated();
    }
  }

  #sayUndated() {
    this.#say(this.#undated > 0 ? `${this.#undated} readings of an unknown time are not shown${[...this.#named.values()].join('')}` : '');
  }

  async #tick() {
    // A number grows old also where nothing is drawn.
    for (const chart of this.charts) chart.readout(chart.cursorAt);
    if (!this.#isLive || this.context.client.isLost) return;
    const now = performance.now();
    if (now - this.#loadedAt > Math.max(RELOAD_MS, this.#window.length / 120)) await this.load();
    else if (now - this.#drawnAt > Math.max(TAIL_MS, this.#window.length / 800)) this.drawSoon();
  }

  /** Asks for everything that the window shows. */
  async load() {
    this.#loading?.abort();
    const mine = new AbortController();
    this.#loading = mine;
    this.#loadedAt = performance.now();
    const { signal } = mine;
    const span = this.#current();
    this.#span = span;
    this.#say('Loading …');
    try {
      await Promise.all([this.#loadAlerts(signal), this.#loadLimits(signal), this.#loadReadings(span, signal), this.#nibp.load(span, signal)]);
      if (signal.aborted) return;
      this.#isWhole = true;
      this.#sayUndated();
    } catch (cause) {
      if (signal.aborted || isAbort(cause)) return;
      this.#say(wordsOf(cause), true);
    }
    this.drawSoon();
  }

  /** Reads the window in parts, the newest first, so that something is there soon. @param {Span} span @param {AbortSignal} signal */
  async #loadReadings({ from, to }, signal) {
    const length = to - from;
    const parts = SPANS.find(([, ms]) => length <= ms * 1.1)?.[2] ?? 14;
    const metrics = [...new Set(this.#kinds().flatMap((kind) => kind.metrics.map((metric) => metric.split('.')[0])))].join(',');
    /** Streams of the window before are not of this one. */
    const fresh = new Set(this.#streams.keys());
    this.#undated = 0;
    for (let part = 0; part < parts; part += 1) {
      const end = to - (length * part) / parts;
      const begin = to - (length * (part + 1)) / parts;
      if (parts > 1) this.#say(`Loading ${part + 1} of ${parts} …`);
      await this.#loadPart({ from: begin, to: end }, { metric: metrics, max_points: Math.max(60, Math.ceil(POINTS / parts)) }, signal);
      if (signal.aborted) return;
      this.drawSoon();
    }
    for (const key of fresh) {
      const stream = this.#streams.get(key);
      stream?.load([], -Infinity, from);
      if (stream?.points.length === 0) this.#streams.delete(key);
    }
  }

  /** @param {Span} span @param {Record<string, string | number>} query @param {AbortSignal} signal */
  async #loadPart({ from, to }, query, signal) {
    /** @type {Map<string, import('./series.js').Point[]>} */
    const found = new Map();
    let cursor;
    for (let page = 0; ; page += 1) {
      const answer = await ask('/api/v1/readings', {
        query: { patient: this.context.patient?.id, from: new Date(from).toISOString(), to: new Date(to).toISOString(), ...query, cursor }, signal,
      });
      for (const data of answer.points) {
        const point = pointOf(data, Math.max(answer.every_ms, data.span_ms ?? 0));
        const key = `${data.metric}|${data.device_id}`;
        const points = found.get(key) ?? [];
        if (point) points.push(point);
        found.set(key, points);
      }
      this.#undated += answer.undated ?? 0;
      cursor = answer.next;
      if (!cursor || signal.aborted) break;
      if (page >= MAX_PAGES) throw new Error('There is more in this time than can be shown. Choose a shorter one.');
    }
    if (signal.aborted) return;
    // What the last seconds brought may not be on disk yet: there the log adds, and takes nothing away.
    const sure = Math.min(to, this.#now() - SETTLED_MS);
    for (const [key, points] of found) {
      const [metric = '', device = ''] = key.split('|');
      const stream = this.#stream(metric, device);
      if (sure > from) stream.load(points.filter(({ at }) => at < sure), from, sure);
      for (const point of points) if (point.at >= sure) stream.push(point);
    }
    for (const [key, stream] of this.#streams) if (!found.has(key) && sure > from) stream.load([], from, sure);
  }

  /** @param {AbortSignal} [signal] */
  async #loadAlerts(signal = this.context.signal) {
    const patient = this.context.patient?.id;
    const { from } = this.span();
    const { alerts } = await ask('/api/v1/alerts', { query: { patient }, signal });
    const rows = [];
    let cursor;
    for (let page = 0; page < MAX_ALERT_PAGES; page += 1) {
      const answer = await ask('/api/v1/alerts/history', { query: { patient, from: new Date(from).toISOString(), limit: 1000, cursor }, signal });
      rows.push(...answer.rows);
      cursor = answer.next;
      if (!cursor) break;
    }
    this.alertsCut = Boolean(cursor);
    this.#bands = bandsOf(rows, alerts);
  }

  /** @param {AbortSignal} [signal] */
  async #loadLimits(signal = this.context.signal) {
    const { limits } = await ask(`/api/v1/patients/${encodeURIComponent(this.context.patient?.id ?? '')}/limits`, { signal });
    this.#limits = limits;
  }

  /** The kinds that this page is about. */
  #kinds() {
    return this.#isNibp ? KINDS.filter(({ spot }) => spot) : KINDS;
  }

  /** Draws once for all that came within a frame. */
  drawSoon() {
    if (this.#drawing || this.context.signal.aborted) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (!this.context.signal.aborted) this.#draw();
    });
  }

  #draw() {
    this.#drawnAt = performance.now();
    const span = this.#current();
    this.#span = span;
    const isIn = (/** @type {import('./series.js').Band} */ band) => band.from < span.to && (band.to ?? Infinity) > span.from;
    const bands = this.#bands.filter(isIn);
    const wanted = this.#kinds().filter(({ metrics, always }) => always || [...this.#streams.values()].some(({ metric, points }) => metrics.includes(metric) && points.length > 0));
    this.#arrange(wanted);
    const width = this.list.clientWidth;
    const { height, fit } = this.#height(wanted.length);
    for (const chart of this.charts) {
      const { kind } = chart;
      const streams = [...this.#streams.values()].filter(({ metric }) => kind.metrics.includes(metric))
        .sort((a, b) => kind.metrics.indexOf(a.metric) - kind.metrics.indexOf(b.metric) || a.device.localeCompare(b.device));
      const about = (/** @type {string} */ metric) => kind.metrics.some((name) => name === metric || name.startsWith(`${metric}.`));
      chart.draw(this.Plotter, streams, bands.filter(({ metric }) => about(metric)), linesOf(this.#limits, kind.metrics), { width, height, lostAfterMs: this.context.lostAfterMs, hasTimes: !fit || chart === this.charts.at(-1), isWhole: this.#isWhole });
    }
    write(this.when, `${clockOf(span.from, true)} – ${this.#isLive ? 'now' : clockOf(span.to, true)}`);
    for (const one of this.tools.querySelectorAll('[data-span]')) {
      one.setAttribute('aria-pressed', String(Number(/** @type {HTMLElement} */ (one).dataset.span) === this.#window.length));
    }
    for (const one of /** @type {NodeListOf<HTMLButtonElement>} */ (this.tools.querySelectorAll('[data-live]'))) one.disabled = this.#isLive;
    this.#drawLane(bands, span);
  }

  /** Charts in their order, those that are wanted alone. @param {Kind[]} wanted */
  #arrange(wanted) {
    const names = wanted.map(({ name }) => name).join();
    if (names === this.charts.map(({ kind }) => kind.name).join()) return;
    for (const chart of this.charts) chart.destroy();
    this.charts = wanted.map((kind) => new Chart(kind, () => this.span(), {
      zoom: (span) => this.#zoom(span),
      now: () => this.#now(),
      point: (at) => {
        for (const chart of this.charts) {
          chart.cursorAt = at;
          chart.point(at);
        }
        sayTime(this.at, at);
      },
    }));
    this.list.replaceChildren(...this.charts.map(({ element }) => element));
  }

  /** All charts fit the screen where they stay readable: then the times stand below the last one. @param {number} count */
  #height(count) {
    const body = /** @type {HTMLElement} */ (this.list.closest('.page-body'));
    const room = body.clientHeight - this.tools.offsetHeight - 100;
    const each = Math.floor(room / count) - 30;
    const fit = each >= 52;
    return { height: fit ? Math.min(this.#isNibp ? 240 : 170, each) : 92, fit };
  }

  /** Alerts over time, also those about no chart. @param {import('./series.js').Band[]} bands @param {Span} span */
  #drawLane(bands, { from, to }) {
    const bars = bands.map((band) => {
      const bar = make('span', { class: 'alert-lane-bar', 'data-priority': band.priority, title: `${band.message}: ${clockOf(band.from)} – ${band.to === undefined ? 'now' : clockOf(band.to)}` });
      const left = Math.max(0, (band.from - from) / (to - from));
      const right = Math.min(1, ((band.to ?? to) - from) / (to - from));
      bar.style.left = `${left * 100}%`;
      bar.style.width = `max(3px, ${(right - left) * 100}%)`;
      return bar;
    });
    this.lane.style.setProperty('--axis', `${AXIS_PX}px`);
    this.lane.style.setProperty('--right', `${RIGHT_PX}px`);
    this.lane.replaceChildren(make('span', { class: 'alert-lane-name', 'aria-hidden': 'true' }, 'Alerts'), make('span', { class: 'alert-lane-bars' }, bars));
    const count = bands.length === 1 ? '1 alert' : `${bands.length || 'No'} alerts`;
    this.lane.setAttribute('aria-label', `${count} in this time`);
    const key = JSON.stringify(bands);
    if (this.alerts.dataset.key === key) return;
    this.alerts.dataset.key = key;
    hide(this.alerts, bands.length === 0);
    fill(this.alerts, make('summary', {}, `${count} in this time${this.alertsCut ? ' (the older ones are not shown)' : ''}`), table('Alerts in this time', ['Priority', 'Began', 'Ended', 'Alert'],
      bands.map((band) => [priorityMark(band.priority), clockOf(band.from, true), band.to === undefined ? 'stands' : clockOf(band.to, true), band.message])));
  }

  /** @param {Span} span */
  #zoom({ from, to }) {
    const length = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, to - from));
    const end = Math.min((from + to + length) / 2, this.#now());
    this.#window = { length, to: end };
    this.#changed();
  }

  /** @param {number} part how far, in windows */
  #move(part) {
    const to = (this.#window.to ?? this.#now()) + part * this.#window.length;
    this.#window = { length: this.#window.length, to: to >= this.#now() ? undefined : to };
    this.#changed();
  }

  /** @param {number} factor */
  #stretch(factor) {
    const { from, to } = this.span();
    const length = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, (to - from) * factor));
    // The live end stays the live end.
    this.#window = { length, to: this.#isLive ? undefined : Math.min(this.#now(), (from + to + length) / 2) };
    this.#changed();
  }

  #changed() {
    this.#isWhole = false;
    this.drawSoon();
    this.load();
  }

  #tools() {
    const spans = SPANS.map(([text, ms]) => button(text, () => {
      this.#window = { length: ms, to: this.#window.to };
      this.#changed();
    }, { 'data-span': ms, 'aria-pressed': 'false' }));
    const group = (/** @type {string} */ label, /** @type {Node[]} */ buttons) => make('div', { class: 'group', role: 'group', 'aria-label': label }, buttons);
    const id = encodeURIComponent(this.context.patient?.id ?? '');
    return make('div', { class: 'trend-tools' },
      group('Time shown', spans),
      group('Move', [
        button('◀', () => this.#move(-0.5), { 'aria-label': 'Earlier' }),
        button('▶', () => this.#move(0.5), { 'aria-label': 'Later', 'data-live': true }),
        button('Now', () => this.#move(Infinity), { 'data-live': true }),
      ]),
      group('Zoom', [button('+', () => this.#stretch(0.5), { 'aria-label': 'Zoom in' }), button('−', () => this.#stretch(2), { 'aria-label': 'Zoom out' })]),
      make('a', { class: 'press', href: this.#isNibp ? `#/trends/${id}` : `#/trends/${id}?nibp` }, this.#isNibp ? 'All trends' : 'NIBP history'),
      button('CSV', (event) => this.#download(/** @type {HTMLButtonElement} */ (event.currentTarget)), { class: 'press csv', 'aria-label': 'Download CSV of the time shown', title: 'Download the readings of the time shown as CSV' }));
  }

  /** @param {string} text @param {boolean} [isProblem] */
  #say(text, isProblem = false) {
    write(this.says, text);
    this.says.dataset.problem = String(isProblem);
  }

  /** The readings of the window as a file; a half of it is never taken for a whole. @param {HTMLButtonElement} control */
  async #download(control) {
    const { from, to } = this.span();
    const cancel = new AbortController();
    const signal = AbortSignal.any([cancel.signal, this.context.signal]);
    const end = button('Cancel', () => cancel.abort());
    control.disabled = true;
    control.after(end);
    const metric = [...new Set(this.charts.flatMap(({ kind }) => kind.metrics.map((name) => name.split('.')[0])))].join(',');
    const query = { format: 'csv', patient: this.context.patient?.id, metric, from: new Date(from).toISOString(), to: new Date(to).toISOString() };
    try {
      const parts = await this.#readFile(await askFile('/api/v1/export', query, signal), cancel);
      const link = make('a', { href: URL.createObjectURL(new Blob(parts, { type: 'text/csv' })), download: `${this.context.patient?.id}-${fileTime(from)}-${fileTime(to)}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      this.#say('The file was handed to the browser.');
    } catch (cause) {
      if (!this.context.signal.aborted) this.#say(cancel.signal.aborted ? cancel.signal.reason?.message ?? 'Cancelled.' : `No file: ${wordsOf(cause)}`, true);
    }
    end.remove();
    control.disabled = false;
  }

  /** @param {ReadableStream<Uint8Array<ArrayBuffer>>} file @param {AbortController} cancel */
  async #readFile(file, cancel) {
    const parts = [];
    let size = 0;
    const reader = file.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return parts;
      parts.push(value);
      size += value.length;
      this.#say(`Downloading … ${(size / 1e6).toFixed(1)} MB`);
      if (size > MAX_FILE) {
        const tooLarge = new Error(`More than ${MAX_FILE / 1024 / 1024} MB: choose a shorter time, or use /api/v1/export (docs/api.md).`);
        cancel.abort(tooLarge);
        throw tooLarge;
      }
    }
  }

  leave() {
    this.#loading?.abort();
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
  }
}

/** A time in the name of a file, in UTC as in the file itself. @param {number} at */
const fileTime = (at) => new Date(at).toISOString().replace(/[-:]|\.\d+/g, '');
