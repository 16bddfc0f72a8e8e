/**
 * What the cuff measured, one measurement a row, the newest first.
 * @module
 */

import { clockOf } from './chart.js';
import { button, fill, hide, make, table, write } from './elements.js';
import { ask, isAbort, wordsOf } from './rest.js';
import { LATE_MS } from './series.js';
import { DOUBTFUL_WORDS } from './ward.js';

/** Rows of a request, requests of a time, and rows that are added at once to what is shown. */
const PAGE = 1000;
const MAX_PAGES = 20;
const SHOWN = 25;
/** By then what was measured is on disk, in ms. */
const ON_DISK_MS = 7000;
/** Measurements that are remembered from what came live. */
const MAX_LIVE = 100;

/** @param {any} holder @param {string} part */
const digits = (holder, part) => (typeof holder?.[part] === 'number' ? String(holder[`${part}_text`] ?? holder[part]) : undefined);

/** A measurement as the cells of a row. @param {any} data */
function cells(data) {
  const [systolic, diastolic, mean] = ['systolic', 'diastolic', 'mean'].map((part) => digits(data.components, part));
  const made = digits(data.derived, 'mean');
  const isWithheld = ['invalid', 'calibrating', 'ongoing', 'overflow', 'underflow'].includes(data.quality);
  const isNumber = !isWithheld && (systolic !== undefined || diastolic !== undefined || mean !== undefined);
  const isLate = !data.timestamp || data.quality === 'historic' || Date.parse(data.received) - Date.parse(data.timestamp) > LATE_MS;
  const said = [
    !isNumber && String(data.absent ?? data.quality ?? 'no measurement').replaceAll('_', ' '),
    isNumber && DOUBTFUL_WORDS[data.quality],
    isLate && `came ${clockOf(Date.parse(data.received), true)}`,
    !data.timestamp && data.device_time && `its clock: ${data.device_time}`,
    data.ts_source === 'unsynced' && 'the clock was not set',
  ];
  return [
    data.timestamp ? clockOf(Date.parse(data.timestamp), true) : 'time unknown',
    make('strong', {}, isNumber ? `${systolic ?? '---'}/${diastolic ?? '---'}` : '---'),
    // What the bridge computed is never taken for what the cuff measured.
    isNumber ? mean ?? (made ? `≈${made}` : '---') : '---',
    isNumber ? digits(data.derived, 'pulse_pressure') ?? '---' : '---',
    data.device_id,
    said.filter(Boolean).join(' · '),
  ];
}

/**
 * The table of the cuff's measurements.
 * @param {import('./pages.js').Context} context
 */
export function nibpHistory(context) {
  /** By run and number. @type {Map<string, any>} */
  let known = new Map();
  /** What came while the page was open: the log may not have had it yet when it was asked. @type {Map<string, any>} */
  const live = new Map();
  let shown = SHOWN;
  const place = make('div');
  const says = make('p', { class: 'quiet-text' });
  const more = button('Show more', () => {
    shown += SHOWN;
    draw();
  });
  const element = make('section', { class: 'nibp', 'aria-label': 'NIBP history' }, make('h3', {}, 'NIBP history', make('span', { class: 'unit' }, 'mmHg')), says, place, more);

  function draw() {
    const rows = [...known.values()].sort((a, b) => (Date.parse(b.timestamp ?? b.received) - Date.parse(a.timestamp ?? a.received)) || b.seq - a.seq);
    const part = rows.slice(0, shown);
    fill(place, rows.length > 0 && table('NIBP history, the newest first', ['Time', 'Sys/Dia', 'Mean', 'Pulse pressure', 'Device', 'Remarks'], part.map(cells)));
    write(says, rows.length === 0 ? 'No cuff measured in this time.' : `${part.length} of ${rows.length} in this time`);
    hide(more, part.length === rows.length);
  }

  /** Asks once more: what was measured in the last seconds may not have been on disk. @param {{from: number, to: number}} span @param {AbortSignal} signal */
  async function once(span, signal) {
    try {
      if (!signal.aborted) await history.load(span, signal, true);
    } catch (cause) {
      if (!isAbort(cause)) write(says, wordsOf(cause));
    }
  }

  const history = {
    element,
    /** @param {{from: number, to: number}} span @param {AbortSignal} signal @param {boolean} [again] */
    async load({ from, to }, signal, again = false) {
      /** @type {Map<string, any>} */
      const found = new Map();
      const before = new Set(live.keys());
      let cursor;
      for (let page = 0; page < MAX_PAGES; page += 1) {
        const query = { patient: context.patient?.id, metric: 'blood_pressure', from: new Date(from).toISOString(), to: new Date(to).toISOString(), limit: PAGE, cursor };
        const { rows, next } = await ask('/api/v1/readings', { query, signal });
        for (const { data, seq, epoch } of rows) found.set(`${epoch}:${seq}`, { ...data, seq });
        cursor = next;
        if (!next) break;
      }
      if (signal.aborted) return;
      for (const [key, data] of live) {
        const at = Date.parse(data.timestamp ?? data.received);
        if (!found.has(key) && (!before.has(key) || (at >= from && at <= to))) found.set(key, data);
      }
      known = found;
      draw();
      if (!again) setTimeout(() => once({ from, to }, signal), ON_DISK_MS);
    },
    /** A measurement came. @param {any} data */
    heard(data) {
      const key = `${data.epoch}:${data.seq}`;
      live.set(key, data);
      if (live.size > MAX_LIVE) live.delete(/** @type {string} */ (live.keys().next().value));
      known.set(key, data);
      draw();
    },
  };
  return history;
}
