/**
 * The alarm limits of a patient: what is in force, who set it, why and until when; and a form to change it, for those who may.
 * @module
 */

import { clockOf } from './chart.js';
import { button, choice, field, fill, hide, make, nameFor, priorityMark, table, write } from './elements.js';
import { hear } from './pages.js';
import { Refused, ask, isAbort, mayChange, wordsOf } from './rest.js';

/** @typedef {import('./pages.js').Context} Context */

const HOUR_MS = 3_600_000;
/** Ends that are offered: for limits up to 30 days, for ALARM OFF up to 24 h (docs/alerts.md). @type {[string, string][]} */
const ENDS = [['1', '1 hour'], ['4', '4 hours'], ['8', '8 hours'], ['12', '12 hours'], ['24', '24 hours'], ['72', '3 days'], ['168', '7 days'], ['720', '30 days'], ['own', 'another time …']];
const LONGEST_OFF_H = 24;
/** An end of exactly the longest time would be too late when it arrives, in ms. */
const MARGIN_MS = 60_000;
/** @typedef {'below' | 'at_most' | 'above' | 'at_least'} Edge */
/** Rules about the bridge are of no patient: nothing about them is changed here. */
const OF_BRIDGE = new Set(['alert_limit', 'configuration_error', 'storage_degraded', 'fallback_failed', 'clock_unsynchronised', 'disk_full', 'uplink_down', 'uplink_rejected', 'alert_undelivered', 'buffer_low']);

/** @param {HTMLElement} place @param {Context} context */
export async function show(place, context) {
  const limits = new Limits(context);
  place.append(limits.element);
  await limits.load();
  hear(context, 'limits_changed', ({ data }) => data.patient_id === context.patient?.id && limits.changed(data));
  hear(context, 'snapshot', () => limits.load());
}

/** @param {string} rule */
const nameOf = (rule) => rule.replaceAll('_', ' ').replace('news2', 'NEWS2').replace(/^./, (letter) => letter.toUpperCase()).replace('Spo2', 'SpO₂').replace('desat', 'desaturation');

/** A time of the bridge, which writes some as text and some as ms. @param {string | number | null | undefined} at */
function timeOf(at) {
  const ms = typeof at === 'number' ? at : Date.parse(at ?? '');
  return Number.isFinite(ms) ? clockOf(ms, true) : '';
}

/** A time as a rule writes it. @param {number} ms */
const spanOf = (ms) => (ms % 1000 === 0 ? `${ms / 1000}` : `${(ms / 1000).toFixed(1)}`);

/** How the rule compares, as its words say. @param {string} text @param {'low' | 'high'} side @returns {Edge} */
function edgeOf(text, side) {
  if (side === 'low') return /or below/.test(text) ? 'at_most' : 'below';
  return /or above(?! -?\d)/.test(text) ? 'at_least' : 'above';
}

class Limits {
  #says = make('p', { class: 'quiet-text', role: 'status' });
  #list = make('div');
  /** @type {any[]} */ #limits = [];
  /** @type {{rule: string, changed: (data: any) => void} | undefined} */ #form;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.may = mayChange(context.owner);
    const role = context.owner.role || 'your role';
    const note = this.may
      ? `Signed in as ${context.owner.user} (${role}). Each change asks for a reason and an end, and is in the audit trail.`
      : `You may look at the limits. To change them takes a clinician or an admin; you are signed in as ${context.owner.user || 'somebody'} (${role}).`;
    this.element = make('section', { class: 'limit-list', 'aria-label': 'Limits in force' }, make('p', { class: 'page-note', 'data-may': this.may }, note), this.#says, this.#list);
  }

