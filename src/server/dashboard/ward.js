/**
 * What the ward view says: keeps the newest reading and alert of each patient and turns them into words and digits.
 *
 * Pure: no document, no socket, no clock. `now` and `born` are moments of one monotonic clock in ms. A number is made only
 * from a reading with a value; whatever has none, or is too old, is `---` with the reason in words.
 * @module
 */

/** Shown in place of a number that is not known. */
export const NO_NUMBER = '---';
export const NO_TIME = 'time unknown';
/** A number of which nothing has come. @type {Shown} */
const UNKNOWN = { text: NO_NUMBER, state: 'none', note: 'no data yet', age: '' };
/** A spot value older than this is grey: it says little about the patient now, in ms. */
const SPOT_OLD_MS = 60 * 60 * 1000;
/** An end that is further away is told with its day, in ms. */
const DAY_MS = 24 * 60 * 60 * 1000;
/** MDC_PULS_RATE_NON_INV: a pulse rate that a cuff measured is not the oximeter's. */
const MDC_PULSE_RATE_CUFF = 149546;
/** The number of an alert, as the bridge's own alerts name the others. */
const ALERT_ID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g;
/** The only shown metric whose 0 can be a measurement. */
const ZERO_POSSIBLE = new Set(['respiratory_rate']);

/**
 * @typedef {import('./vitalbridge.js').Push} Push
 * @typedef {{data: any, born: number}} Entry A reading and the moment it arrived at the bridge.
 * @typedef {'live'|'stale'|'doubtful'|'lost'|'absent'|'none'} NumberState
 * @typedef {{text: string, state: NumberState, note: string, age: string, seq?: number, device?: string, time?: string,
 *   mean?: string, pulsePressure?: string}} Shown One number as the page shows it; `note` says why it is not an ordinary one.
 * @typedef {{low?: number, high?: number}} Limits
 * @typedef {{staleAfterMs: number, lostAfterMs: number}} Times The ages from which a continuous number is old, and from which there is none.
 * @typedef {'hr'|'spo2'|'nibp'|'resp'|'temp'} CellName
 * @typedef {{alertId: string, seq: number, priority: 'high'|'medium'|'low', stars: string, title: string, detail: string,
 *   since: string, active: boolean, unknown: boolean, action: '' | 'Acknowledge' | 'Reset', metric: string,
 *   technical: boolean, patient: string, state: 'alarming' | 'acknowledged' | 'paused' | 'latched', audible: boolean,
 *   pausedUntil: number}} ShownAlert `detail` says what is special about it and is often empty; `pausedUntil` is a time of the
 *   bridge's day in ms, NaN while its audio is not paused.
 * @typedef {{text: string, complete: boolean, band: string, says: string, missing: string, age: string,
 *   inputs: string}} ShownScore An early warning score: `text` is a range while it is not complete, `says` the band in words.
 * @typedef {{id: string, bed: string, name: string, mark: string, cells: Record<CellName, Shown>, pulse: Shown,
 *   news2?: ShownScore, off: string[], alert?: ShownAlert, more: number, moreStars: string, counted: {alertId: string, seq: number}[],
 *   marked: Record<string, string>}} Tile `counted` are the alerts behind `more`; `marked` has the priority of the metrics
 *   that alarm, `off` the rules that somebody has switched off, with their end.
 */

/** Why there is no number, where the name itself does not say it. */
const ABSENT_WORDS = /** @type {Record<string, string>} */ ({
  zero_reported: 'reads zero',
  not_a_number: 'no measurement',
  over_range: 'above range',
  under_range: 'below range',
  reserved: 'invalid code',
  silent: 'sensor silent',
  searching: 'searching pulse',
  low_perfusion: 'weak pulse',
  low_quality: 'poor signal',
  artifact: 'movement',
});

/** Qualities with which a number is not shown. */
const WITHHELD_WORDS = /** @type {Record<string, string>} */ ({
  ongoing: 'measuring',
  calibrating: 'calibrating',
  invalid: 'invalid',
  overflow: 'above range',
  underflow: 'below range',
  not_available: 'not available',
});

/** Qualities with which a number is shown, but never as an ordinary one. */
export const DOUBTFUL_WORDS = /** @type {Record<string, string>} */ ({
  questionable: 'doubtful',
  implausible: 'not plausible',
  historic: 'measured earlier',
});

