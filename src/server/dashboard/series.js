/**
 * What a trend draws: readings as lines that end where nothing is known, alerts as bands, limits as lines.
 *
 * Pure: no document, no request, no clock. Times are ms since 1970. A line joins two values only if nothing was missing between them:
 * no absent value came, and the second came as soon as a sensor that works would have it.
 * @module
 */

/** A reading that was told this much later than it was measured was kept somewhere meanwhile, in ms (docs/alerts.md, "Late"). */
export const LATE_MS = 60_000;
/** Qualities with which a number is none, as the bridge's own buckets have it. */
const WITHHELD = new Set(['invalid', 'overflow', 'underflow', 'calibrating']);
/** Points of one stream that are kept; the oldest go. Two hours of one each second, beside a loaded window. */
export const MAX_POINTS = 12_000;

/**
 * @typedef {{at: number, value: number | null, text?: string, absent?: string, late: boolean, doubt: boolean, every: number}} Point
 *   `every` is the width of the span of time it stands for, in ms; 0 for a single reading.
 * @typedef {{from: number, to: number, why: string}} Gap
 * @typedef {{x: number[], y: (number | null | undefined)[][], late: boolean[][], gaps: Gap[][]}} Columns `y` of each stream at each
 *   `x`: a number, `null` where its line ends, `undefined` where only another stream has something.
 * @typedef {{alertId: string, rule: string, priority: string, kind: string, metric: string, device: string, message: string,
 *   from: number, to: number | undefined}} Band An alert's time; `to` is undefined while it stands.
 * @typedef {{level: number, side: 'low' | 'high', rule: string, priority: string, metric: string, text: string, off: boolean}} Line
 */

/**
 * A point of `/api/v1/readings?max_points`.
 * @param {any} data
 * @param {number} every
 * @returns {Point | undefined} undefined if nobody knows when it was measured
 */
export function pointOf(data, every) {
  const at = Date.parse(data.timestamp);
  if (!Number.isFinite(at)) return undefined;
  const isNumber = typeof data.value === 'number' && Number.isFinite(data.value);
  return {
    at,
    value: isNumber ? data.value : null,
    text: isNumber ? String(data.value_text ?? data.value) : undefined,
    absent: isNumber ? undefined : String(data.absent ?? 'no value'),
    late: data.late === true,
    doubt: data.questionable === true,
    every,
  };
}

/**
 * The points of a reading that was pushed: one, or those of a pressure.
 * @param {any} data
 * @returns {{metric: string, point: Point}[]}
 */
export function pointsOfReading(data) {
  const late = data.quality === 'historic' || Date.parse(data.received) - Date.parse(data.timestamp) > LATE_MS;
  const withheld = WITHHELD.has(data.quality) ? data.quality : undefined;
  const made = (/** @type {any} */ value, /** @type {any} */ text) => pointOf({
    timestamp: data.timestamp,
    value: withheld ? null : value,
    value_text: text,
    absent: withheld ?? data.absent ?? 'no value',
    late,
    questionable: data.quality === 'questionable',
  }, 0);
  const parts = data.metric === 'blood_pressure' || data.metric === 'arterial_pressure' ? ['systolic', 'diastolic', 'mean'] : [''];
  return parts.flatMap((part) => {
    const point = part ? made(data.components?.[part], data.components?.[`${part}_text`]) : made(data.value, data.value_text);
    return point ? [{ metric: part ? `${data.metric}.${part}` : data.metric, point }] : [];
  });
}

/** What one device said of one metric. */
export class Stream {
  /** @type {Point[]} */ #points = [];

  /** @param {string} metric @param {string} device */
  constructor(metric, device) {
    this.metric = metric;
    this.device = device;
  }

  /** @returns {readonly Point[]} by time */
  get points() {
    return this.#points;
  }

  /**
   * Takes what the log says of a span of time, in the place of what was known of it.
   * @param {Point[]} points
   * @param {number} from
   * @param {number} to not included
   */
  load(points, from, to) {
    const kept = this.#points.filter(({ at }) => at < from || at >= to);
    this.#points = [...kept, ...points].sort((a, b) => a.at - b.at);
  }

