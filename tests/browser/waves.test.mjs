// Where and when samples are drawn, without a browser: the pace, the gaps, the erase bar.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lanes, Range, Track, erased } from '../../src/server/dashboard/waves.js';
import { parseWave } from '../../src/server/dashboard/vitalbridge.js';

const HZ = 100;
const EACH_MS = 1000 / HZ;

/** A block of `n` samples whose values are their numbers. */
const block = (first, n = 25, different = {}) => ({ first, hz: HZ, gap: false, samples: Int16Array.from({ length: n }, (_, at) => first + at), ...different });

/** Blocks as they arrive: `[moment, block]`, and what is taken at each frame of 60 Hz until `end`. */
function played(arrivals, end) {
  const track = new Track();
  const points = [];
  const waiting = [...arrivals];
  for (let now = 0; now <= end; now += 1000 / 60) {
    while (waiting.length > 0 && waiting[0][0] <= now) track.push(waiting.shift()[1], now);
    points.push(...track.take(now).map((point) => ({ ...point, taken: now })));
  }
  return points;
}

/** A device that sends a block each 250 ms, `late` ms after its time. */
const steady = (count, late = () => 0) => Array.from({ length: count }, (_, at) => [250 * (at + 1) + late(at), block(25 * at)]);

test('every sample is drawn once, in order, at the pace of the device, whatever the blocks do', () => {
  for (const late of [() => 0, (at) => (at % 3) * 60, (at) => (at % 7 === 0 ? 150 : 0)]) {
    const points = played(steady(40, late), 11_000);
    assert.deepEqual(points.map(({ value }) => value), Array.from({ length: 1000 }, (_, at) => at));
    const steps = points.slice(1).map(({ at }, place) => at - points[place].at);
    assert.ok(Math.max(...steps) <= EACH_MS * 1.06 && Math.min(...steps) >= EACH_MS * 0.94, `${Math.min(...steps)} to ${Math.max(...steps)}`);
    assert.equal(points.filter(({ joins }) => !joins).length, 1, 'one line');
  }
});

test('a device whose clock is 1 % off is followed without a stop or a jump', () => {
  for (const drift of [1.01, 0.99]) {
    const points = played(Array.from({ length: 400 }, (_, at) => [250 * drift * (at + 1), block(25 * at)]), 100_000);
    assert.ok(points.length > 9700);
    assert.equal(points.filter(({ joins }) => !joins).length, 1);
    const behind = points.at(-1).taken - points.at(-1).at;
    assert.ok(behind >= 0 && behind < 20, `${behind} ms`);
  }
});

test('blocks that were dropped on the way leave their own time empty', () => {
  // One is less than what waits to be drawn, two are more.
  for (const [missing, samples] of [[[10], 25], [[10, 11], 50]]) {
    const points = played(steady(40).filter((_, at) => !missing.includes(at)), 11_000);
    const after = points.findIndex(({ value }) => value === 250 + samples);
    const [before, first] = [points[after - 1], points[after]];
    assert.deepEqual([before.value, first.joins], [249, false], 'no line over the gap');
    const gap = first.at - before.at;
    assert.ok(Math.abs(gap - (samples + 1) * EACH_MS) < 30, `${gap} ms`);
  }
});

test('bytes that the device lost are a break that can be seen, of which nobody knows the length', () => {
  const blocks = steady(20);
  blocks[8][1].gap = true;
  const points = played(blocks, 6000);
  const after = points.findIndex(({ value }) => value === 200);
  assert.equal(points[after].joins, false);
  assert.ok(points[after].at - points[after - 1].at > 10 * EACH_MS);
});

test('after a silence the wave begins where the beam is, not where it stopped', () => {
  const silent = steady(40).map(([at, sent], place) => [place < 10 ? at : at + 3000, sent]);
  const points = played(silent, 14_000);
  const after = points.findIndex(({ value }) => value === 250);
  assert.equal(points[after].joins, false);
  assert.ok(points[after].at - points[after - 1].at > 2500);
  for (const { at, taken } of points) assert.ok(taken - at < 20, 'nothing is drawn behind the beam');
});

test('a source that starts anew begins a new line', () => {
  const points = played([...steady(10), [2750, block(0)], [3000, block(25)]], 5000);
  const again = points.findLastIndex(({ value }) => value === 0);
  assert.equal(points[again].joins, false);
  assert.deepEqual(points.slice(again).map(({ value }) => value), Array.from({ length: 50 }, (_, at) => at));
});

