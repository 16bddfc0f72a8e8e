/**
 * The bedside view: one patient's waves and numbers, the alarms with their banner, and what a nurse does about them.
 * @module
 */

import { READ_MS, TOO_EARLY, drawAlarm, inStep, isDrawn, toRead } from './alarm.js';
import { byId, describe, hide, mark, within, write } from './dom.js';
import { METRICS, drawNumber } from './number.js';
import { EMPTY_BED } from './ward.js';
import { Lanes, SPEEDS, Sweep } from './waves.js';

/** @typedef {import('./app.js').State} State @typedef {import('./ward.js').ShownAlert} ShownAlert @typedef {import('./ward.js').Tile} Tile */
/** @typedef {import('./vitalbridge.js').Wave} Wave */

/** Key of the paper speed among what this browser remembers. */
const SPEED_KEY = 'vitalbridge.speed';
/** The longest audio pause, in s. */
const PAUSE_S = 120;
/** Without a wave for so long the numbers take its room, in ms. */
const NO_WAVES_MS = 4000;
/** Which waves a lane takes, the best first. A wave that has no lane of its own takes one that is free. @type {Record<string, RegExp>} */
const LANES = { ecg: /^ecg/i, pleth: /^pleth/i, resp: /^(resp|co2|airway)/i };
/** Waves of one lane, the one that is preferred first. */
const BEST = ['ecg_II', 'ecg2', 'ecg', 'ecg1', 'pleth', 'pleth_ir', 'resp', 'co2'];
const NAMES = /** @type {Record<string, string>} */ ({ pleth: 'Pleth', pleth_ir: 'Pleth IR', pleth_red: 'Pleth red', resp: 'Resp', co2: 'CO₂' });
/** Which limits stand beside a number. */
const LIMITS = { ...METRICS, pulse: '', nibp: 'blood_pressure.systolic' };

/** Minutes and seconds, `1:07`. @param {number} ms */
const countdown = (ms) => {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
};

/** @param {string} wave */
const nameOf = (wave) => NAMES[wave] ?? wave.replace(/^ecg_?/i, 'ECG ').replaceAll('_', ' ').trim();

const STYLE = getComputedStyle(document.documentElement);
/** The colour of what a lane shows: the number beside it has the same. @param {string} lane @param {string} wave */
const colourOf = (lane, wave) => STYLE.getPropertyValue(/^co2/i.test(wave) ? '--etco2' : { ecg: '--hr', pleth: '--spo2', resp: '--resp' }[lane] ?? '--nibp').trim();

/** The bedside view of one patient at a time. */
export class Bedside {
  /** @type {State} */ #state;
  #patient = '';
  #sweep = new Sweep();
  #lanes = new Lanes(LANES, BEST);
  #openedAt = 0;
  #hasWaves = false;
  #speed = SPEEDS[1] ?? 25;
  /** What is drawn: what a button acts on. @type {ShownAlert[]} */ #alerts = [];
  /** Since when each of them stands here as it is, in ms. @type {Map<string, {words: string, since: number}>} */ #seen = new Map();
  #drawn = '';

