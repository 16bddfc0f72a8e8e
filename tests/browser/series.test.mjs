// What a trend draws, without a browser; and what the pages weigh.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { MAX_POINTS, Stream, bandsOf, columns, isAlone, linesOf, pointOf, pointsOfReading } from '../../src/server/dashboard/series.js';

const LOST_MS = 10_000;
const DASHBOARD = new URL('../../src/server/dashboard/', import.meta.url);

/** A stream of [seconds, value or reason]. */
function stream(points, { metric = 'spo2', device = 'ox', every = 0 } = {}) {
  const made = new Stream(metric, device);
  made.load(points.map(([second, value]) => pointOf({
    timestamp: new Date(second * 1000).toISOString(), ...(typeof value === 'number' ? { value } : { value: null, absent: value }),
  }, every)), -Infinity, Infinity);
  return made;
}

/** What is drawn, as [seconds, value]. */
const drawn = (...streams) => {
  const { x, y } = columns(streams, () => LOST_MS);
  return y.map((line) => line.map((value, at) => [x[at] / 1000, value]));
};

test('values that follow each other are joined, and a silence ends the line', () => {
  assert.deepEqual(drawn(stream([[1, 97], [2, 96], [13, 95]])), [[[1, 97], [2, 96], [2.001, null], [13, 95]]]);
  assert.deepEqual(drawn(stream([[1, 97], [11, 96]])), [[[1, 97], [11, 96]]], 'a sensor may be silent for so long');
});

test('an absent value ends the line at once, with its reason, however short it was', () => {
  const made = columns([stream([[1, 97], [2, 'sensor_off'], [3, 96], [4, 'silent']])], () => LOST_MS);
  assert.deepEqual(made.y, [[97, null, 96, null]]);
  assert.deepEqual(made.gaps, [[{ from: 1000, to: 3000, why: 'sensor_off' }, { from: 3000, to: 4000, why: 'silent' }]]);
});

test('of points that stand for a span, two spans without any are a gap', () => {
  assert.deepEqual(drawn(stream([[0, 97], [110, 96]], { every: 60_000 })), [[[0, 97], [110, 96]]]);
  assert.deepEqual(drawn(stream([[0, 97], [121, 96]], { every: 60_000 })), [[[0, 97], [0.001, null], [121, 96]]]);
});

test('two devices over one axis do not end each other\'s lines', () => {
  const made = columns([stream([[1, 97], [3, 96]]), stream([[2, 95], [4, 'lead_off']], { device: 'other' })], () => LOST_MS);
  assert.deepEqual(made.x, [1000, 2000, 3000, 4000]);
  assert.deepEqual(made.y, [[97, undefined, 96, undefined], [undefined, 95, undefined, null]]);
});

test('a value that nothing is joined to is drawn as a point', () => {
  const line = [97, null, 96, null, 95, undefined, 94];
  assert.deepEqual(line.map((_, at) => isAlone(line, at)), [true, false, true, false, false, false, false]);
});

test('a value and an absent one of the same moment: the number stands', () => {
  assert.deepEqual(drawn(stream([[1, 97], [1, 'silent'], [2, 96]])), [[[1, 97], [2, 96]]]);
});

test('a reading that comes late finds its place, is marked, and comes once', () => {
  const made = stream([[100, 97], [200, 96]]);
  const [{ metric, point }] = pointsOfReading({ metric: 'spo2', value: 93, quality: 'valid', timestamp: new Date(150_000).toISOString(), received: new Date(400_000).toISOString() });
  assert.deepEqual([metric, point.late], ['spo2', true]);
  made.push(point);
  made.push({ ...point });
  assert.deepEqual(made.points.map(({ at, late }) => [at / 1000, late]), [[100, false], [150, true], [200, false]]);
  assert.equal(pointOf({ timestamp: new Date(0).toISOString(), value: 1, late: true }, 0).late, true, 'the log says the same');
});

test('a pressure is three lines, what is withheld is none, and a time that nobody knows is no place', () => {
  const pressure = { metric: 'blood_pressure', quality: 'valid', timestamp: new Date(0).toISOString(), received: new Date(0).toISOString(), components: { systolic: 120, diastolic: 80, mean: null } };
  assert.deepEqual(pointsOfReading(pressure).map(({ metric, point }) => [metric, point.value]), [['blood_pressure.systolic', 120], ['blood_pressure.diastolic', 80], ['blood_pressure.mean', null]]);
  assert.deepEqual(pointsOfReading({ ...pressure, quality: 'invalid' }).map(({ point }) => point.value), [null, null, null]);
  assert.deepEqual(pointsOfReading({ ...pressure, timestamp: undefined }), []);
});

test('the digits that a sensor gave are in the words: 37.0 is not 37', () => {
  const made = new Stream('temperature', 't');
  made.load([pointOf({ timestamp: new Date(0).toISOString(), value: 37, value_text: '37.0' }, 0)], -Infinity, Infinity);
  assert.equal(made.summary(-1, 1).newest.text, '37.0');
});