test('a device that sends much faster than it says keeps no more than the screen can show', () => {
  const track = new Track();
  for (let at = 0; at < 10_000; at += 1) track.push(block(25 * at), at);
  assert.ok(track.take(1e9).length <= 64 * 25);
});

test('the erase bar stands in front of the beam and goes round with it', () => {
  assert.deepEqual(erased(100.4, 102.1, 400), [[118, 4]], 'whole pixels, also those that it touches');
  assert.deepEqual(erased(779, 784, 400), [[397, 3], [0, 3]]);
  assert.deepEqual(erased(0, 400, 400), [[0, 400]]);
  // Frame by frame, nothing is left out.
  const empty = new Set();
  for (let from = 0; from < 400; from += 1.7) for (const [left, length] of erased(from, from + 1.7, 400)) for (let x = left; x < left + length; x += 1) empty.add(x);
  assert.equal(empty.size, 400);
});

test('a wave is as high as its lane allows, and finds back after a movement', () => {
  const range = new Range();
  for (const value of [0, 100]) range.see(value);
  assert.ok(range.place(100) > 0.85 && range.place(0) < 0.15);
  range.see(1000);
  for (let sweep = 0; sweep < 20; sweep += 1) {
    range.turn();
    for (const value of [0, 100]) range.see(value);
  }
  assert.ok(range.place(100) > 0.8, String(range.place(100)));
  const flat = new Range();
  flat.see(7);
  assert.equal(flat.place(7), 0.5, 'a flat line is in the middle');
});

test('a lane draws one wave of one device: two monitors of a patient are never mixed, and the choice does not swing', () => {
  const lanes = new Lanes({ ecg: /^ecg/, pleth: /^pleth/, resp: /^resp/ }, ['ecg_II', 'ecg1', 'pleth']);
  const live = new Set();
  const laneOf = (wave, device) => lanes.laneOf({ wave, device_id: device }, (lane) => live.has(lane));
  assert.deepEqual(laneOf('pleth', 'monitor'), { lane: 'pleth', isAnew: true });
  live.add('pleth');
  assert.deepEqual(laneOf('pleth', 'monitor'), { lane: 'pleth', isAnew: false });
  assert.equal(laneOf('pleth', 'zephyr'), undefined, 'another clip');
  assert.deepEqual(laneOf('pleth', 'clip'), { lane: 'pleth', isAnew: true }, 'the first by name, as with numbers');
  assert.equal(laneOf('pleth', 'monitor'), undefined, 'and it stays');
  live.delete('pleth');
  assert.deepEqual(laneOf('pleth', 'monitor'), { lane: 'pleth', isAnew: true }, 'while it lives');
  live.add('ecg');
  assert.equal(laneOf('ecg1', 'a').lane, 'ecg');
  assert.equal(laneOf('ecg_II', 'z').lane, 'ecg', 'a better lead, whatever its device');
  assert.equal(laneOf('ecg1', 'a'), undefined);
  assert.equal(laneOf('art', 'a').lane, 'resp', 'what has no lane takes a free one');
  assert.equal(laneOf('icp', 'a'), undefined);
  assert.deepEqual(['ecg', 'pleth', 'resp'].map((lane) => lanes.waveIn(lane)), ['ecg_II', 'pleth', 'art']);
});

/** A binary message as the bridge writes it. */
function message(header, bytes) {
  const text = new TextEncoder().encode(JSON.stringify({ type: 'waveform', ...header }));
  return Uint8Array.from([text.length & 255, text.length >> 8, ...text, ...bytes]).buffer;
}

test('samples are read in each of their forms', () => {
  for (const [format, bytes, samples] of [['u8', [0, 127, 255], [0, 127, 255]], ['i16le', [0, 1, 255, 255], [256, -1]], ['i32le', [0, 128, 0, 0], [32768]]]) {
    const wave = parseWave(message({ format, n: samples.length, wave: 'pleth' }, bytes));
    assert.deepEqual([[...wave.samples], wave.wave], [samples, 'pleth']);
  }
});

test('what is no wave is refused', () => {
  const header = { format: 'u8', n: 4 };
  assert.throws(() => parseWave(message(header, [1, 2])), RangeError, 'samples are missing');
  assert.throws(() => parseWave(message({ ...header, format: 'f64' }, [1, 2, 3, 4])), TypeError);
  assert.throws(() => parseWave(message({ ...header, type: 'other' }, [1, 2, 3, 4])), TypeError);
  assert.throws(() => parseWave(new ArrayBuffer(1)), RangeError);
});