/** What an early warning score is made of, as short as a chart has it. */
const PARAMETER_WORDS = /** @type {Record<string, string>} */ ({
  respiratory_rate: 'RESP',
  spo2: 'SpO2',
  oxygen: 'O2',
  systolic: 'NIBP',
  pulse: 'pulse',
  consciousness: 'ACVPU',
  temperature: 'TEMP',
});

/** States of a sensor's link that explain a missing signal. */
const LINK_WORDS = /** @type {Record<string, string>} */ ({
  closed: 'not connected',
  opening: 'connecting',
  waiting: 'waiting',
  silent: 'sensor silent',
  sensor_off: 'sensor off',
  lost: 'link lost',
});

/** A bed of which nothing is known: what stood on its screen was another's, or is old. @type {Tile} */
export const EMPTY_BED = {
  id: '', bed: '', name: '', mark: '', cells: { hr: UNKNOWN, spo2: UNKNOWN, nibp: UNKNOWN, resp: UNKNOWN, temp: UNKNOWN }, pulse: UNKNOWN,
  off: [], more: 0, counted: [], moreStars: '', marked: {},
};

/** Ended alerts that are remembered, so that a self-check that crossed the end is not taken for a difference. */
const MAX_ENDED = 64;

/** Bed 2 stands before bed 10. */
const BED_ORDER = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });
const RANK = /** @type {Record<string, number>} */ ({ low: 1, medium: 2, high: 3 });
const MARKS = /** @type {Record<string, string>} */ ({ demo: 'DEMO', test: 'TEST' });

/**
 * A name of the protocol that has no words here yet: still words.
 * @param {string} name
 */
const words = (name) => name.replaceAll('_', ' ');

/**
 * An age as short as it can be read: 7 s, 12 min, 3 h, 2 d.
 * @param {number} ageMs
 */