  /** Takes a reading as it comes. One that was measured earlier finds its place. @param {Point} point */
  push(point) {
    const last = this.#points.at(-1);
    if (!last || last.at < point.at) this.#points.push(point);
    else {
      if (this.#points.some(({ at, value }) => at === point.at && value === point.value)) return;
      const after = this.#points.findIndex(({ at }) => at > point.at);
      this.#points.splice(after < 0 ? this.#points.length : after, 0, point);
    }
    if (this.#points.length > MAX_POINTS) this.#points.splice(0, this.#points.length - MAX_POINTS);
  }

  /** The newest value and what surrounds it, for words. @param {number} from @param {number} to */
  summary(from, to) {
    const values = this.#points.filter(({ at, value }) => value !== null && at >= from && at < to);
    const by = (/** @type {(a: number, b: number) => boolean} */ isBetter) =>
      values.reduce((/** @type {Point | undefined} */ best, point) => (!best || isBetter(Number(point.value), Number(best.value)) ? point : best), undefined);
    return { count: values.length, newest: values.at(-1), least: by((a, b) => a < b), greatest: by((a, b) => a > b) };
  }
}

/**
 * True if a line may join these two values: the second is the next one that a working sensor gives.
 * @param {Point} before
 * @param {Point} after
 * @param {number} lostAfterMs
 */
function follows(before, after, lostAfterMs) {
  return after.at - before.at <= Math.max(lostAfterMs, 2 * Math.max(before.every, after.every));
}

/**
 * One stream as a line with its gaps.
 * @param {Stream} stream
 * @param {number} lostAfterMs
 * @returns {{steps: {at: number, value: number | null, late: boolean}[], gaps: Gap[]}}
 */
function lineOf(stream, lostAfterMs) {
  /** @type {{at: number, value: number | null, late: boolean}[]} */
  const steps = [];
  /** @type {Gap[]} */
  const gaps = [];
  /** @type {Point | undefined} */
  let before;
  /** @type {{at: number, why: string} | undefined} */
  let open;
  for (const point of stream.points) {
    if (point.value === null) {
      steps.push({ at: point.at, value: null, late: false });
      open ??= { at: before?.at ?? point.at, why: point.absent ?? 'no value' };
      continue;
    }
    if (before && !open && !follows(before, point, lostAfterMs)) {
      // The line ends at the value before it: one ms later there is nothing.
      steps.push({ at: before.at + 1, value: null, late: false });
      open = { at: before.at, why: 'no data' };
    }
    if (open) gaps.push({ from: open.at, to: point.at, why: open.why });
    open = undefined;
    steps.push({ at: point.at, value: point.value, late: point.late });
    before = point;
  }
  const last = stream.points.at(-1);
  if (open && last) gaps.push({ from: open.at, to: last.at, why: open.why });
  return { steps, gaps };
}

/**
 * Several streams over one time axis.
 * @param {Stream[]} streams
 * @param {(metric: string) => number} lostAfterMs
 * @returns {Columns}
 */
export function columns(streams, lostAfterMs) {
  const lines = streams.map((stream) => lineOf(stream, lostAfterMs(stream.metric)));
  const x = [...new Set(lines.flatMap(({ steps }) => steps.map(({ at }) => at)))].sort((a, b) => a - b);
  const place = new Map(x.map((at, index) => [at, index]));
  const y = lines.map(() => /** @type {(number | null | undefined)[]} */ (Array(x.length).fill(undefined)));
  const late = lines.map(() => /** @type {boolean[]} */ (Array(x.length).fill(false)));
  lines.forEach(({ steps }, line) => {
    for (const step of steps) {
      const index = place.get(step.at) ?? 0;
      // Two values of one moment: a number is never hidden by the end of a line.
      if (step.value === null && typeof y[line]?.[index] === 'number') continue;
      /** @type {any} */ (y[line])[index] = step.value;
      /** @type {any} */ (late[line])[index] = step.late;
    }
  });
  return { x, y, late, gaps: lines.map(({ gaps }) => gaps) };
}

/** True if the value has no neighbour that it is joined to, so that a line alone would not show it. @param {(number | null | undefined)[]} y @param {number} index */
export function isAlone(y, index) {
  const next = (/** @type {number} */ step) => {
    let at = index + step;
    while (at >= 0 && at < y.length && y[at] === undefined) at += step;
    return y[at];
  };
  return typeof y[index] === 'number' && typeof next(-1) !== 'number' && typeof next(1) !== 'number';
}

/**
 * The times of alerts.
 * @param {any[]} rows changes as `/api/v1/alerts/history` has them, the newest first
 * @param {any[]} present those of `/api/v1/alerts`
 * @returns {Band[]} by their beginning
 */
export function bandsOf(rows, present) {
  const stands = new Set(present.map(({ alert_id: id }) => id));
  /** @type {Map<string, Band>} */
  const bands = new Map();
  const take = (/** @type {any} */ data, /** @type {string | undefined} */ end) => {
    const from = Date.parse(data.onset);
    if (!Number.isFinite(from)) return;
    const known = bands.get(data.alert_id);
    if (known) {
      known.to ??= end === undefined ? undefined : Date.parse(end);
      return;
    }
    bands.set(data.alert_id, {
      alertId: data.alert_id, rule: data.rule, priority: data.priority, kind: data.kind, metric: data.metric ?? '', device: data.device_id ?? '',
      message: data.message || data.rule, from, to: end === undefined ? undefined : Date.parse(end),
    });
  };
  for (const data of present) take(data, undefined);
  for (const { data, timestamp } of rows) {
    // Of one that neither stands nor has an end here, the newest change is all that is known.
    const isEnd = data.change === 'end' || (!stands.has(data.alert_id) && !bands.has(data.alert_id));
    take(data, isEnd ? timestamp : undefined);
  }
  return [...bands.values()].filter(({ priority }) => priority !== 'info').sort((a, b) => a.from - b.from);
}

/**
 * The limits in force for some metrics.
 * @param {any[]} limits of `/api/v1/patients/{id}/limits`
 * @param {string[]} metrics
 * @returns {Line[]}
 */
export function linesOf(limits, metrics) {
  return limits.flatMap(({ rule, priority, metrics: about, low, high, unit, off }) => {
    const metric = about.find((/** @type {string} */ name) => metrics.includes(name));
    if (!metric || priority === 'info') return [];
    return /** @type {const} */ (['low', 'high']).flatMap((side) => {
      const level = side === 'low' ? low : high;
      if (typeof level !== 'number') return [];
      return [{ level, side, rule, priority, metric, text: `${level} ${unit}`, off: Boolean(off) }];
    });
  });
}