test('a stream keeps a bounded number of points, the newest', () => {
  const made = new Stream('spo2', 'ox');
  for (let second = 0; second < MAX_POINTS + 50; second += 1) made.push({ at: second * 1000, value: 97, late: false, doubt: false, every: 0 });
  assert.deepEqual([made.points.length, made.points[0].at], [MAX_POINTS, 50_000]);
});

test('a loaded span takes the place of what was known of it, and of nothing else', () => {
  const made = stream([[1, 97], [2, 96], [3, 95]]);
  made.load([pointOf({ timestamp: new Date(2500).toISOString(), value: 90 }, 0)], 2000, 3000);
  assert.deepEqual(made.points.map(({ at, value }) => [at, value]), [[1000, 97], [2500, 90], [3000, 95]]);
});

const alert = (id, change, minute, more = {}) => ({
  timestamp: new Date(minute * 60_000).toISOString(),
  data: { alert_id: id, change, rule: 'spo2_low', priority: 'medium', kind: 'physiological', metric: 'spo2', message: 'SpO2 85 %', onset: new Date(60_000).toISOString(), ...more },
});

test('an alert is a band from its onset to its end, and to now while it stands', () => {
  const times = (rows, present = []) => bandsOf(rows, present).map(({ alertId, from, to }) => [alertId, from / 60_000, to === undefined ? 'now' : to / 60_000]);
  // The newest change comes first.
  assert.deepEqual(times([alert('a', 'end', 5), alert('a', 'acknowledge', 3), alert('a', 'start', 2)]), [['a', 1, 5]]);
  assert.deepEqual(times([alert('a', 'start', 2)], [alert('a', 'start', 2).data]), [['a', 1, 'now']]);
  assert.deepEqual(times([alert('a', 'update', 4), alert('a', 'start', 2)]), [['a', 1, 4]], 'of one whose end was dropped the last change is known');
  assert.deepEqual(times([alert('a', 'start', 2, { priority: 'info' })]), [], 'what never signals is no alarm');
});

test('limits are lines of the metrics that a chart has', () => {
  const limits = [
    { rule: 'spo2_low', priority: 'medium', metrics: ['spo2'], low: 90, high: null, unit: '%', off: null },
    { rule: 'heart_rate_high', priority: 'medium', metrics: ['heart_rate', 'pulse_rate'], low: null, high: 120, unit: 'bpm', off: { by: 'dr' } },
    { rule: 'no_signal', priority: 'low', metrics: [], low: null, high: null, unit: '', off: null },
  ];
  assert.deepEqual(linesOf(limits, ['spo2']).map(({ side, level, off }) => [side, level, off]), [['low', 90, false]]);
  assert.deepEqual(linesOf(limits, ['pulse_rate']).map(({ side, level, off }) => [side, level, off]), [['high', 120, true]]);
});

/** What each file may weigh, gzipped, in bytes. */
const WEIGHTS = {
  'vendor/uPlot.iife.min.js': 22_100, 'vendor/uPlot.min.css': 800, 'trends.js': 7700, 'chart.js': 7000, 'series.js': 4000, 'nibp.js': 2400, 'alarms.js': 6600,
  'limits.js': 6200, 'devices.js': 5500, 'system.js': 4600, 'pages.js': 3600, 'rest.js': 2600, 'elements.js': 2200, 'pages.css': 3600,
};

test('the pages weigh what they may', () => {
  const sizes = Object.fromEntries(Object.keys(WEIGHTS).map((name) => [name, gzipSync(readFileSync(new URL(name, DASHBOARD)), { level: 9 }).length]));
  console.log(`gzipped bytes: ${JSON.stringify(sizes)}, together ${Object.values(sizes).reduce((sum, size) => sum + size, 0)}`);
  assert.deepEqual(Object.entries(sizes).filter(([name, size]) => size > WEIGHTS[name]), []);
});

test('uPlot is as its maker packs it, with its licence', () => {
  const packed = (name) => readFileSync(new URL(`node_modules/uplot/${name}`, import.meta.url));
  for (const [ours, theirs] of [['uPlot.iife.min.js', 'dist/uPlot.iife.min.js'], ['uPlot.min.css', 'dist/uPlot.min.css'], ['uPlot.LICENSE.txt', 'LICENSE']]) {
    assert.ok(readFileSync(new URL(`vendor/${ours}`, DASHBOARD)).equals(packed(theirs)), ours);
  }
  assert.deepEqual(readdirSync(new URL('vendor/', DASHBOARD)).length, 3, 'nothing else is vendored');
});

test('no page has an inline script, an inline style or markup made of text', () => {
  for (const name of readdirSync(DASHBOARD).filter((file) => /\.(js|html)$/.test(file))) {
    const text = readFileSync(new URL(name, DASHBOARD), 'utf8');
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\('style'|<script>|<style| style="| on[a-z]+="/, name);
  }
});
