/**
 * The alarm list: what stands now and what became of everything before, with times and people; beside it the audit trail.
 * @module
 */

import { clockOf, whenOf } from './chart.js';
import { button, choice, field, fill, hide, make, priorityMark, table, write } from './elements.js';
import { hear, repeat } from './pages.js';
import { ask, isAbort, mayAcknowledge, mayAudit, wordsOf } from './rest.js';

/** @typedef {import('./pages.js').Context} Context */

/** Changes of alerts, and rows of the audit trail, of one request. */
const CHANGES = 500;
const AUDIT_ROWS = 100;
/** Requests that one look for older alerts makes at most. */
const MAX_REQUESTS = 4;
/** Alerts that are added to the list at once. */
const SHOWN = 25;
/** What the bridge says of its alerts by itself is asked for again, in ms. */
const LOOK_MS = 30_000;
/** Events that come together are one reason to ask, in ms. */
const SETTLE_MS = 300;
const HOUR_MS = 3_600_000;
/** This share of a text has to be in sight before anybody can be said to read it. */
const READABLE = 0.75;
const RANK = /** @type {Record<string, number>} */ ({ high: 3, medium: 2, low: 1, info: 0 });
const BRIDGE = '(bridge)';
/** What a change is called in the life of an alert. */
const CHANGE_WORDS = /** @type {Record<string, string>} */ ({
  start: 'began', update: 'changed', escalate: 'became more urgent', latch: 'condition over, not yet seen', recur: 'came back', resume: 'sounds again',
  acknowledge: 'acknowledged', pause: 'audio paused', end: 'ended',
});

/** @param {HTMLElement} place @param {Context} context */
export async function show(place, context) {
  const isAudit = context.query.has('audit');
  const tab = (/** @type {string} */ href, /** @type {string} */ text, /** @type {boolean} */ isHere) =>
    make('a', { href, class: 'tab', 'aria-current': isHere ? 'page' : undefined }, text);
  place.append(make('nav', { class: 'tabs', 'aria-label': 'Alarms and audit trail' }, tab('#/alarms', 'Alarms', !isAudit), tab('#/alarms?audit', 'Audit trail', isAudit)));
  if (isAudit) {
    context.title('Audit trail');
    await showAudit(place, context);
    return;
  }
  const present = new Present(context);
  const past = new Past(context);
  place.append(present.element, past.element);
  await Promise.all([present.load(), past.load()]);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let settling;
  const again = () => {
    clearTimeout(settling);
    settling = setTimeout(() => {
      if (context.signal.aborted) return;
      present.load();
      past.refresh();
    }, SETTLE_MS);
  };
  for (const name of ['alert', 'snapshot']) hear(context, name, again);
  repeat(context, LOOK_MS, () => present.load());
}

/** Whose an alert is. @param {Context} context @param {any} data */
function whose({ patients }, { patient_id: id, device_id: device }) {
  const patient = patients.find((one) => one.id === id);
  if (!id) return device ? `Bridge · ${device}` : 'Bridge';
  return [patient?.bed && `Bed ${patient.bed}`, patient?.name || id].filter(Boolean).join(' · ');
}

/** What is so about an alert now, in the words of IEC 60601-1-8. @param {any} data */
function stateOf({ change, condition, signal = {}, by, paused_until: pausedUntil, hidden_by: hidden, recurrence }) {
  const { audio = {}, visual = {} } = signal;
  const until = pausedUntil ? ` until ${clockOf(Date.parse(pausedUntil))}` : '';
  const said = [
    change === 'end' && 'over',
    visual.presence === 'latched' || audio.presence === 'latched' ? 'over, not yet seen' : '',
    audio.presence === 'ack' || visual.presence === 'ack' ? `ACKNOWLEDGED${by ? ` by ${by}` : ''}` : '',
    audio.activation === 'paused' && `AUDIO PAUSED${until}`,
    audio.activation === 'off' && 'AUDIO OFF',
    change !== 'end' && condition?.presence === 'unknown' && 'state unknown: no data',
    hidden && 'behind a more urgent one',
    recurrence > 0 && `came back ${recurrence}×`,
  ].filter(Boolean);
  return said.join(' · ') || 'alarming';
}

