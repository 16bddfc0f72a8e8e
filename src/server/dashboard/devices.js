/**
 * The devices: how each is, its battery, its signal and when it was last heard; and what is near and could be added.
 * @module
 */

import { clockOf } from './chart.js';
import { button, choice, field, fill, hide, make, table, write } from './elements.js';
import { hear, repeat } from './pages.js';
import { ask, isAbort, mayChange, wordsOf } from './rest.js';
import { ageText } from './ward.js';

/** @typedef {import('./pages.js').Context} Context */

/** How often the list and a scan or pairing under way are asked for, in ms. */
const LIST_MS = 5000;
const JOB_MS = 1000;
/** Weaker than this is too weak to rely on (docs/ble.md), in dBm. */
const WEAK_DBM = -85;
/** As the alert `battery_low` has it, in percent. */
const LOW_BATTERY = 20;

/** States of a link, in words. */
const LINK_WORDS = /** @type {Record<string, string>} */ ({
  live: 'live', silent: 'silent: connected, no data', sensor_off: 'sensor off the patient', lost: 'link lost', closed: 'not connected', opening: 'connecting', waiting: 'waiting',
});
/** What is measured now and then: no reading for a while is no fault. */
const SPOT = new Set(['blood_pressure', 'temperature', 'glucose', 'weight', 'height', 'bmi', 'body_fat']);
const KNOWN = 'Known';
const FOUND = 'Found';

/** @param {HTMLElement} place @param {Context} context */
export async function show(place, context) {
  const list = new List(context);
  const air = new Air(context);
  place.append(list.element, air.element);
  await Promise.all([list.load(), air.begin()]);
  hear(context, 'device_status', () => list.load());
  repeat(context, LIST_MS, () => list.load());
}

/** A signal strength, in words as well. @param {number | null | undefined} dbm */
function signalOf(dbm) {
  if (typeof dbm !== 'number') return '–';
  return make('span', { class: 'signal', 'data-weak': dbm < WEAK_DBM }, `${dbm} dBm${dbm < WEAK_DBM ? ' · too weak to rely on' : dbm < -75 ? ' · weak' : ' · good'}`);
}

/** @param {number | null | undefined} percent */
function batteryOf(percent) {
  if (typeof percent !== 'number') return 'unknown';
  return make('span', { class: 'battery', 'data-low': percent < LOW_BATTERY }, `${percent} %${percent < LOW_BATTERY ? ' · low' : ''}`);
}

/** How a device is of which its source tells no link: by what it delivers. @param {any[]} readings @param {(metric: string, patient: string) => number} lostAfterMs */
function deliveryOf(readings, lostAfterMs) {
  if (readings.length === 0) return 'unknown';
  if (readings.some(({ age_ms: age, metric, patient_id: patient }) => age <= lostAfterMs(metric, patient) && metric !== 'battery')) return 'delivers';
  return readings.some(({ metric }) => SPOT.has(metric)) ? 'measures now and then' : 'no data now';
}

