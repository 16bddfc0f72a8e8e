/**
 * Draws one number with its state, its note and its age.
 * @module
 */

import { mark, within, write } from './dom.js';
import { NO_TIME } from './ward.js';

/** @typedef {import('./ward.js').Shown} Shown */

/** Characters that one line below a number has room for on the smallest tile. @type {Record<string, number>} */
const NOTE_ROOM = { hr: 14, spo2: 14, pulse: 9, nibp: 16, resp: 9, temp: 13 };
/** The metric of each cell. */
export const METRICS = { hr: 'heart_rate', spo2: 'spo2', pulse: 'pulse_rate', nibp: 'blood_pressure', resp: 'respiratory_rate', temp: 'temperature' };

/** @param {HTMLElement} cell @param {Shown} shown */
export function drawNumber(cell, shown) {
  mark(cell, 'state', shown.state);
  mark(cell, 'seq', shown.seq === undefined ? '' : String(shown.seq));
  mark(cell, 'device', shown.device);
  mark(cell, 'digits', String(shown.text.length));
  write(within(cell, '.number'), shown.text);
  write(within(cell, '.mean'), shown.mean ? `(${shown.mean}) ` : '');
  const { said, age } = noteOf(shown);
  write(within(cell, '.said'), said);
  write(within(cell, '.age'), age);
  const room = NOTE_ROOM[cell.dataset.cell ?? ''] ?? 0;
  mark(cell, 'note', said.length + age.length < room ? '' : said.length + age.length < 2 * room ? 'long' : 'longer');
  const title = [shown.note, shown.pulsePressure && `pulse pressure ${shown.pulsePressure} mmHg`, shown.device && `from ${shown.device}`].filter(Boolean).join(' · ');
  if (cell.title !== title) cell.title = title;
}

/** What stands under a number: the reason why it is not an ordinary one, time and age. @param {Shown} shown */
function noteOf({ state, note, time, age }) {
  const separated = age && `· ${age}`;
  // The age is that of its arrival.
  if (time === NO_TIME) return { said: note, age: age && `came ${age} ago` };
  if (time !== undefined) return { said: [note, time].filter(Boolean).join(' · '), age: separated };
  if (state === 'lost') return { said: note, age: separated };
  if (state === 'stale') return { said: note, age: `${age} old` };
  return { said: note, age: note ? '' : `${age} ago` };
}