/** Those that stand. */
class Present {
  #list = make('div');
  #says = make('p', { class: 'quiet-text', role: 'status' });
  /** Alerts whose command is on its way. @type {Set<string>} */ #busy = new Set();
  #known = '';
  /** The newest event of each alert that the bridge was told to be shown here. @type {Map<string, number>} */ #confirmed = new Map();
  /** Rows whose text can be read now. @type {Set<Element>} */ #inSight = new Set();
  #sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.#inSight.add(target);
      else this.#inSight.delete(target);
    }
    this.#confirm();
  }, { threshold: READABLE });

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    context.signal.addEventListener('abort', () => this.#sight.disconnect());
    // A receipt that did not arrive is sent again.
    hear(context, 'alert_system', ({ data }) => {
      for (const { alert_id: id, delivery } of data.alerts ?? []) if (delivery && delivery !== 'shown') this.#confirmed.delete(id);
      this.#confirm();
    });
    document.addEventListener('visibilitychange', () => this.#confirm(), { signal: context.signal });
    this.element = make('section', { class: 'present', 'aria-labelledby': 'present-title' }, make('h3', { id: 'present-title' }, 'Present'), this.#says, this.#list);
  }

  async load() {
    try {
      const { alerts } = await ask('/api/v1/alerts', { signal: this.context.signal });
      this.#draw(alerts);
    } catch (cause) {
      if (isAbort(cause)) return;
      write(this.#says, wordsOf(cause));
    }
  }

  /** @param {any[]} alerts */
  #draw(alerts) {
    const shown = alerts.filter(({ priority }) => priority !== 'info')
      .sort((a, b) => (RANK[b.priority] ?? 0) - (RANK[a.priority] ?? 0) || Date.parse(b.onset) - Date.parse(a.onset));
    const key = JSON.stringify([shown, [...this.#busy]]);
    write(this.#says, shown.length === 0 ? 'No alert stands.' : shown.length === 1 ? '1 alert stands.' : `${shown.length} alerts stand.`);
    if (key === this.#known) return;
    this.#known = key;
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.alert : undefined;
    const rows = shown.map((data) => [priorityMark(data.priority), whose(this.context, data), make('strong', {}, this.context.says(data)), whenOf(Date.parse(data.onset), this.context.client.wall ?? Date.now()), stateOf(data), this.#action(data)]);
    fill(this.#list, shown.length > 0 && table('Alerts that stand', ['Priority', 'Whose', 'Alert', 'Since', 'State', 'Action'], rows, (row, at) => {
      row.dataset.priority = shown[at].priority;
      row.dataset.alert = shown[at].alert_id;
      row.dataset.seq = shown[at].seq;
    }));
    this.#sight.disconnect();
    this.#inSight.clear();
    for (const text of this.#list.querySelectorAll('td[data-column="Alert"] strong')) this.#sight.observe(text);
    if (focused) /** @type {HTMLElement | null} */ (this.#list.querySelector(`button[data-alert="${CSS.escape(focused)}"]`))?.focus();
  }

  /** Tells the bridge which alerts a person can read here. */
  #confirm() {
    const { client } = this.context;
    if (client.state !== 'live' || document.visibilityState !== 'visible') return;
    const news = [...this.#inSight].flatMap((text) => {
      const { alert = '', seq = '' } = text.closest('tr')?.dataset ?? {};
      return (this.#confirmed.get(alert) ?? -1) < Number(seq) ? [{ alertId: alert, seq: Number(seq) }] : [];
    });
    if (news.length === 0) return;
    for (const { alertId, seq } of news) this.#confirmed.set(alertId, seq);
    client.receipt('shown', news);
  }

  /** @param {any} data */
  #action(data) {
    const { audio = {}, visual = {} } = data.signal ?? {};
    const isLatched = visual.presence === 'latched' || audio.presence === 'latched';
    if (audio.presence === 'ack' || visual.presence === 'ack') return 'known';
    if (!mayAcknowledge(this.context.owner)) return 'your role may not';
    const text = isLatched ? 'Reset' : 'Acknowledge';
    return button(text, () => this.#act(data, isLatched), { 'data-alert': data.alert_id, disabled: this.#busy.has(data.alert_id), 'aria-label': `${text}: ${whose(this.context, data)}, ${this.context.says(data)}` });
  }

  /** @param {any} data @param {boolean} isLatched */
  async #act(data, isLatched) {
    this.#busy.add(data.alert_id);
    const { client } = this.context;
    // What the person saw counts, not what has come since.
    const result = isLatched
      ? await client.command({ name: 'alert.reset', alert_id: data.alert_id, expected_seq: data.seq })
      : await client.acknowledge(data.alert_id, data.seq);
    this.#busy.delete(data.alert_id);
    this.#known = '';
    await this.load();
    if (!result.ok) write(this.#says, `Not done: ${result.message ?? result.code ?? 'the bridge refused it'}`);
  }
}

/**
 * An alert with what became of it, as far as it was read.
 * @typedef {{id: string, newest: any, at: string, acknowledged?: {by: string, at: string}, ended?: string}} Told
 */

/** Those that were. */
class Past {
  /** By id, in the order of their newest change. @type {Map<string, Told>} */ #alerts = new Map();
  /** @type {string | undefined} */ #cursor;
  #isWhole = false;
  #shown = SHOWN;
  #list = make('div');
  #says = make('p', { class: 'quiet-text', role: 'status' });
  #more = button('Show older ones', () => this.#older());
  #filter = { patient: '', priority: '', kind: '', hours: '24' };
  /** @type {AbortController | undefined} */ #loading;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = make('section', { class: 'past', 'aria-labelledby': 'past-title' }, make('h3', { id: 'past-title' }, 'Past'), this.#filters(), this.#says, this.#list, this.#more);
  }

  #filters() {
    const patients = /** @type {[string, string][]} */ (this.context.patients.map(({ id, name, bed }) => [id, [bed, name || id].filter(Boolean).join(' · ')]));
    const changed = (/** @type {'patient' | 'priority' | 'kind' | 'hours'} */ name, /** @type {boolean} */ asks) => (/** @type {string} */ value) => {
      this.#filter[name] = value;
      this.#shown = SHOWN;
      if (asks) this.load();
      else this.#draw();
    };
    return make('div', { class: 'filters', role: 'group', 'aria-label': 'Filter' },
      field('Time', choice([['1', 'last hour'], ['24', 'last 24 h'], ['168', 'last 7 days'], ['', 'everything kept']], '24', changed('hours', true))).element,
      field('Patient', choice([['', 'everybody'], ...patients, [BRIDGE, 'the bridge itself']], '', changed('patient', true))).element,
      field('Priority', choice([['', 'all'], ['high', 'high'], ['medium', 'medium'], ['low', 'low']], '', changed('priority', false))).element,
      field('About', choice([['', 'all'], ['physiological', 'patients'], ['technical', 'equipment']], '', changed('kind', false))).element);
  }

  /** Begins anew. */
  async load() {
    this.#alerts.clear();
    this.#cursor = undefined;
    this.#isWhole = false;
    await this.#read();
  }

  /** Takes what has changed since. */
  async refresh() {
    const kept = { cursor: this.#cursor, isWhole: this.#isWhole };
    const { rows } = await this.#ask(undefined, undefined).catch(() => ({ rows: [] }));
    const before = [...this.#alerts.values()];
    this.#alerts.clear();
    this.#take(rows);
    for (const one of before) this.#join(one);
    this.#cursor = kept.cursor;
    this.#isWhole = kept.isWhole;
    this.#draw();
  }

  async #older() {
    this.#shown += SHOWN;
    if (!this.#isWhole && this.#wanted().length < this.#shown) await this.#read();
    this.#draw();
  }

  /** @param {string | undefined} cursor @param {AbortSignal} [signal] */
  #ask(cursor, signal = this.context.signal) {
    const { patient, hours } = this.#filter;
    const now = this.context.client.wall ?? Date.now();
    const from = hours ? new Date(now - Number(hours) * HOUR_MS).toISOString() : undefined;
    return ask('/api/v1/alerts/history', { query: { patient: patient === BRIDGE ? '' : patient, from, limit: CHANGES, cursor }, signal });
  }

  /** Reads on until there is enough to show. */
  async #read() {
    this.#loading?.abort();
    const mine = new AbortController();
    this.#loading = mine;
    const signal = AbortSignal.any([mine.signal, this.context.signal]);
    write(this.#says, 'Loading …');
    try {
      for (let request = 0; request < MAX_REQUESTS && !this.#isWhole; request += 1) {
        const { rows, next } = await this.#ask(this.#cursor, signal);
        this.#take(rows);
        this.#cursor = next ?? undefined;
        this.#isWhole = next === null;
        if (this.#wanted().length > this.#shown) break;
      }
      this.#draw();
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
  }

  /** @param {any[]} rows changes, the newest first */
  #take(rows) {
    for (const { data, timestamp } of rows) {
      this.#join({
        id: data.alert_id, newest: data, at: timestamp,
        ...(data.change === 'acknowledge' && { acknowledged: { by: data.by ?? '', at: timestamp } }),
        ...(data.change === 'end' && { ended: timestamp }),
      });
    }
  }

  /** @param {Told} told */
  #join(told) {
    const known = this.#alerts.get(told.id);
    if (!known) this.#alerts.set(told.id, told);
    else {
      known.acknowledged ??= told.acknowledged;
      known.ended ??= told.ended;
    }
  }

  #wanted() {
    const { priority, kind, patient } = this.#filter;
    return [...this.#alerts.values()].filter(({ newest }) => newest.priority !== 'info' && (priority === '' || newest.priority === priority)
      && (kind === '' || newest.kind === kind) && (patient !== BRIDGE || !newest.patient_id));
  }

  #draw() {
    const wanted = this.#wanted();
    const part = wanted.slice(0, this.#shown);
    const rows = part.map((told) => this.#cells(told));
    fill(this.#list, part.length > 0 && table('Past alerts, the newest first', ['Priority', 'Whose', 'Alert', 'Began', 'Ended', 'Acknowledged', 'Life'], rows, (row, at) => {
      row.dataset.alert = part[at]?.id;
    }));
    const more = !this.#isWhole || wanted.length > part.length;
    write(this.#says, part.length === 0 ? (more ? 'None among what was read so far.' : 'None in this time.') : `${part.length} ${more ? 'of more' : 'in all'}`);
    hide(this.#more, !more);
  }

  /** @param {Told} told */
  #cells({ id, newest, acknowledged, ended }) {
    const begin = Date.parse(newest.onset);
    const end = Date.parse(ended ?? '');
    const life = make('details', { class: 'life' }, make('summary', {}, 'Show'));
    life.addEventListener('toggle', () => life.open && life.childElementCount === 1 && this.#life(life, id), { once: false });
    return [
      priorityMark(newest.priority), whose(this.context, newest), this.context.says(newest), whenOf(begin, this.context.client.wall ?? Date.now()),
      Number.isFinite(end) ? `${whenOf(end, this.context.client.wall ?? Date.now())} (${lasted(end - begin)})` : 'stands',
      acknowledged ? `${acknowledged.by || 'somebody'} at ${clockOf(Date.parse(acknowledged.at))}` : newest.by && newest.change !== 'end' ? String(newest.by) : '–',
      life,
    ];
  }

  /** Each change of one alert. @param {HTMLElement} place @param {string} id */
  async #life(place, id) {
    try {
      const { life } = await ask(`/api/v1/alerts/${encodeURIComponent(id)}`, { signal: this.context.signal });
      const items = life.map((/** @type {any} */ { data, timestamp }) => make('li', {},
        `${clockOf(Date.parse(timestamp), true)} ${CHANGE_WORDS[data.change] ?? data.change}${data.by ? ` by ${data.by}` : ''}${data.end_reason ? ` (${String(data.end_reason).replaceAll('_', ' ')})` : ''}: ${this.context.says(data)}`));
      place.append(make('ol', {}, items));
    } catch (cause) {
      if (!isAbort(cause)) place.append(make('p', {}, wordsOf(cause)));
    }
  }
}

/** A length of time, as short as it can be read. @param {number} ms */
function lasted(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** @param {HTMLElement} place @param {Context} context */
async function showAudit(place, context) {
  if (!mayAudit(context.owner)) {
    place.append(make('p', { class: 'say' }, 'Your token does not show the audit trail. It takes the right `hst` on `audit`: a token that is not limited to patients.'));
    return;
  }
  /** @type {any[]} */
  let rows = [];
  /** @type {number | null | undefined} */
  let next;
  const filter = { patient: '', text: '', result: '' };
  const says = make('p', { class: 'quiet-text', role: 'status' });
  const list = make('div');
  const more = button('Show older ones', () => read());
  const search = make('input', { type: 'search', autocomplete: 'off' });
  search.addEventListener('input', () => {
    filter.text = search.value.trim().toLowerCase();
    draw();
  });
  const patients = /** @type {[string, string][]} */ (context.patients.map(({ id, name, bed }) => [id, [bed, name || id].filter(Boolean).join(' · ')]));
  const filters = make('div', { class: 'filters', role: 'group', 'aria-label': 'Filter' },
    field('Patient', choice([['', 'everything'], ...patients], '', (value) => {
      filter.patient = value;
      rows = [];
      next = undefined;
      read();
    })).element,
    field('Result', choice([['', 'all'], ['done', 'done'], ['refused', 'refused'], ['failed', 'failed']], '', (value) => {
      filter.result = value;
      draw();
    })).element,
    field('Search in what was read', search).element);
  place.append(filters, says, list, more);

  async function read() {
    write(says, 'Loading …');
    try {
      const page = await ask('/api/v1/audit', { query: { limit: AUDIT_ROWS, before: next, patient: filter.patient }, signal: context.signal });
      rows.push(...page.rows);
      next = page.next;
      draw();
    } catch (cause) {
      if (!isAbort(cause)) write(says, wordsOf(cause));
    }
  }

  function draw() {
    const wanted = rows.filter(({ data }) => (filter.result === '' || data.result === filter.result)
      && (filter.text === '' || Object.values(data).some((value) => String(value ?? '').toLowerCase().includes(filter.text))));
    fill(list, wanted.length > 0 && table('Audit trail, the newest first', ['Time', 'By', 'What', 'Object', 'Patient', 'Result', 'Reason', 'From'], wanted.map(({ data, timestamp }) => [
      whenOf(Date.parse(timestamp), context.client.wall ?? Date.now()), data.by, data.action.replaceAll('_', ' '), data.object, data.patient_id ?? '–', make('span', { class: 'result', 'data-result': data.result }, data.result), data.reason ?? '', data.address ?? '–',
    ])));
    const older = next === null ? '' : ', there are older ones';
    write(says, wanted.length === rows.length ? `${rows.length} rows${older}` : `${wanted.length} of the ${rows.length} rows that were read${older}`);
    hide(more, next === null);
  }

  await read();
}