/** The devices of the configuration. */
class List {
  #says = make('p', { class: 'quiet-text', role: 'status' });
  #list = make('div');
  #isAsking = false;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.element = make('section', { 'aria-labelledby': 'devices-title' }, make('h3', { id: 'devices-title' }, 'In use'), this.#says, this.#list);
  }

  async load() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const { signal } = this.context;
    try {
      const [{ devices }, { readings }, radio] = await Promise.all([
        ask('/api/v1/devices', { signal }), ask('/api/v1/readings/latest', { signal }),
        // Who may not look at the radio still sees the devices.
        ask('/api/v1/ble', { signal }).catch((cause) => (isAbort(cause) ? Promise.reject(cause) : { sensors: [] })),
      ]);
      this.#draw(devices, readings, radio.sensors ?? []);
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
    this.#isAsking = false;
  }

  /** @param {any[]} devices @param {any[]} readings @param {any[]} sensors */
  #draw(devices, readings, sensors) {
    const known = new Map(devices.map((device) => [device.device_id, device]));
    // A source may read several devices; each that was heard has its row.
    for (const { device_id: id, patient_id: patient, source_id: source, mode } of readings) {
      if (!known.has(id) && source !== 'derived') known.set(id, { device_id: id, source_id: source, patient_id: patient, mode, link: '', status: [] });
    }
    const rows = [...known.values()].sort((a, b) => String(a.patient_id ?? '').localeCompare(String(b.patient_id ?? ''), 'en', { numeric: true }) || a.device_id.localeCompare(b.device_id));
    write(this.#says, rows.length === 0 ? 'No device is configured, or your token shows none.' : rows.length === 1 ? '1 device' : `${rows.length} devices`);
    fill(this.#list, rows.length > 0 && table('Devices in use', ['Device', 'Patient', 'State', 'Battery', 'Signal', 'Last heard', 'Measures'], rows.map((device) => this.#cells(device, readings, sensors)), (row, at) => {
      row.dataset.device = rows[at].device_id;
      row.dataset.link = rows[at].link;
    }));
  }

  /** @param {any} device @param {any[]} readings @param {any[]} sensors */
  #cells(device, readings, sensors) {
    const own = readings.filter(({ device_id: id }) => id === device.device_id);
    const sensor = sensors.find(({ source }) => source === device.source_id);
    const battery = sensor?.battery ?? own.find(({ metric }) => metric === 'battery')?.value;
    const ages = own.map(({ age_ms: age }) => age).filter(Number.isFinite);
    const heard = ages.length > 0 ? `${ageText(Math.min(...ages))} ago` : sensor?.last_seen ? clockOf(Date.parse(sensor.last_seen), true) : 'never in this run';
    const patient = this.context.patients.find(({ id }) => id === device.patient_id);
    const reason = sensor?.reason ?? device.reason;
    const flags = (device.status ?? []).map((/** @type {string} */ flag) => flag.replaceAll('_', ' '));
    const state = LINK_WORDS[device.link] ?? (device.link ? device.link.replaceAll('_', ' ') : deliveryOf(own, this.context.lostAfterMs));
    return [
      make('span', {}, make('strong', {}, device.device_id), device.mode !== 'real' && make('span', { class: 'tile-mark' }, String(device.mode).toUpperCase()), make('span', { class: 'under' }, `source ${device.source_id}`)),
      patient ? [patient.bed && `Bed ${patient.bed}`, patient.name || patient.id].filter(Boolean).join(' · ') : device.patient_id ?? 'nobody',
      make('span', {}, make('span', { class: 'link-state', 'data-link': device.link }, state), flags.length > 0 && make('span', { class: 'under' }, flags.join(', ')), reason && make('span', { class: 'under' }, reason)),
      batteryOf(battery), signalOf(sensor?.rssi), heard,
      [...new Set(own.map(({ metric }) => metric.replaceAll('_', ' ')))].join(', ') || '–',
    ];
  }
}

