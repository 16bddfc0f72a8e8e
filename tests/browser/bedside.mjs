// The bedside view in a window, as tests look at it: numbers, the alarm in the banner, the waves.

import { changeLimit, until, untilOver } from './real.mjs';

/** Nothing happens to this patient in the demo. */
export const QUIET = 'P-0008';
/** Nor to this one. */
export const NEIGHBOUR = 'P-0007';
export const BEDSIDE = `#/patient/${QUIET}`;
export const CONTINUOUS = ['hr', 'spo2', 'pulse', 'resp'];

export const numbersOf = (page) => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('.vital')].map((cell) => [cell.dataset.cell, {
  text: cell.querySelector('.number').textContent,
  state: cell.dataset.state,
  seq: Number(cell.dataset.seq),
  note: cell.querySelector('.note').textContent.trim(),
}])));

export const untilLive = (page) => until('live numbers at the bedside', async () => {
  const numbers = await numbersOf(page);
  return CONTINUOUS.every((cell) => numbers[cell].state === 'live') && numbers;
});

/** The alarm in the banner: its priority, whether it calls, and its text. */
export const bannerOf = (page) => page.evaluate(() => {
  const alarm = document.querySelector('#bedside-alarm .alarm');
  return alarm && { priority: alarm.dataset.priority, active: alarm.dataset.active, text: alarm.querySelector('.alarm-text').textContent.trim() };
});

/** How much of a lane shows a wave. */
export const inkOf = (page, lane) => page.evaluate((name) => {
  const canvas = document.querySelector(`[data-lane=${name}] canvas`);
  if (canvas.width === 0) return 0;
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const columns = new Set();
  for (let at = 3; at < data.length; at += 4) if (data[at] > 0) columns.add(((at - 3) / 4) % canvas.width);
  return columns.size / canvas.width;
}, lane);

/** Limits by which a healthy person alarms at once, at medium priority. */
const LIMITS = {
  // What is acknowledged alarms anew once it is 5 % worse: a saturation does not come and go by so much, a breath rate does.
  spo2_low: { below: 99, clear: { at_least: 100 }, delay: '0s' },
  // Its text is longer.
  respiration_high: { above: 8, clear: { at_most: 6 }, delay: '0s' },
};

/** A medium alarm of these patients, for as long as something is looked at. */
export async function whileAlarming(daemon, look, { patients = [QUIET], rule = 'spo2_low' } = {}) {
  const change = (limit) => Promise.all(patients.map((patient) => changeLimit(daemon, patient, rule, limit)));
  await change(LIMITS[rule]);
  try {
    await look();
  } finally {
    await change();
  }
  await Promise.all(patients.map((patient) => untilOver(daemon, patient, [rule])));
}