  /** @param {State} state */
  constructor(state) {
    this.#state = state;
    for (const lane of Object.keys(LANES)) {
      this.#sweep.add(lane, within(byId('waves'), `[data-lane=${lane}] canvas`), colourOf(lane, lane));
    }
    const kept = Number(localStorage.getItem(SPEED_KEY));
    if (SPEEDS.includes(kept)) this.#speed = kept;
    byId('speed').addEventListener('click', () => this.#setSpeed(SPEEDS[(SPEEDS.indexOf(this.#speed) + 1) % SPEEDS.length] ?? 25));
    /** What came while the finger was on its way goes on alarming. @param {ShownAlert[]} alerts @param {(alerts: ShownAlert[]) => void} act */
    const press = (alerts, act) => {
      const read = this.#readOf(alerts);
      if (read.length > 0) act(read);
      else if (alerts.length > 0) state.toast(TOO_EARLY);
    };
    byId('acknowledge').addEventListener('click', () => press(this.#waiting(), state.acknowledge));
    byId('pause').addEventListener('click', () => press(this.#sounding(), (alerts) => state.pauseAudio(alerts, PAUSE_S)));
    this.#setSpeed(this.#speed);
  }

  /** @param {number} speed in mm/s */
  #setSpeed(speed) {
    this.#speed = speed;
    localStorage.setItem(SPEED_KEY, String(speed));
    // A panel whose dots are of a known size is told so by its address: `?px-per-mm=5.19`.
    const pxPerMm = Number(new URLSearchParams(location.search).get('px-per-mm'));
    this.#sweep.setSpeed(speed, pxPerMm > 0 ? pxPerMm : undefined);
    write(byId('speed'), `${speed} mm/s`);
    describe(byId('speed'), 'aria-label', `Speed of the waves: ${speed} mm/s. Change`);
  }

  /** Shows a patient. @param {string} id */
  open(id) {
    if (id === this.#patient) return;
    this.close();
    this.#patient = id;
    this.#openedAt = this.#state.client?.now ?? 0;
    this.#hasWaves = false;
    this.#sweep.start();
    this.#state.client?.watchWaves([`waveform/${id}/+`]);
    const encoded = encodeURIComponent(id);
    for (const [link, to] of [['to-limits', `#/limits/${encoded}`], ['to-trends', `#/trends/${encoded}`], ['to-nibp', `#/trends/${encoded}?nibp`]]) {
      byId(/** @type {string} */ (link)).setAttribute('href', /** @type {string} */ (to));
    }
  }

  close() {
    if (!this.#patient) return;
    this.#patient = '';
    this.#alerts = [];
    this.#seen.clear();
    this.#drawn = '';
    this.#lanes.clear();
    this.#sweep.stop();
    byId('alarm-list').hidePopover?.();
    this.#state.client?.watchWaves([]);
    // Whoever is shown next: nothing of this patient stays, neither while the next is not known nor behind the sign-in.
    this.#drawTile(EMPTY_BED, undefined, []);
  }

  /** Takes samples. @param {Wave} wave */
  wave(wave) {
    if (wave.patient_id !== this.#patient) return;
    const place = this.#lanes.laneOf(wave, (lane) => this.#sweep.isLive(lane));
    if (!place) return;
    this.#hasWaves = true;
    // Read when the wave comes, and not in each frame: it makes the browser work out the style of the page.
    if (place.isAnew) this.#sweep.begin(place.lane, colourOf(place.lane, wave.wave));
    this.#sweep.push(place.lane, wave);
  }

  /** Alerts on which somebody has to act. @returns {ShownAlert[]} */
  #waiting() {
    return this.#alerts.filter(({ action }) => action !== '');
  }

  /** Alerts whose audio can be paused. @returns {ShownAlert[]} */
  #sounding() {
    return this.#alerts.filter(({ audible, state }) => audible && state === 'alarming');
  }

  /** Those that have stood here, or were counted, for long enough to be read. @param {ShownAlert[]} alerts */
  #readOf(alerts) {
    const now = this.#state.client?.now ?? 0;
    return alerts.filter(({ alertId }) => now - (this.#seen.get(alertId)?.since ?? now) >= READ_MS);
  }

  /**
   * @param {number} now
   * @returns {{tile: Tile | undefined, texts: [Element, ShownAlert][], counts: [Element, ShownAlert[]][]}} where alerts stand with
   *   their text, and where they are counted
   */
  draw(now) {
    const { ward, link, client } = this.#state;
    const tile = ward.tile(this.#patient, now, link !== 'lost', client?.wall);
    const isKnown = tile !== undefined || !this.#state.hasSnapshot;
    hide(byId('nobody'), isKnown);
    mark(byId('bedside'), 'nobody', isKnown ? '' : 'true');
    this.#alerts = ward.alertsOf(this.#patient);
    this.#seen = new Map(this.#alerts.map((alert) => {
      const known = this.#seen.get(alert.alertId);
      const words = toRead(alert);
      return [alert.alertId, known?.words === words ? known : { words, since: now }];
    }));
    this.#drawLanes(now);
    this.#drawActions();
    const [top, ...rest] = this.#alerts;
    const more = byId('more-alarms');
    const bed = tile ?? EMPTY_BED;
    const content = JSON.stringify([bed, this.#alerts, link, this.#state.isAlarmless, this.#state.isConnected, this.#state.mayAcknowledge,
      [...this.#state.acknowledging], [...ward.limitsOf(this.#patient)]]);
    if (content !== this.#drawn) {
      this.#drawn = content;
      this.#drawTile(bed, top, rest);
    }
    // The list lies over the banner, and has all of them.
    const isListed = byId('alarm-list').matches(':popover-open');
    const places = isListed ? [...byId('alarms').children] : [byId('bedside-alarm')];
    return {
      tile,
      texts: this.#alerts.slice(0, places.length).flatMap((alert, at) => this.#textOf(places[at], alert)),
      counts: !isListed && rest.length > 0 ? [[more, rest]] : [],
    };
  }

  /** @param {Element | undefined} place @param {ShownAlert} alert @returns {[Element, ShownAlert][]} none if it is not drawn there */
  #textOf(place, alert) {
    return place && isDrawn(place, alert) ? [[within(place, '.alarm-title'), alert]] : [];
  }

  /** @param {Tile} tile @param {ShownAlert | undefined} top @param {ShownAlert[]} rest */
  #drawTile(tile, top, rest) {
    const bedside = byId('bedside');
    const whose = tile.bed ? `bed ${tile.bed}` : tile.name;
    const changed = top !== undefined && (bedside.dataset.priority !== top.priority || bedside.dataset.active !== String(top.active));
    mark(bedside, 'priority', top?.priority);
    mark(bedside, 'active', top && String(top.active));
    drawAlarm(byId('bedside-alarm'), top, whose, this.#state);
    const more = byId('more-alarms');
    hide(more, rest.length === 0);
    write(more, `+${rest.length} ${tile.moreStars}`);
    describe(more, 'aria-label', `${rest.length} more alarms: show all`);
    this.#drawList(whose);
    const off = byId('bedside-off');
    mark(bedside, 'off', tile.off.length > 0 ? 'true' : '');
    hide(off, tile.off.length === 0);
    write(off, tile.off.length > 0 ? `ALARM OFF ${tile.off.join(', ')}` : '');
    for (const [name, metric] of Object.entries(METRICS)) {
      const cell = /** @type {HTMLElement} */ (within(bedside, `[data-cell=${name}]`));
      mark(cell, 'priority', tile.marked[metric]);
      drawNumber(cell, name === 'pulse' ? tile.pulse : tile.cells[/** @type {import('./ward.js').CellName} */ (name)]);
      this.#drawLimits(cell, LIMITS[/** @type {keyof typeof LIMITS} */ (name)]);
    }
    if (changed) for (const node of [bedside, ...bedside.querySelectorAll('.vital')]) inStep(node);
    this.#drawScore(tile.news2);
  }

  /** @param {HTMLElement} cell @param {string} metric */
  #drawLimits(cell, metric) {
    const { low, high } = this.#state.ward.limitsOf(this.#patient).get(metric) ?? {};
    const limits = within(cell, '.limits');
    write(within(limits, '.high'), high === undefined ? '' : String(high));
    write(within(limits, '.low'), low === undefined ? '' : String(low));
    const text = [low !== undefined && `below ${low}`, high !== undefined && `above ${high}`].filter(Boolean).join(' or ');
    describe(limits, 'title', text && `alarms ${text}`);
  }

  /** @param {import('./ward.js').ShownScore | undefined} score */
  #drawScore(score) {
    const line = byId('bedside-score');
    hide(line, score === undefined);
    if (!score) return;
    mark(line, 'band', score.band);
    write(within(line, '.score'), score.text);
    write(within(line, '.band'), score.says);
    write(within(line, '.missing'), score.missing);
    write(within(line, '.age'), score.age);
    if (line.title !== score.inputs) line.title = score.inputs;
  }

  /** Every alarm of the patient, each with its own button. @param {string} whose */
  #drawList(whose) {
    const list = byId('alarms');
    while (list.children.length > this.#alerts.length) list.lastElementChild?.remove();
    this.#alerts.forEach((alert, at) => {
      if (!list.children[at]) list.append(document.createElement('li'));
      drawAlarm(/** @type {HTMLElement} */ (list.children[at]), alert, whose, this.#state);
    });
    write(byId('alarm-list-title'), `Alarms of ${whose}`);
  }

  /** @param {number} now */
  #drawLanes(now) {
    const waits = now - this.#openedAt < NO_WAVES_MS;
    mark(byId('bedside'), 'waves', this.#hasWaves || waits ? '' : 'none');
    for (const lane of Object.keys(LANES)) {
      const node = within(byId('waves'), `[data-lane=${lane}]`);
      const wave = this.#lanes.waveIn(lane);
      write(within(node, '.lane-name'), wave ? nameOf(wave) : nameOf(lane));
      write(within(node, '.lane-note'), this.#sweep.isLive(lane) || (waits && !wave) ? '' : 'no wave');
    }
  }

  /** The buttons below: what they do now, and how long the pause lasts. */
  #drawActions() {
    const { mayAcknowledge, isConnected, acknowledging, client } = this.#state;
    const waiting = this.#waiting();
    const isOnlyLatched = waiting.length > 0 && waiting.every(({ action }) => action === 'Reset');
    const acknowledge = /** @type {HTMLButtonElement} */ (byId('acknowledge'));
    acknowledge.disabled = !mayAcknowledge || !isConnected || waiting.length === 0 || waiting.every(({ alertId }) => acknowledging.has(alertId));
    const read = this.#readOf(waiting).length;
    describe(acknowledge, 'aria-disabled', String(waiting.length > 0 && read === 0));
    write(within(acknowledge, '.action'), `${isOnlyLatched ? 'Reset' : 'Acknowledge'}${read > 1 ? ` ${read}` : ''}`);
    const sounding = this.#sounding().length > 0;
    const ends = this.#alerts.map(({ pausedUntil }) => pausedUntil).filter((end) => Number.isFinite(end));
    const left = ends.length > 0 && client?.wall !== undefined ? Math.min(...ends) - client.wall : NaN;
    // What has latched sounds on beside a paused one, until it is reset.
    const isPaused = Number.isFinite(left) && !this.#alerts.some(({ audible }) => audible);
    const pause = /** @type {HTMLButtonElement} */ (byId('pause'));
    pause.disabled = !mayAcknowledge || !isConnected || !sounding;
    describe(pause, 'aria-disabled', String(sounding && this.#readOf(this.#sounding()).length === 0));
    mark(pause, 'paused', isPaused ? 'true' : '');
    write(within(pause, '.action'), isPaused ? 'Audio paused' : 'Audio pause');
    write(within(pause, '.left'), countdown(isPaused ? Math.min(left, PAUSE_S * 1000) : PAUSE_S * 1000));
  }
}

/** Places what a bedside view is made of, once. */
export function prepare() {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById('vital-template'));
  for (const node of byId('vitals').querySelectorAll('[data-cell]')) node.append(template.content.cloneNode(true));
}