/** What is near, and how it is added. */
class Air {
  #radio = make('p', { class: 'page-note' });
  #says = make('p', { class: 'quiet-text', role: 'status' });
  #list = make('div');
  #prompt = make('div', { class: 'prompt', role: 'alert', hidden: true });
  #seconds = choice([['15', '15 s'], ['30', '30 s'], ['60', '1 min'], ['300', '5 min']], '15');
  #scan = button('Scan', () => this.#start('/api/v1/ble/scan', { seconds: Number(this.#seconds.value) }));
  #known = button('What is known', () => this.#showKnown());
  #cancel = button('End it', () => this.#end(), { hidden: true });
  #isPolling = false;
  #asked = '';

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.may = mayChange(context.owner);
    const tools = make('div', { class: 'filters' }, field('Listen for', this.#seconds).element, this.#scan, this.#known, this.#cancel);
    const help = make('details', { class: 'help-steps' }, make('summary', {}, 'How a sensor is added'), make('ol', {},
      make('li', {}, 'Wake it: wear the strap, put a finger into the oximeter, start a measurement of the cuff. End its connection to any phone.'),
      make('li', {}, 'Scan. What looks like a sensor is listed with its signal and what it measures.'),
      make('li', {}, 'If it says so, put it into pairing mode and pair it here.'),
      make('li', {}, 'The configuration of the bridge is a file, and this page does not write it: put the lines shown here into it, with the patient whose sensor it is, run "vitalbridge check", and restart the daemon.')));
    this.element = make('section', { 'aria-labelledby': 'add-title' }, make('h3', { id: 'add-title' }, 'Scan and add (Bluetooth)'), this.#radio,
      this.may ? tools : make('p', { class: 'quiet-text' }, `To scan and pair takes a clinician or an admin who is not limited to patients; you are signed in as ${context.owner.user || 'somebody'} (${context.owner.role || 'no role'}).`),
      help, this.#prompt, this.#says, this.#list);
  }

  async begin() {
    const { signal } = this.context;
    try {
      const { adapter, radio, sensors } = await ask('/api/v1/ble', { signal });
      write(this.#radio, radio
        ? `Radio${adapter ? ` ${adapter}` : ''}: ${radio.obstacle ? `cannot be used: ${radio.reason ?? String(radio.obstacle).replaceAll('_', ' ')}` : radio.scanning ? 'listening' : 'in use'}; ${sensors.length} configured Bluetooth sensors.`
        : 'No configured source uses the Bluetooth radio.');
      // A scan that somebody else began is shown as well.
      if (this.may) await this.#look();
    } catch (cause) {
      if (!isAbort(cause)) write(this.#radio, wordsOf(cause));
    }
  }

  /** @param {string} path @param {object} body */
  async #start(path, body) {
    try {
      this.#show(await ask(path, { method: 'POST', body, signal: this.context.signal }));
      this.#poll();
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
  }

  async #end() {
    try {
      this.#show(await ask('/api/v1/ble/job', { method: 'DELETE', signal: this.context.signal }));
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
  }

  /** The scan or pairing under way, if there is one. @returns {Promise<boolean>} true while it goes on */
  async #look() {
    try {
      const job = await ask('/api/v1/ble/job', { signal: this.context.signal });
      this.#show(job);
      const goesOn = job.state === 'running' || job.state === 'question';
      if (goesOn) this.#poll();
      return goesOn;
    } catch (cause) {
      const isNone = /** @type {any} */ (cause).code === 'no_job';
      if (!isNone && !isAbort(cause)) write(this.#says, wordsOf(cause));
      return false;
    }
  }

  async #poll() {
    if (this.#isPolling) return;
    this.#isPolling = true;
    do await new Promise((resolve) => setTimeout(resolve, JOB_MS));
    while (!this.context.signal.aborted && await this.#look());
    this.#isPolling = false;
  }

  /** @param {any} job */
  #show({ kind, state, prompt, devices, error }) {
    const goesOn = state === 'running' || state === 'question';
    this.#scan.disabled = goesOn;
    hide(this.#cancel, !goesOn);
    const what = kind === 'scan' ? 'Scan' : 'Pairing';
    const found = devices.length === 1 ? '1 device' : `${devices.length} devices`;
    write(this.#says, state === 'failed' ? `${what} failed: ${error ?? 'no reason was given'}` : goesOn ? `${what} goes on: ${found} so far` : `${what} is done: ${found}`);
    this.#ask(state, prompt);
    if (devices.length > 0 || goesOn) this.#table(FOUND, devices);
  }

  async #showKnown() {
    try {
      const { devices } = await ask('/api/v1/ble/devices', { signal: this.context.signal });
      write(this.#says, devices.length === 0 ? 'The radio knows no device.' : `${devices.length} devices are known to the radio.`);
      this.#table(KNOWN, devices);
    } catch (cause) {
      if (!isAbort(cause)) write(this.#says, wordsOf(cause));
    }
  }

  /** @param {string} caption @param {any[]} devices */
  #table(caption, devices) {
    const sorted = [...devices].sort((a, b) => Number(Boolean(b.config)) - Number(Boolean(a.config)) || (b.rssi ?? -999) - (a.rssi ?? -999));
    fill(this.#list, sorted.length > 0 && table(`${caption} Bluetooth devices`, ['Device', 'What', 'Signal', 'Battery', 'Bond', 'Add'], sorted.map((device) => [
      make('span', {}, make('strong', {}, device.name ?? 'no name'), make('span', { class: 'under' }, device.address)),
      make('span', {}, device.model ?? device.what ?? 'nothing here reads it', (device.hints ?? []).map((/** @type {string} */ hint) => make('span', { class: 'under' }, hint))),
      signalOf(device.rssi), batteryOf(device.battery), this.#bond(device),
      device.config ? linesOf(device.config) : '–',
    ])));
  }

  /** @param {any} device */
  #bond(device) {
    const words = device.bonded ? 'bonded' : device.pairs ? 'has to be paired' : 'not needed';
    const name = device.name ?? device.address;
    return make('span', {}, words, this.may && !device.bonded && button('Pair', () => this.#start('/api/v1/ble/pair', { device: device.address }), { 'aria-label': `Pair ${name}` }),
      this.may && device.bonded && this.#remove(device.address, name));
  }

  /** Forgetting a bond takes a second press: a cuff has to be paired again after it. @param {string} address @param {string} name */
  #remove(address, name) {
    let isSure = false;
    return button('Forget', async (event) => {
      const control = /** @type {HTMLButtonElement} */ (event.currentTarget);
      if (!isSure) {
        isSure = true;
        control.textContent = 'Forget it for good?';
        return;
      }
      try {
        await ask(`/api/v1/ble/devices/${encodeURIComponent(address)}`, { method: 'DELETE', signal: this.context.signal });
        await this.#showKnown();
      } catch (cause) {
        if (!isAbort(cause)) write(this.#says, wordsOf(cause));
      }
    }, { 'aria-label': `Forget ${name}` });
  }

  /** What the device asks of the person. @param {string} state @param {any} prompt */
  #ask(state, prompt) {
    const key = JSON.stringify([state, prompt]);
    if (key === this.#asked) return;
    this.#asked = key;
    hide(this.#prompt, !prompt);
    if (!prompt) return;
    const answer = (/** @type {object} */ body) => this.#start('/api/v1/ble/job/answer', body);
    if (prompt.kind === 'compare') {
      fill(this.#prompt, make('p', {}, 'Does the device show ', make('strong', {}, prompt.passkey), '?'), button('Yes, the same', () => answer({ accept: true })), button('No', () => answer({ accept: false })));
    } else if (prompt.kind === 'type_at_device') {
      fill(this.#prompt, make('p', {}, 'Type ', make('strong', {}, prompt.passkey), ' at the device.'));
    } else {
      const input = make('input', { type: 'text', inputmode: 'numeric', autocomplete: 'off', maxlength: '16' });
      const form = make('form', { on: { submit: (/** @type {Event} */ event) => {
        event.preventDefault();
        answer({ passkey: input.value.trim() });
      } } }, field(prompt.kind === 'pin' ? 'The code of the device (in its manual)' : 'The number that the device shows', input).element,
      make('button', { type: 'submit', class: 'press' }, 'Answer'), button('Refuse', () => answer({ accept: false })));
      fill(this.#prompt, form);
      input.focus();
    }
  }
}

/** The lines that add a device to the configuration. @param {string} config */
function linesOf(config) {
  const copy = button('Copy', async () => {
    // Without TLS a browser gives no clipboard: the lines are selected instead.
    try {
      await navigator.clipboard.writeText(config);
      copy.textContent = 'Copied';
    } catch {
      getSelection()?.selectAllChildren(lines);
      copy.textContent = 'Selected: copy it by hand';
    }
  });
  const lines = make('pre', { class: 'config', tabindex: '0' }, config);
  return make('details', {}, make('summary', {}, 'Lines for the configuration'), lines, copy);
}