  #address(rule = '') {
    return `/api/v1/patients/${encodeURIComponent(this.context.patient?.id ?? '')}/limits${rule && `/${encodeURIComponent(rule)}`}`;
  }

  async load() {
    try {
      const { limits } = await ask(this.#address(), { signal: this.context.signal });
      this.#limits = limits;
      this.#draw();
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
  }

  /** Somebody changed something, here or elsewhere. @param {any} data */
  async changed(data) {
    await this.load();
    const what = data.in_force ? `${data.action}: ${data.after ?? ''}` : `${data.action}`;
    write(this.#says, `${clockOf(this.context.client.wall ?? Date.now())} ${nameOf(data.rule)} ${what}${data.by ? ` by ${data.by}` : ''}${data.reason ? ` (${data.reason})` : ''}`);
    if (this.#form?.rule === data.rule) this.#form?.changed(data);
    /** @type {HTMLElement | null} */
    const row = this.#list.querySelector(`tr[data-rule="${CSS.escape(data.rule)}"]`);
    if (row) row.dataset.fresh = 'true';
  }

  #draw() {
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.closest('tr')?.dataset.rule : undefined;
    const of = (/** @type {boolean} */ isOfBridge, /** @type {string} */ kind) =>
      this.#limits.filter((limit) => OF_BRIDGE.has(limit.rule) === isOfBridge && (isOfBridge || limit.kind === kind) && limit.priority !== 'info');
    const groups = /** @type {[string, any[]][]} */ ([['Patient', of(false, 'physiological')], ['Equipment', of(false, 'technical')], ['Bridge', of(true, '')]]);
    fill(this.#list, groups.filter(([, limits]) => limits.length > 0).map(([name, limits]) => make('section', {}, make('h3', {}, name), this.#table(name, limits))));
    if (focused) /** @type {HTMLElement | null} */ (this.#list.querySelector(`tr[data-rule="${CSS.escape(focused)}"] button`))?.focus();
  }

  /** @param {string} name @param {any[]} limits */
  #table(name, limits) {
    const canChange = this.may && name !== 'Bridge';
    const columns = ['Rule', 'In force', 'Priority', 'Set by', 'Reason', 'Until', ...(canChange ? ['Change'] : [])];
    return table(`Limits about ${name.toLowerCase()}`, columns, limits.map((limit) => {
      const decision = limit.off ?? limit.decision;
      const inForce = make('span', {}, limit.off ? make('strong', { class: 'alarm-off' }, 'ALARM OFF') : make('strong', {}, limit.text),
        limit.off ? ` (${limit.text})` : limit.delay_ms > 0 && ` for ${spanOf(limit.delay_ms)} s`);
      return [
        nameOf(limit.rule), inForce, priorityMark(limit.priority), decision?.by ?? sourceOf(limit), decision?.reason ?? '–', timeOf(decision?.expires) || (decision ? 'no end' : '–'),
        ...(canChange ? [button('Change', () => this.#open(limit), { 'aria-label': `Change ${nameOf(limit.rule)}` })] : []),
      ];
    }), (row, at) => {
      row.dataset.rule = limits[at].rule;
      if (limits[at].off) row.dataset.off = 'true';
      if (limits[at].source === 'runtime') row.dataset.runtime = 'true';
    });
  }

  /** @param {any} limit */
  #open(limit) {
    /** @type {HTMLDialogElement | null} */ (this.element.querySelector('dialog[open]'))?.close();
    const form = new Form(this.context, limit, this.#address(limit.rule), () => this.load());
    this.#form = { rule: limit.rule, changed: (data) => form.overtaken(data) };
    form.element.addEventListener('close', () => {
      this.#form = undefined;
      form.element.remove();
      /** @type {HTMLElement | null} */ (this.#list.querySelector(`tr[data-rule="${CSS.escape(limit.rule)}"] button`))?.focus();
    });
    this.element.append(form.element);
    // Not modal: the alarms above stay in sight and within reach.
    form.element.show();
    form.element.addEventListener('keydown', ({ key }) => key === 'Escape' && form.element.close());
    this.context.signal.addEventListener('abort', () => form.element.close());
  }
}

/** Where limits come from that no person has decided here. @param {any} limit */
function sourceOf({ source, line }) {
  const words = /** @type {Record<string, string>} */ ({ built_in: 'built in', file: 'rule file', override: 'rule file, for this patient', runtime: 'a person' });
  return `${words[source] ?? source}${line ? `, line ${line}` : ''}`;
}

/** The form in which one rule is changed. */
class Form {
  #problem = make('p', { class: 'problem', role: 'alert', hidden: true });
  /** By the name that the bridge has for it. @type {Map<string, ReturnType<typeof field>>} */ #fields = new Map();
  /** @type {'set' | 'off'} */ #wish = 'set';
  /** @type {{side: 'low' | 'high', edge: Edge, input: HTMLInputElement}[]} */ #levels = [];
  #delay = make('input', { type: 'number', min: '0', step: 'any', inputmode: 'decimal' });
  #reason = make('input', { type: 'text', maxlength: '200', autocomplete: 'off' });
  #ends;
  #own = make('input', { type: 'datetime-local', step: '60', 'aria-label': 'End' });
  #setPart;

  /** @param {Context} context @param {any} limit @param {string} address @param {() => void} done */
  constructor(context, limit, address, done) {
    this.context = context;
    this.limit = limit;
    this.address = address;
    this.done = done;
    const title = nameFor('limit-title');
    this.#ends = choice(ENDS, '12', (value) => hide(this.#own, value !== 'own'));
    hide(this.#own, true);
    this.#setPart = make('div', { class: 'form-part' }, this.#levelFields());
    hide(this.#setPart, !this.#hasLevels());
    const both = make('div', { class: 'form-part' }, this.#field('reason', 'Reason', this.#reason, 'Why, for those who come after you.').element, this.#endField());
    const form = make('form', { novalidate: true, on: { submit: (/** @type {Event} */ event) => this.#submit(event) } },
      this.#problem, this.#wishes(), this.#setPart, both,
      make('div', { class: 'form-actions' }, make('button', { type: 'submit', class: 'primary' }, 'Put in force'), button('Cancel', () => this.element.close()), ...this.#backs()));
    this.element = make('dialog', { class: 'form', 'aria-labelledby': title },
      make('h3', { id: title }, nameOf(limit.rule)),
      make('p', { class: 'quiet-text' }, `In force: ${limit.summary}. Set by ${(limit.off ?? limit.decision)?.by ?? sourceOf(limit)}. You are ${context.owner.user}.`), form);
  }

  /** @param {string} name @param {string} label @param {any} input @param {string} [help] */
  #field(name, label, input, help) {
    const made = field(label, input, help);
    this.#fields.set(name, made);
    return made;
  }

  /** Other limits, or ALARM OFF for a while. */
  #wishes() {
    if (!this.#hasLevels()) {
      this.#wish = 'off';
      return null;
    }
    const name = nameFor('wish');
    const one = (/** @type {'set' | 'off'} */ value, /** @type {string} */ text) => {
      const input = make('input', { type: 'radio', name, value, checked: value === 'set' });
      input.addEventListener('change', () => {
        this.#wish = value;
        hide(this.#setPart, value === 'off');
        for (const option of this.#ends.options) option.disabled = value === 'off' && Number(option.value) > LONGEST_OFF_H;
        if (this.#ends.selectedOptions[0]?.disabled) this.#ends.value = '12';
      });
      return make('label', { class: 'radio' }, input, text);
    };
    return make('fieldset', { class: 'wishes' }, make('legend', {}, 'What'), one('set', 'Other limits'), one('off', 'ALARM OFF for a while'));
  }

  #hasLevels() {
    return typeof this.limit.low === 'number' || typeof this.limit.high === 'number';
  }

  #levelFields() {
    const { limit } = this;
    const words = { below: 'Alarm below', at_most: 'Alarm at and below', above: 'Alarm above', at_least: 'Alarm at and above' };
    /** @type {Node[]} */
    const made = [];
    for (const side of /** @type {const} */ (['low', 'high'])) {
      if (typeof limit[side] !== 'number') continue;
      const edge = edgeOf(limit.text, side);
      const input = make('input', { type: 'number', step: 'any', inputmode: 'decimal', value: limit[`${side}_text`] ?? limit[side] });
      this.#levels.push({ side, edge, input });
      made.push(this.#field(side, `${words[edge]} (${limit.unit})`, input).element);
    }
    if (made.length === 0) return [];
    this.#delay.value = spanOf(limit.delay_ms);
    return [...made, this.#field('delay', 'For at least (s)', this.#delay).element];
  }

  #endField() {
    const made = this.#field('end', 'Ends after', this.#ends, 'By the bridge\'s clock. Then the rule\'s own limits hold again.');
    made.element.append(this.#own);
    return made.element;
  }

  /** What is changed for a while can be taken back. */
  #backs() {
    const { limit } = this;
    const changed = limit.source === 'runtime';
    return [
      limit.off && button('Switch the alarm on', () => this.#send('PUT', { enabled: true, reason: this.#reason.value })),
      changed && !limit.off && button('Back to the rule\'s own limits', () => this.#send('DELETE')),
    ].filter((one) => one instanceof Node);
  }

  /** The end in the bridge's time, as RFC 3339; empty if there is none. */
  #end() {
    if (this.#ends.value === 'own') {
      const at = new Date(this.#own.value);
      return Number.isNaN(at.getTime()) ? '' : at.toISOString();
    }
    return new Date((this.context.client.wall ?? Date.now()) + Number(this.#ends.value) * HOUR_MS - MARGIN_MS).toISOString();
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    if (this.#wish === 'off') {
      this.#send('PUT', { enabled: false, until: this.#end(), reason: this.#reason.value });
      return;
    }
    const changed = Object.fromEntries(this.#levels.map(({ edge, input }) => [edge, input.value === '' ? null : Number(input.value)]));
    const delay = this.#delay.value === '' ? null : `${Math.round(Number(this.#delay.value) * 1000)}ms`;
    this.#send('PUT', { ...changed, delay, expires: this.#end(), reason: this.#reason.value });
  }

  /** @param {'PUT' | 'DELETE'} method @param {Record<string, unknown>} [body] */
  async #send(method, body) {
    this.#tell('');
    for (const one of this.#fields.values()) one.wrong('');
    const buttons = /** @type {NodeListOf<HTMLButtonElement>} */ (this.element.querySelectorAll('button'));
    for (const one of buttons) one.disabled = true;
    try {
      const done = await ask(this.address, { method, body, query: method === 'DELETE' ? { reason: this.#reason.value } : {}, signal: this.context.signal });
      if (done.durable === false) this.#tell('It holds, but the bridge could not yet write it to its disk.');
      else this.element.close();
      this.done();
    } catch (cause) {
      if (!isAbort(cause)) this.#refused(cause);
    }
    for (const one of buttons) one.disabled = false;
  }

  /** Puts each problem that the bridge names to its field. @param {unknown} cause */
  #refused(cause) {
    if (!(cause instanceof Refused) || cause.code !== 'validation') {
      this.#tell(wordsOf(cause));
      return;
    }
    const members = /** @type {Record<string, string>} */ ({ reason: 'reason', expires: 'end', until: 'end', delay: 'delay' });
    for (const { edge, side } of this.#levels) members[edge] = side;
    const first = this.#levels[0]?.side ?? '';
    /** @type {Map<string, string[]>} */
    const problems = new Map();
    for (const problem of cause.message.split('; ')) {
      const [, member = ''] = /^`(\w+)`/.exec(problem) ?? [];
      // A limit is named by its condition, and which of two is wrong by its side.
      const name = member === 'when' || member === 'clear' ? (/high limit/.test(problem) && this.#levels.length > 1 && !/low limit/.test(problem) ? 'high' : first) : members[member] ?? '';
      const text = problem.replace(/^`\w+`:? ?/, '');
      const place = this.#fields.has(name) ? name : '';
      problems.set(place, [...(problems.get(place) ?? []), place ? text : problem]);
    }
    for (const [name, texts] of problems) {
      if (name) this.#fields.get(name)?.wrong(texts.join('. '));
      else this.#tell(texts.join('. '));
    }
    if (!problems.has('')) this.#tell('The bridge did not take this; see below.');
    /** @type {HTMLElement | null} */ (this.element.querySelector('[aria-invalid]'))?.focus();
  }

  /** Somebody else was faster. @param {any} data */
  overtaken({ by, after, action }) {
    if (by === this.context.owner.user) return;
    this.#tell(`${by ?? 'The bridge'} has changed this meanwhile (${action}${after ? `: ${after}` : ''}). What you put in force replaces it.`);
  }

  /** @param {string} text */
  #tell(text) {
    write(this.#problem, text);
    hide(this.#problem, text === '');
  }
}