export function ageText(ageMs) {
  const seconds = Math.floor(Math.max(0, ageMs) / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/**
 * Time of day where the reader is, `hh:mm` or `hh:mm:ss`; empty if there is none.
 * @param {string | number | undefined | null} wall RFC 3339, or ms since 1970
 * @param {boolean} [withSeconds]
 */
export function timeText(wall, withSeconds = false) {
  const date = new Date(wall ?? NaN);
  if (Number.isNaN(date.getTime())) return '';
  const parts = [date.getHours(), date.getMinutes(), ...(withSeconds ? [date.getSeconds()] : [])];
  return parts.map((part) => String(part).padStart(2, '0')).join(':');
}

/**
 * The digits of a number as the sensor gave them (37.0 stays 37.0); undefined if it is no measurement.
 * @param {any} holder
 * @param {string} member
 * @param {string} metric
 */
function digits(holder, member, metric) {
  const value = holder?.[member];
  if (typeof value !== 'number' || !Number.isFinite(value)) return undefined;
  if (value === 0 && !ZERO_POSSIBLE.has(metric)) return undefined;
  return String(holder[`${member}_text`] ?? value);
}

/**
 * The number of one reading, before its age is judged.
 * @param {any} data
 * @returns {{text: string, mean?: string, pulsePressure?: string, reason: string}} `reason` is empty for a number.
 */
export function numberOf(data) {
  const withheld = WITHHELD_WORDS[data.quality];
  const none = { text: NO_NUMBER, reason: (data.absent && (ABSENT_WORDS[data.absent] ?? words(String(data.absent)))) || withheld };
  if (data.metric === 'blood_pressure' && !withheld) {
    // One pressure of the three can be missing: the others are still measurements.
    const [systolic, diastolic, mean] = ['systolic', 'diastolic', 'mean'].map((part) => digits(data.components, part, data.metric));
    const [made, pulsePressure] = ['mean', 'pulse_pressure'].map((part) => digits(data.derived, part, data.metric));
    const some = systolic !== undefined || diastolic !== undefined || mean !== undefined;
    const text = `${systolic ?? NO_NUMBER}/${diastolic ?? NO_NUMBER}`;
    // What the bridge computed is never taken for what the cuff measured.
    if (some) return { text, mean: mean ?? (made && `≈${made}`), pulsePressure, reason: '' };
  }
  if (none.reason) return none;
  const value = digits(data, 'value', data.metric);
  if (value !== undefined && data.metric !== 'blood_pressure') return { text: value, reason: '' };
  return { text: NO_NUMBER, reason: data.value === 0 ? 'reads zero' : 'no measurement' };
}

/**
 * How much older the measurement is than its arrival, in ms: what a cuff kept and handed over later.
 * @param {any} data
 */
function lagOf(data) {
  const lag = Date.parse(data.received) - Date.parse(data.timestamp);
  return lag > 0 ? lag : 0;
}

/** True for a measurement of the past of which nobody knows when it was made. @param {any} data */
const isUndated = (data) => data.quality === 'historic' && !data.timestamp;

/** One patient's newest readings. */
class Patient {
  /** @param {{id: string, name?: string | null, bed?: string | null, ward?: string | null}} about */
  constructor(about) {
    this.about = about;
    /** By metric, device and code. @type {Map<string, Entry>} */
    this.readings = new Map();
    /** Link state by device. @type {Map<string, string>} */
    this.links = new Map();
  }

  /** @param {any} data @param {number} born @returns {boolean} false if something newer is known */
  take(data, born) {
    const key = `${data.metric}|${data.device_id ?? ''}|${data.mdc ?? ''}`;
    const known = this.readings.get(key);
    if (known && known.data.epoch === data.epoch && known.data.seq >= data.seq) return false;
    // A measurement that was kept by the device and comes late must not hide a newer one.
    if (known && !isUndated(known.data) && lagOf(data) > 0 && born - lagOf(data) < known.born - lagOf(known.data)) return false;
    if (known && isUndated(data) && !isUndated(known.data)) return false;
    this.readings.set(key, { data, born });
    return true;
  }

  /**
   * The reading that stands for a metric. Of several devices the first by name that has a fresh number is kept, so that
   * the page does not swing between two sensors.
   * @param {(data: any) => boolean} matches
   * @param {number} now
   * @param {number} lostAfterMs
   */
  pick(matches, now, lostAfterMs) {
    const score = (/** @type {Entry} */ { data, born }) => {
      const fresh = now - born <= lostAfterMs;
      return fresh && numberOf(data).reason === '' ? 2 : Number(fresh);
    };
    return [...this.readings.values()]
      .filter(({ data }) => matches(data))
      .sort((a, b) => score(b) - score(a)
        || (score(a) === 0 ? b.born - a.born : String(a.data.device_id).localeCompare(String(b.data.device_id))))[0];
  }
}

/** Everything the ward view knows. */
export class Ward {
  /** @type {Map<string, Patient>} */ #patients = new Map();
  /** Alerts that are not over, by id. @type {Map<string, any>} */ #alerts = new Map();
  /** The last event of alerts that have ended lately. @type {Map<string, {epoch: string, seq: number}>} */ #ended = new Map();
  /** ALARM OFF that holds, by patient and rule. @type {Map<string, any>} */ #off = new Map();
  /** The same as the bridge's limits have it, by patient: what the rule file switched off is only there. @type {Map<string, any[]>} */ #inForce = new Map();
  /** The nearest limits by patient and metric. @type {Map<string, Map<string, Limits>>} */ #limits = new Map();
  /** The silence rules that hold, by patient, as text. @type {Map<string, string>} */ #silences = new Map();
  /** When continuous numbers are old and gone. @type {Times} */ #times = { staleAfterMs: 5000, lostAfterMs: 10_000 };
  /** The same where it is another, by patient and metric. @type {Map<string, Times>} */ #ownTimes = new Map();
  /** The bridge's own mode. */ #mode;

  /** @param {string} [mode] what was said of the bridge before anybody signed in */
  constructor(mode = 'real') {
    this.#mode = mode;
  }

  /**
   * Begins anew with what the bridge knows now.
   * @param {any} snapshot `data` of a `snapshot` frame
   * @param {number} now
   */
  begin(snapshot, now) {
    const links = new Map([...this.#patients].map(([id, patient]) => [id, patient.links]));
    this.#patients.clear();
    this.#alerts.clear();
    this.#off.clear();
    this.#mode = snapshot.mode ?? 'real';
    if (snapshot.lost_after_ms > 0) this.#times = timesIn(snapshot);
    this.#ownTimes.clear();
    for (const own of snapshot.signal_times ?? []) for (const metric of own.metrics) this.#ownTimes.set(`${own.patient_id}|${metric}`, timesIn(own));
    for (const about of snapshot.patients ?? []) {
      const patient = new Patient(about);
      patient.links = links.get(about.id) ?? patient.links;
      this.#patients.set(about.id, patient);
    }
    for (const data of snapshot.readings ?? []) this.reading(data, now - data.age_ms);
    for (const data of snapshot.alerts ?? []) this.alert(data);
    for (const data of snapshot.limits ?? []) this.limit(data);
  }

  /**
   * Takes a change of a patient's limits.
   * @param {any} data
   * @returns {boolean} false if only a snapshot tells what holds now: at the end of a change, and where it may be about a silence
   */
  limit(data) {
    if (data.alarm_off) this.#off.set(`${data.patient_id}|${data.rule}`, data);
    return data.in_force === true && this.#silences.get(data.patient_id)?.includes(JSON.stringify(data.rule)) === false;
  }

  /** When a continuous number of a patient is old and gone: at the age at which the rule alarms. @param {string} id @param {string} metric */
  timesOf(id, metric) {
    return this.#ownTimes.get(`${id}|${metric}`) ?? this.#times;
  }

  /**
   * Takes the limits in force for a patient. What is off without an end is no patient's ALARM OFF, but a rule that is not used.
   * @param {string} id
   * @param {any[]} limits of `/api/v1/patients/{id}/limits`
   * @returns {boolean} false if the silence rules are not those of before: what that means for the numbers only a snapshot tells
   */
  inForce(id, limits) {
    const before = this.#silences.get(id);
    const silences = JSON.stringify(limits.filter(({ no_valid_for_ms: longest }) => longest).map(({ rule, stale_after_ms: stale, no_valid_for_ms: longest, off }) => [rule, stale, longest, !off]));
    this.#silences.set(id, silences);
    this.#inForce.set(id, limits.filter(({ off }) => off?.expires).map(({ rule, off }) => ({ patient_id: id, rule, until: off.expires })));
    /** @type {Map<string, Limits>} */
    const nearest = new Map();
    for (const { kind, priority, metrics: [metric] = [], low, high, off } of limits) {
      if (kind !== 'physiological' || priority === 'info' || off || !metric) continue;
      const known = nearest.get(metric) ?? {};
      // Of several rules the one that alarms first is what a number is looked at with.
      if (Number.isFinite(low)) known.low = Math.max(low, known.low ?? -Infinity);
      if (Number.isFinite(high)) known.high = Math.min(high, known.high ?? Infinity);
      nearest.set(metric, known);
    }
    this.#limits.set(id, nearest);
    return (before ?? silences) === silences;
  }

  /** The limits between which nothing alarms, by metric. @param {string} id @returns {Map<string, Limits>} */
  limitsOf(id) {
    return this.#limits.get(id) ?? new Map();
  }

  /** Takes a reading. @param {any} data @param {number} born */
  reading(data, born) {
    // Without an age it cannot be shown as fresh.
    if (data.patient_id) this.#patient(data.patient_id).take(data, Number.isFinite(born) ? born : -Infinity);
  }

  /**
   * Takes the state of an alert.
   * @param {any} data
   * @returns {boolean} true if it is worth saying aloud: it began, got worse or came back
   */
  alert(data) {
    const known = this.#alerts.get(data.alert_id);
    if (known && known.epoch === data.epoch && known.seq >= data.seq) return false;
    if (data.change === 'end') {
      this.#alerts.delete(data.alert_id);
      this.#ended.set(data.alert_id, { epoch: data.epoch, seq: data.seq });
      if (this.#ended.size > MAX_ENDED) this.#ended.delete(/** @type {string} */ (this.#ended.keys().next().value));
    } else {
      this.#alerts.set(data.alert_id, data);
      this.#ended.delete(data.alert_id);
    }
    return ['start', 'escalate', 'recur', 'resume'].includes(data.change) && data.priority !== 'info' && !data.hidden_by;
  }

  /**
   * True if this is not what the bridge has: an alert is missing here, is older, or stands here alone. What has come since
   * the self-check was made is of no concern.
   * @param {{epoch: string, through: number, alerts: {alert_id: string, seq: number}[]}} check `data` of an `alert_system`
   */
  differs({ epoch, through, alerts = [] }) {
    const theirs = new Map(alerts.map((alert) => [alert.alert_id, alert.seq]));
    const isMissing = [...theirs].some(([id, seq]) => {
      const newest = this.#ended.get(id) ?? this.#alerts.get(id);
      return !newest || newest.epoch !== epoch || newest.seq < seq;
    });
    const stands = [...this.#alerts.values()];
    return isMissing || stands.some((alert) => !theirs.has(alert.alert_id) && (alert.epoch !== epoch || alert.seq <= through));
  }

  /** Every alert that is not over. @returns {{alertId: string, seq: number}[]} */
  present() {
    return [...this.#alerts.values()].map(({ alert_id: alertId, seq }) => ({ alertId, seq }));
  }

  /** Takes the state of a device. @param {any} data */
  device(data) {
    if (data.patient_id) this.#patient(data.patient_id).links.set(data.device_id, data.link);
  }

  /**
   * Takes the ages that a heartbeat tells. They only ever make a number older: one that is older here than at the bridge
   * has missed a reading and is not the newest.
   * @param {Record<string, number>} ages ms by channel `patient/<id>/<metric>`
   * @param {number} now
   */
  ages(ages, now) {
    for (const [channel, ageMs] of Object.entries(ages)) {
      const [kind, id = '', metric] = channel.split('/');
      const patient = kind === 'patient' ? this.#patients.get(id) : undefined;
      const youngest = [...(patient?.readings.values() ?? [])]
        .filter(({ data }) => data.metric === metric)
        .sort((a, b) => b.born - a.born)[0];
      if (youngest && Number.isFinite(ageMs)) youngest.born = Math.min(youngest.born, now - ageMs);
    }
  }

  /** DEMO or TEST if anything here is not about a real patient, else empty. @returns {string} */
  get mark() {
    const marks = new Set([MARKS[this.#mode] ?? '', ...[...this.#patients.values()].map((patient) => this.#markOf(patient))]);
    return ['TEST', 'DEMO'].filter((mark) => marks.has(mark)).join(' + ');
  }

  /** Alerts of the bridge itself, the most urgent first. @returns {ShownAlert[]} */
  bridgeAlerts() {
    return this.#shownAlerts((alert) => !this.#patients.has(alert.patient_id));
  }

  /** Alerts of a patient, the most urgent first. @param {string} id @returns {ShownAlert[]} */
  alertsOf(id) {
    return this.#shownAlerts((alert) => alert.patient_id === id);
  }

  /** Alerts of all patients but one, the most urgent first. @param {string} id @returns {ShownAlert[]} */
  alertsElsewhere(id) {
    return this.#shownAlerts((alert) => alert.patient_id !== id && this.#patients.has(alert.patient_id));
  }

  /** The highest priority of all alerts that are to be heard. @returns {'' | 'high' | 'medium' | 'low'} */
  audible() {
    return this.#shownAlerts(() => true).filter(({ audible }) => audible).map(({ priority }) => priority)
      .sort((a, b) => rank(b) - rank(a))[0] ?? '';
  }

  /** Bed and name of a patient, undefined if nobody of this name is known. @param {string} id @returns {{bed: string, name: string} | undefined} */
  about(id) {
    const about = this.#patients.get(id)?.about;
    return about && { bed: about.bed ?? '', name: about.name ?? about.id };
  }

  /** How many alerts of each priority are present. @returns {Record<'high'|'medium'|'low', number>} */
  counts() {
    const counts = { high: 0, medium: 0, low: 0 };
    for (const { priority } of this.#shownAlerts(() => true)) counts[priority] += 1;
    return counts;
  }

  /** What the bridge says of an alert; those that it lists by their numbers have their bed and their own words. @param {any} data */
  says({ message, rule }) {
    return String(message || words(String(rule ?? 'alert'))).replaceAll(ALERT_ID, (id) => {
      const { patient_id: patient, message: text } = this.#alerts.get(id) ?? { message: 'one that is over' };
      return [this.about(patient)?.bed, text].filter(Boolean).join(' ');
    });
  }

  /** True if an alert of this priority still calls somebody, and is not only to be seen. @param {string} wanted */
  calls(wanted) {
    return this.#shownAlerts(({ priority }) => priority === wanted).some(({ active, audible }) => active || audible);
  }

  /** An alert in one sentence, to be read aloud. @param {any} data */
  spoken(data) {
    const { bed, name } = this.#patients.get(data.patient_id)?.about ?? {};
    const whose = data.patient_id ? [bed && `bed ${bed}`, name ?? data.patient_id].filter(Boolean).join(', ') : 'bridge';
    return `${data.priority} priority, ${whose}: ${this.says(data)}`;
  }

  /**
   * The tiles in the order of ward and bed.
   * @param {number} now
   * @param {boolean} [connected] whether a missing signal can be the sensor's fault
   * @param {number} [wall] the bridge's time of day, ms since 1970
   * @returns {Tile[]}
   */
  tiles(now, connected = true, wall = undefined) {
    const place = (/** @type {Patient} */ { about }) => [about.ward ?? '', about.bed ?? '\uffff', about.id];
    return [...this.#patients.values()]
      .sort((a, b) => place(a).map((part, i) => BED_ORDER.compare(part, place(b)[i] ?? '')).find((way) => way !== 0) ?? 0)
      .map((patient) => this.#tile(patient, now, connected, wall));
  }

  /**
   * The tile of one patient.
   * @param {string} id
   * @param {number} now
   * @param {boolean} connected
   * @param {number} [wall]
   * @returns {Tile | undefined}
   */
  tile(id, now, connected, wall = undefined) {
    const patient = this.#patients.get(id);
    return patient && this.#tile(patient, now, connected, wall);
  }

  /** @param {Patient} patient @param {number} now @param {boolean} connected @param {number | undefined} wall @returns {Tile} */
  #tile(patient, now, connected, wall) {
    const { about } = patient;
    const shown = (/** @type {string} */ metric, spot = false) => this.#shown(patient, metric, now, spot, connected);
    const alerts = this.#shownAlerts((alert) => alert.patient_id === about.id);
    const [alert, ...rest] = alerts;
    /** @type {Record<string, string>} */
    const marked = {};
    // Also what another alarm stands for: the number is out of its limits all the same.
    const own = this.#shownAlerts((alert) => alert.patient_id === about.id, true);
    for (const { metric, priority, active } of own.reverse()) if (active && metric) marked[metric] = priority;
    return {
      id: about.id,
      bed: about.bed ?? '',
      name: about.name ?? about.id,
      mark: this.#markOf(patient),
      cells: {
        hr: shown('heart_rate'),
        spo2: shown('spo2'),
        nibp: shown('blood_pressure', true),
        resp: shown('respiratory_rate'),
        temp: shown('temperature', true),
      },
      pulse: shown('pulse_rate'),
      news2: this.#score(patient, now, connected),
      off: this.#offOf(about.id, wall),
      alert,
      more: rest.length,
      counted: rest.map(({ alertId, seq }) => ({ alertId, seq })),
      moreStars: stars(rest.map(({ priority }) => priority).sort((a, b) => rank(b) - rank(a))[0]),
      marked,
    };
  }

  /**
   * @param {Patient} patient
   * @param {string} metric
   * @param {number} now
   * @param {boolean} spot
   * @param {boolean} connected
   * @returns {Shown}
   */
  #shown(patient, metric, now, spot, connected) {
    const { staleAfterMs, lostAfterMs } = spot ? { staleAfterMs: SPOT_OLD_MS, lostAfterMs: Infinity } : this.timesOf(patient.about.id, metric);
    const entry = patient.pick((data) => data.metric === metric && data.mdc !== MDC_PULSE_RATE_CUFF, now, lostAfterMs);
    if (!entry) return UNKNOWN;
    const { data, born } = entry;
    const ageMs = Math.max(0, now - born + (spot ? lagOf(data) : 0));
    const age = Number.isFinite(ageMs) ? ageText(ageMs) : '';
    const from = { age, seq: data.seq, device: data.device_id, ...(spot && { time: spotTime(data) }) };
    if (ageMs > lostAfterMs) {
      const link = connected ? LINK_WORDS[patient.links.get(data.device_id) ?? ''] : 'no link';
      return { ...from, text: NO_NUMBER, state: 'lost', note: link ?? 'no signal' };
    }
    const { text, mean, pulsePressure, reason } = numberOf(data);
    if (reason) return { ...from, text, state: 'absent', note: reason };
    const doubt = DOUBTFUL_WORDS[data.quality];
    if (ageMs > staleAfterMs) return { ...from, text, mean, pulsePressure, state: 'stale', note: doubt ?? '' };
    return { ...from, text, mean, pulsePressure, state: doubt ? 'doubtful' : 'live', note: doubt ?? '' };
  }

  /** @param {string} id @param {number | undefined} wall @returns {string[]} */
  #offOf(id, wall) {
    const told = [...this.#off.values()].filter(({ patient_id: patientId }) => patientId === id);
    const known = new Map([...this.#inForce.get(id) ?? [], ...told].map((off) => [off.rule, off]));
    return [...known.values()]
      .sort((a, b) => String(a.rule).localeCompare(String(b.rule)))
      .map(({ rule, until }) => ({ name: words(String(rule)), end: timeText(until) && ` until ${endText(until, wall)}` }))
      // Rules that end together are named together.
      .map(({ name, end }, at, all) => (all[at + 1]?.end === end ? name : `${name}${end}`));
  }

  /**
   * The bridge tells each change of the score, so it holds as long as the bridge is heard, and no longer.
   * @param {Patient} patient
   * @param {number} now
   * @param {boolean} connected
   * @returns {ShownScore | undefined} undefined if it is not computed for this patient
   */
  #score(patient, now, connected) {
    const entry = patient.pick(({ metric }) => metric === 'news2', now, Infinity);
    if (!entry) return undefined;
    const { data: { news2, value }, born } = entry;
    const ageMs = now - born;
    const none = { text: NO_NUMBER, complete: false, band: '', says: '', age: '', inputs: '' };
    if (!connected || !Number.isFinite(ageMs)) return { ...none, missing: 'no link' };
    if (!Number.isFinite(news2?.score_min) || !Number.isFinite(news2?.score_max)) return { ...none, missing: 'no data' };
    return { ...scoreOf(news2, value), age: ageMs < 60_000 ? '' : `· ${ageText(ageMs)}` };
  }

  /** @param {string} id */
  #patient(id) {
    const patient = this.#patients.get(id) ?? new Patient({ id });
    this.#patients.set(id, patient);
    return patient;
  }

  /** @param {Patient} patient */
  #markOf(patient) {
    const modes = [...patient.readings.values()].map(({ data }) => data.mode ?? this.#mode);
    for (const alert of this.#alerts.values()) if (alert.patient_id === patient.about.id) modes.push(alert.mode);
    return modes.includes('test') ? 'TEST' : modes.includes('demo') || this.#mode === 'demo' ? 'DEMO' : MARKS[this.#mode] ?? '';
  }

  /** @param {(alert: any) => boolean} matches @param {boolean} [withHidden] @returns {ShownAlert[]} */
  #shownAlerts(matches, withHidden = false) {
    return [...this.#alerts.values()]
      .filter((alert) => matches(alert) && rank(alert.priority) > 0 && (withHidden || !this.#alerts.has(alert.hidden_by)))
      .map((alert) => shownAlert(alert, this.says(alert)))
      // What has latched sounds on: it calls as what is active does.
      .sort((a, b) => Number(b.active || b.audible) - Number(a.active || a.audible) || rank(b.priority) - rank(a.priority)
        || Number(a.technical) - Number(b.technical) || b.seq - a.seq);
  }
}

/** @param {any} times @returns {Times} */
const timesIn = ({ stale_after_ms: staleAfterMs, lost_after_ms: lostAfterMs }) => ({ staleAfterMs, lostAfterMs });

/** @param {string | undefined} priority */
const rank = (priority) => RANK[priority ?? ''] ?? 0;

/** @param {string | undefined} priority */
const stars = (priority) => '*'.repeat(rank(priority));

/** The time of a spot value; `≈` while the bridge's clock was not set. @param {any} data */
function spotTime(data) {
  const time = timeText(data.timestamp);
  if (!time || data.ts_source === 'unknown') return NO_TIME;
  return data.ts_source === 'unsynced' ? `≈${time}` : time;
}

/** The end of something: `hh:mm`, with its day if that may not be today's or tonight's. @param {string} end @param {number | undefined} wall */
function endText(end, wall) {
  const date = new Date(end);
  const isNear = wall !== undefined && date.getTime() - wall < DAY_MS;
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-');
  return isNear ? timeText(end) : `${day} ${timeText(end)}`;
}

/**
 * @param {any} news2
 * @param {any} value the total, if nothing is missing
 * @returns {Omit<ShownScore, 'age'>}
 */
function scoreOf(news2, value) {
  const lacks = new Set(news2.missing ?? []);
  const missing = [...Object.keys(PARAMETER_WORDS), ...lacks].filter((name, at, all) => lacks.has(name) && all.indexOf(name) === at).map((/** @type {string} */ name) => PARAMETER_WORDS[name] ?? words(name));
  const complete = news2.complete === true && missing.length === 0 && typeof value === 'number' && news2.score_min === news2.score_max;
  const inputs = (news2.inputs ?? []).map((/** @type {any} */ input) =>
    `${PARAMETER_WORDS[input.parameter] ?? words(String(input.parameter))} ${input.value}: ${input.points}`);
  const known = news2.band ?? '';
  const least = known || news2.band_min || '';
  const review = least === 'low-medium' ? ' (a single 3)' : '';
  return {
    text: complete ? String(value) : `${news2.score_min}–${news2.score_max}`,
    complete,
    band: least,
    says: least && `${known ? '' : '≥ '}${least.toUpperCase()}${review}`,
    missing: missing.map((/** @type {string} */ name) => `${name}?`).join(' '),
    inputs: ['NEWS2 points', ...inputs, missing.length > 0 && `missing ${missing.join(', ')}`].filter(Boolean).join(' · '),
  };
}

/** @param {any} alert @param {string} title @returns {ShownAlert} */
function shownAlert(alert, title) {
  const { audio = {}, visual = {} } = alert.signal ?? {};
  const latched = visual.presence === 'latched' || audio.presence === 'latched';
  const acknowledged = audio.presence === 'ack' || visual.presence === 'ack';
  const paused = audio.activation === 'paused' || visual.activation === 'paused';
  const unknown = alert.condition?.presence !== 'true' && alert.condition?.presence !== 'false';
  const said = [
    unknown && 'state unknown: no data',
    latched && 'over, not yet seen',
    acknowledged && `ACKNOWLEDGED${alert.by ? ` by ${alert.by}` : ''}`,
    inactivation(audio, visual, alert.paused_until),
    alert.recurrence > 0 && `came back ${alert.recurrence}×`,
  ];
  return {
    alertId: alert.alert_id,
    seq: alert.seq,
    priority: alert.priority,
    stars: stars(alert.priority),
    title: latched ? title.replace(/; over now$/, '') : title,
    detail: said.filter(Boolean).join(' · '),
    since: `since ${timeText(alert.onset, true) || 'unknown time'}`,
    active: !acknowledged && !latched,
    unknown,
    action: acknowledged ? '' : latched ? 'Reset' : 'Acknowledge',
    metric: alert.metric ?? '',
    technical: alert.kind === 'technical',
    patient: alert.patient_id ?? '',
    state: latched ? 'latched' : acknowledged ? 'acknowledged' : paused ? 'paused' : 'alarming',
    // What latched sounds on until somebody resets it.
    audible: audio.activation === 'on' && (audio.presence === 'on' || audio.presence === 'latched'),
    pausedUntil: paused ? Date.parse(alert.paused_until ?? '') : NaN,
  };
}

/** The words of IEC 60601-1-8 for signals that somebody switched off. @param {any} audio @param {any} visual @param {string | null} until */
function inactivation(audio, visual, until) {
  const end = timeText(until, true);
  if (visual.activation === 'off') return 'ALARM OFF';
  if (visual.activation === 'paused') return `ALARM PAUSED${end && ` until ${end}`}`;
  if (audio.activation === 'off') return 'AUDIO OFF';
  if (audio.activation === 'paused') return `AUDIO PAUSED${end && ` until ${end}`}`;
  return '';
}
