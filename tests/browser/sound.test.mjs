// The alarm sounds against IEC 60601-1-8, tables 3 and 4: how many pulses, how long, how far apart.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BURSTS, pulsesOf } from '../../src/server/dashboard/sound.js';

/** The standard, in s. `gaps` of high: x, x, 2x + a pulse, x, the middle, and the same again. */
const STANDARD = {
  high: { pulses: 10, pulse: [0.075, 0.2], x: [0.05, 0.125], middle: [0.35, 1.3], rest: [2.5, 15] },
  medium: { pulses: 3, pulse: [0.125, 0.25], x: [0.125, 0.25], rest: [2.5, 30] },
  low: { pulses: 1, pulse: [0.125, 0.25], rest: [15, Infinity] },
};

const within = (value, [low, high], what) => assert.ok(value >= low - 1e-9 && value <= high + 1e-9, `${what}: ${value} s, not ${low} to ${high} s`);

for (const [priority, standard] of Object.entries(STANDARD)) {
  test(`a burst of ${priority} priority has ${standard.pulses} pulses as the standard has them`, () => {
    const { hz, pulse, rest } = BURSTS[priority];
    const { begins, length, every } = pulsesOf(priority);
    assert.equal(begins.length, standard.pulses);
    within(pulse, standard.pulse, 'pulse');
    within(rest, standard.rest, 'rest');
    assert.ok(hz >= 150 && hz <= 1000, 'fundamental');
    assert.ok(Math.abs(every - length - rest) < 1e-9);
    const gaps = begins.slice(1).map((begin, at) => begin - begins[at] - pulse);
    if (priority === 'medium') for (const gap of gaps) within(gap, standard.x, 'y');
    if (priority !== 'high') return;
    assert.equal(pulse, 0.15);
    const [x] = gaps;
    within(x, standard.x, 'x');
    const half = [x, x, 2 * x + pulse, x];
    within(gaps[4], standard.middle, 'middle');
    [...half, gaps[4], ...half].forEach((gap, at) => assert.ok(Math.abs(gap - gaps[at]) < 1e-9, `gap ${at + 1}: ${gaps[at]}`));
  });
}

test('what is more urgent sounds faster', () => {
  const paces = ['high', 'medium', 'low'].map((priority) => pulsesOf(priority).every);
  assert.deepEqual(paces, [...paces].sort((a, b) => a - b));
});
