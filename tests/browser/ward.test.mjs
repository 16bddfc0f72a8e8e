// What the ward view says about readings, ages and alerts, without a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '../../src/server/dashboard/alarm.js';
import { NO_NUMBER, Ward, ageText, timeText } from '../../src/server/dashboard/ward.js';

const SNAPSHOT = {
  mode: 'real',
  stale_after_ms: 5000,
  lost_after_ms: 10000,
  patients: [
    { id: 'P-10', name: 'Ten', bed: '10', ward: 'A' },
    { id: 'P-2', name: 'Two', bed: '2', ward: 'A' },
    { id: 'P-1', name: 'One', bed: '1', ward: 'B' },
  ],
};
const PATIENT = 'P-2';

let seq = 0;

/** A reading as the bridge sends it, with what a test wants different. */
function reading(metric, value, different = {}) {
  seq += 1;
  return {
    metric, value, quality: value === null ? 'not_available' : 'valid', device_id: 'monitor', patient_id: PATIENT, mode: 'real',
    received: '2026-11-20T22:00:00.000Z', timestamp: '2026-11-20T22:00:00.000Z', ts_source: 'received', seq, epoch: 'e1', ...different,
  };
}

function alert(different = {}) {
  seq += 1;
  return {
    alert_id: 'a1', change: 'start', patient_id: PATIENT, device_id: null, rule: 'spo2_low', kind: 'physiological', priority: 'medium',
    metric: 'spo2', message: 'SpO2 below 90 %', condition: { presence: 'true' },
    signal: { audio: { activation: 'on', presence: 'on' }, visual: { activation: 'on', presence: 'on' } },
    onset: '2026-11-20T22:00:00.000Z', paused_until: null, hidden_by: null, recurrence: 0, by: null, mode: 'real', seq, epoch: 'e1',
    ...different,
  };
}

function ward() {
  const made = new Ward();
  made.begin(SNAPSHOT, 0);
  return made;
}

const tileOf = (made, now = 0, connected = true) => made.tiles(now, connected).find(({ id }) => id === PATIENT);

/** The cell of one reading that arrived at 0, seen at `now`. */
function shown(data, cell, now = 0) {
  const made = ward();
  made.reading(data, 0);
  const tile = tileOf(made, now);
  return cell === 'pulse' ? tile.pulse : tile.cells[cell];
}

test('tiles stand in the order of ward and bed, with numbers compared as numbers', () => {
  const made = ward();
  made.alert(alert({ patient_id: 'P-10', priority: 'high' }));
  assert.deepEqual(made.tiles(0).map(({ id }) => id), ['P-2', 'P-10', 'P-1']);
});

test('what sounds is what the tile shows: a latched high stands before an active medium, an acknowledged one behind it', () => {
  const signal = (audio, presence) => ({ signal: { audio: { activation: 'on', presence: audio }, visual: { activation: 'on', presence } } });
  for (const [high, first] of [[signal('latched', 'latched'), 'high'], [signal('ack', 'ack'), 'medium']]) {
    const made = ward();
    made.alert(alert({ alert_id: 'a1', priority: 'high', ...high }));
    made.alert(alert({ alert_id: 'a2', priority: 'medium' }));
    assert.deepEqual([tileOf(made).alert.priority, made.alertsElsewhere('')[0].priority, made.audible()], [first, first, first]);
  }
});

test('a number is shown with the digits that the sensor gave', () => {
  assert.equal(shown(reading('temperature', 37, { value_text: '37.0' }), 'temp').text, '37.0');
  assert.equal(shown(reading('heart_rate', 72), 'hr').text, '72');
});

test('a number turns grey after 5 s and is gone after 10 s', () => {
  const rows = [[0, 'live', '72'], [5000, 'live', '72'], [5001, 'stale', '72'], [10000, 'stale', '72'], [10001, 'lost', NO_NUMBER]];
  for (const [now, state, text] of rows) {
    const cell = shown(reading('heart_rate', 72), 'hr', now);
    assert.deepEqual([cell.state, cell.text], [state, text], `after ${now} ms`);
  }
  assert.deepEqual([shown(reading('heart_rate', 72), 'hr', 7400).age, shown(reading('heart_rate', 72), 'hr', 12000).note], ['7 s', 'no signal']);
});

test('the times after which a number is old come from the snapshot', () => {
  const made = new Ward();
  made.begin({ ...SNAPSHOT, stale_after_ms: 2000, lost_after_ms: 3000 }, 0);
  made.reading(reading('spo2', 97), 0);
  assert.deepEqual([1000, 2500, 3500].map((now) => tileOf(made, now).cells.spo2.state), ['live', 'stale', 'lost']);
});

test('a patient and a metric with times of their own have them, and nobody else', () => {
  const made = new Ward();
  const times = (patient_id, metrics, stale_after_ms, lost_after_ms) => ({ patient_id, metrics, stale_after_ms, lost_after_ms });
  made.begin({ ...SNAPSHOT, signal_times: [times(PATIENT, ['spo2', 'pulse_rate'], 20_000, 40_000), times('P-1', ['spo2'], 60_000, 90_000)] }, 0);
  for (const metric of ['spo2', 'heart_rate']) for (const { id } of SNAPSHOT.patients) made.reading(reading(metric, 97, { patient_id: id }), 0);
  const states = (cell, now) => made.tiles(now).map(({ cells }) => cells[cell].state);
  const rows = [[5000, ['live', 'live', 'live']], [11_000, ['live', 'lost', 'live']], [20_001, ['stale', 'lost', 'live']], [40_001, ['lost', 'lost', 'live']], [90_001, ['lost', 'lost', 'lost']]];
  for (const [now, expected] of rows) assert.deepEqual(states('spo2', now), expected, `P-2, P-10, P-1 after ${now} ms`);
  assert.deepEqual(states('hr', 11_000), ['lost', 'lost', 'lost']);
  assert.deepEqual(['spo2', 'heart_rate'].map((metric) => made.timesOf(PATIENT, metric).lostAfterMs), [40_000, 10_000]);
});

test('where a silence rule changes only a snapshot tells when numbers are gone', () => {
  const made = ward();
  const silence = (different) => [{ rule: 'no_signal', kind: 'technical', metrics: [], stale_after_ms: 5000, no_valid_for_ms: 10_000, ...different }, { rule: 'spo2_low', kind: 'physiological', metrics: ['spo2'], low: 90 }];
  const change = (rule) => made.limit({ patient_id: PATIENT, rule, in_force: true });
  assert.equal(change('spo2_low'), false, 'before the rules are known it may be about a silence');
  const kept = [[{}, true], [{}, true], [{ no_valid_for_ms: 30_000 }, false], [{ no_valid_for_ms: 30_000 }, true], [{ no_valid_for_ms: 30_000, off: { expires: '2026-11-21T10:00:00Z' } }, false]];
  for (const [different, same] of kept) assert.equal(made.inForce(PATIENT, silence(different)), same, JSON.stringify(different));
  assert.deepEqual(['spo2_low', 'no_signal'].map(change), [true, false]);
});

test('alerts that another one lists by their numbers have their bed and their words', () => {
  const made = ward();
  const id = '01a1ffcf-b611-7f29-bec0-ba9b43607b9b';
  made.alert(alert({ alert_id: id }));
  const listing = (message) => alert({ alert_id: 'a9', patient_id: null, rule: 'alert_undelivered', kind: 'technical', metric: null, message });
  made.alert(listing(`2 alerts not shown anywhere: ${id}, ${id.replaceAll('01', '02')}`));
  const said = '2 alerts not shown anywhere: 2 SpO2 below 90 %, one that is over';
  assert.equal(made.bridgeAlerts()[0].title, said);
  assert.equal(made.spoken(listing(`1 alert not shown anywhere: ${id}`)), 'medium priority, bridge: 1 alert not shown anywhere: 2 SpO2 below 90 %');
});

test('the mode that was said before sign-in marks a page that has no snapshot yet', () => {
  assert.deepEqual(['', 'real', 'demo', 'test', undefined].map((mode) => new Ward(mode).mark), ['', '', 'DEMO', 'TEST', '']);
});

test('a number whose alarm another one stands for is marked all the same', () => {
  const made = ward();
  made.alert(alert({ alert_id: 'a2', metric: 'heart_rate', priority: 'high' }));
  made.alert(alert({ hidden_by: 'a2' }));
  const tile = tileOf(made);
  assert.deepEqual([tile.marked, tile.more, tile.alert.alertId], [{ heart_rate: 'high', spo2: 'medium' }, 0, 'a2']);
});

test('what is not a measurement is never a number', () => {
  const rows = [
    ['hr', undefined, 'none', 'no data yet'],
    ['hr', reading('heart_rate', null, { absent: 'lead_off' }), 'absent', 'lead off'],
    ['spo2', reading('spo2', null, { absent: 'sensor_off' }), 'absent', 'sensor off'],
    ['spo2', reading('spo2', null, { absent: 'a_new_reason' }), 'absent', 'a new reason'],
    ['spo2', reading('spo2', 0), 'absent', 'reads zero'],
    ['spo2', reading('spo2', Number.NaN), 'absent', 'no measurement'],
    ['hr', reading('heart_rate', '72'), 'absent', 'no measurement'],
    ['hr', reading('heart_rate', 72, { quality: 'invalid' }), 'absent', 'invalid'],
    ['hr', reading('heart_rate', 72, { quality: 'calibrating' }), 'absent', 'calibrating'],
    ['nibp', reading('blood_pressure', null, { absent: 'measurement_failed' }), 'absent', 'measurement failed'],
    ['nibp', reading('blood_pressure', 120, { quality: 'ongoing', components: { systolic: 120, diastolic: 80, mean: 93 } }), 'absent', 'measuring'],
  ];
  for (const [cell, data, state, note] of rows) {
    const got = data ? shown(data, cell) : tileOf(ward()).cells[cell];
    assert.deepEqual([got.text, got.state, got.note], [NO_NUMBER, state, note], `${cell} ${JSON.stringify(data)}`);
  }
});

test('no breath is a measurement, no heart beat is not', () => {
  assert.equal(shown(reading('respiratory_rate', 0), 'resp').text, '0');
  assert.equal(shown(reading('heart_rate', 0), 'hr').text, NO_NUMBER);
});

test('a doubtful number is shown, and never as an ordinary one', () => {
  for (const [quality, note] of [['questionable', 'doubtful'], ['implausible', 'not plausible']]) {
    const cell = shown(reading('spo2', 71, { quality }), 'spo2');
    assert.deepEqual([cell.text, cell.state, cell.note], ['71', 'doubtful', note]);
  }
});

test('a pressure is shown whole, or with the part that is missing', () => {
  const parts = (systolic, diastolic, mean) => 
    shown(reading('blood_pressure', systolic, { quality: 'valid', components: { systolic, diastolic, mean } }), 'nibp');
  assert.deepEqual([parts(120, 80, 93).text, parts(120, 80, 93).mean], ['120/80', '93']);
  assert.deepEqual([parts(120, null, null).text, parts(120, null, null).mean], ['120/---', undefined]);
  assert.equal(parts(null, 80, null).text, '---/80');
});

test('what the bridge computes of a pressure is marked as computed, and the cuff\'s own mean stands before it', () => {
  const parts = (mean, derived) => {
    const components = { systolic: 120, diastolic: 80, mean };
    const { mean: told, pulsePressure } = shown(reading('blood_pressure', 120, { components, derived }), 'nibp');
    return [told, pulsePressure];
  };
  assert.deepEqual(parts(null, { mean: 93, pulse_pressure: 40 }), ['≈93', '40']);
  assert.deepEqual(parts(95, { pulse_pressure: 40 }), ['95', '40']);
  assert.deepEqual(parts(null, undefined), [undefined, undefined]);
});

/** A score as the bridge sends it while nobody has entered oxygen and consciousness. */
function score(different = {}, value = null) {
  const news2 = {
    score_min: 3, score_max: 8, complete: false, band: null, band_min: 'low', single_3: false, spo2_scale: 1,
    missing: ['consciousness', 'oxygen'], inputs: [{ parameter: 'respiratory_rate', value: 22, points: 2, age_ms: 0 }], ...different,
  };
  return reading('news2', value, { device_id: 'vitalbridge', news2, ...(value === null && { absent: 'inputs_missing' }) });
}

test('a score is a range with the least band in words and what is missing, until nothing is missing', () => {
  const told = (data) => {
    const made = ward();
    made.reading(data, 0);
    const { text, complete, band, says, missing } = tileOf(made).news2;
    return [text, complete, band, says, missing];
  };
  assert.deepEqual(told(score()), ['3–8', false, 'low', '≥ LOW', 'O2? ACVPU?']);
  const whole = { score_max: 3, score_min: 3, complete: true, missing: [] };
  assert.deepEqual(told(score({ ...whole, band: 'low-medium', band_min: 'low-medium' }, 3)), ['3', true, 'low-medium', 'LOW-MEDIUM (a single 3)', '']);
  assert.deepEqual(told(score({ score_min: 7, score_max: 12, band: 'high', band_min: 'high' })), ['7–12', false, 'high', 'HIGH', 'O2? ACVPU?']);
  assert.equal(told(score({ missing: ['a_new_one'] }))[4], 'a new one?', 'a name without words here is still told');
  // What contradicts itself is not shown as a total.
  assert.equal(told(score({ ...whole, missing: ['oxygen'], band: 'low' }, 3))[0], '3–3');
});

test('a score is not shown without the bridge, nor where it is not computed, and says its age', () => {
  const made = ward();
  assert.equal(tileOf(made).news2, undefined);
  made.reading(score(), 0);
  assert.deepEqual([tileOf(made, 59_999).news2.age, tileOf(made, 120_000).news2.age], ['', '· 2 min']);
  const lost = tileOf(made, 0, false).news2;
  assert.deepEqual([lost.text, lost.missing, lost.says], [NO_NUMBER, 'no link', '']);
  made.reading(reading('news2', null, { device_id: 'vitalbridge', absent: 'inputs_missing' }), 1);
  assert.equal(tileOf(made, 1).news2.text, NO_NUMBER);
});

test('ALARM OFF names the rules and their end, with the day if it is further away than one', () => {
  const made = ward();
  const wallNow = Date.parse('2026-11-20T22:00:00.000Z');
  const off = (rule, until) => ({ patient_id: PATIENT, rule, action: 'disabled', in_force: true, alarm_off: true, until });
  const [soon, far] = ['2026-11-20T23:00:00.000Z', '2026-11-23T08:00:00.000Z'];
  const told = (...wall) => made.tiles(0, true, ...wall).find(({ id }) => id === PATIENT).off;
  assert.deepEqual(told(), []);
  made.inForce(PATIENT, []);
  assert.equal(made.limit(off('spo2_low', soon)), true);
  assert.deepEqual(told(wallNow), [`spo2 low until ${timeText(soon)}`]);
  assert.match(told()[0], /^spo2 low until 2026-11-2\d \d\d:\d\d$/, 'the time of day is not known');
  made.limit(off('heart_rate_high', soon));
  made.limit(off('temperature', far));
  assert.deepEqual(told(wallNow).slice(0, 2), ['heart rate high', `spo2 low until ${timeText(soon)}`]);
  assert.match(told(wallNow)[2], /^temperature until 2026-11-23 \d\d:\d\d$/);
  assert.equal(made.limit({ ...off('spo2_low', null), action: 'expired', in_force: false, alarm_off: false }), false, 'only a snapshot tells');
  assert.equal(told().length, 3, 'other limits of the rule may have ended');
  made.begin({ ...SNAPSHOT, limits: [off('temperature', far)] }, 0);
  assert.equal(told().length, 1);
  // What the rule file switched off is in no message.
  const decision = (expires) => ({ reason: 'test', by: 'dr', expires });
  made.inForce(PATIENT, [{ rule: 'temperature', off: decision(far) }, { rule: 'spo2_low', off: decision(soon) },
    { rule: 'systolic', off: decision(null) }, { rule: 'diastolic', off: null }]);
  assert.deepEqual([told(wallNow).length, told(wallNow)[0]], [2, `spo2 low until ${timeText(soon)}`]);
});

test('a spot value keeps its number with time and age, and is grey after an hour', () => {
  const data = reading('blood_pressure', 120, { components: { systolic: 120, diastolic: 80, mean: 93 } });
  const later = shown(data, 'nibp', 12 * 60_000);
  assert.deepEqual([later.text, later.state, later.age, later.time], ['120/80', 'live', '12 min', timeText(data.timestamp)]);
  assert.equal(shown(data, 'nibp', 61 * 60_000).state, 'stale');
});

test('a value that the device kept counts from the time it was measured', () => {
  const kept = { timestamp: '2026-11-20T21:30:00.000Z', components: { systolic: 120, diastolic: 80 } };
  assert.equal(shown(reading('blood_pressure', 120, kept), 'nibp').age, '30 min');
  const made = ward();
  made.reading(reading('blood_pressure', 140, { components: { systolic: 140, diastolic: 90 } }), 0);
  made.reading(reading('blood_pressure', 120, kept), 1000);
  assert.equal(tileOf(made, 1000).cells.nibp.text, '140/90', 'the older measurement came later');
});

test('a kept value of an unknown time hides no other one', () => {
  const undated = { quality: 'historic', ts_source: 'unknown', timestamp: undefined };
  const made = ward();
  made.reading(reading('blood_pressure', 150, { ...undated, components: { systolic: 150, diastolic: 95 } }), 0);
  assert.equal(tileOf(made, 0).cells.nibp.text, '150/95');
  made.reading(reading('blood_pressure', 140, { components: { systolic: 140, diastolic: 90 } }), 500);
  made.reading(reading('blood_pressure', 120, { ...undated, components: { systolic: 120, diastolic: 80 } }), 1000);
  assert.equal(tileOf(made, 1000).cells.nibp.text, '140/90');
});

test('a kept value with a time takes the place of one without', () => {
  const made = ward();
  const kept = (systolic, more) => reading('blood_pressure', systolic, { quality: 'historic', components: { systolic, diastolic: 95 }, ...more });
  made.reading(kept(150, { ts_source: 'unknown', timestamp: undefined }), 0);
  made.reading(kept(130, { timestamp: '2026-11-20T21:30:00.000Z' }), 1000);
  assert.equal(tileOf(made, 1000).cells.nibp.text, '130/95');
});

test('a time that nobody knows is not made up', () => {
  assert.equal(shown(reading('temperature', 37, { ts_source: 'unknown' }), 'temp').time, 'time unknown');
  assert.equal(shown(reading('temperature', 37, { timestamp: undefined }), 'temp').time, 'time unknown');
  assert.match(shown(reading('temperature', 37, { ts_source: 'unsynced' }), 'temp').time, /^≈\d\d:\d\d$/);
});

test('the pulse beside the saturation is the oximeter\'s, not the cuff\'s', () => {
  assert.equal(shown(reading('pulse_rate', 66, { mdc: 149546 }), 'pulse').text, NO_NUMBER);
  assert.equal(shown(reading('pulse_rate', 66, { mdc: 149530 }), 'pulse').text, '66');
});

test('of two sensors one is kept while it lives, then the other', () => {
  const made = ward();
  made.reading(reading('heart_rate', 70, { device_id: 'a-strap' }), 0);
  made.reading(reading('heart_rate', 80, { device_id: 'b-monitor' }), 500);
  assert.equal(tileOf(made, 600).cells.hr.text, '70');
  made.reading(reading('heart_rate', null, { device_id: 'a-strap', absent: 'lead_off' }), 1000);
  assert.equal(tileOf(made, 1100).cells.hr.text, '80');
  made.reading(reading('heart_rate', 81, { device_id: 'b-monitor' }), 20_000);
  assert.equal(tileOf(made, 20_000).cells.hr.text, '81');
});

test('an older event of the same run never replaces a newer one', () => {
  const made = ward();
  const [older, newer] = [reading('heart_rate', 70), reading('heart_rate', 71)];
  made.reading(newer, 100);
  made.reading(older, 200);
  assert.equal(tileOf(made, 200).cells.hr.text, '71');
  const restarted = reading('heart_rate', 72, { epoch: 'e2', seq: 1 });
  made.reading(restarted, 300);
  assert.equal(tileOf(made, 300).cells.hr.text, '72');
});

test('a heartbeat makes a number older and never younger', () => {
  const made = ward();
  made.reading(reading('heart_rate', 72), 0);
  made.ages({ [`patient/${PATIENT}/heart_rate`]: 6000 }, 1000);
  assert.deepEqual([tileOf(made, 1000).cells.hr.state, tileOf(made, 1000).cells.hr.age], ['stale', '6 s']);
  made.ages({ [`patient/${PATIENT}/heart_rate`]: 0 }, 2000);
  assert.equal(tileOf(made, 2000).cells.hr.age, '7 s');
});

test('a snapshot brings the ages of the bridge and forgets what was before', () => {
  const made = ward();
  made.reading(reading('spo2', 97), 0);
  made.alert(alert());
  made.begin({ ...SNAPSHOT, readings: [{ ...reading('heart_rate', 64), age_ms: 6000 }] }, 100_000);
  const tile = tileOf(made, 100_000);
  assert.deepEqual([tile.cells.hr.text, tile.cells.hr.age, tile.cells.spo2.state, tile.alert], ['64', '6 s', 'none', undefined]);
});

test('a reading of unknown age is not shown as fresh', () => {
  const made = ward();
  made.begin({ ...SNAPSHOT, readings: [reading('heart_rate', 64)] }, 0);
  assert.equal(tileOf(made, 0).cells.hr.state, 'lost');
});

test('a missing signal names the sensor\'s link, or ours', () => {
  const made = ward();
  made.reading(reading('heart_rate', 72), 0);
  made.device({ patient_id: PATIENT, device_id: 'monitor', link: 'lost' });
  assert.equal(tileOf(made, 11_000).cells.hr.note, 'link lost');
  assert.equal(tileOf(made, 11_000, false).cells.hr.note, 'no link');
});

test('the tile shows the most urgent alert that still calls, and counts the others', () => {
  const made = ward();
  const acknowledged = { audio: { activation: 'on', presence: 'ack' }, visual: { activation: 'on', presence: 'on' } };
  made.alert(alert({ alert_id: 'low', priority: 'low' }));
  made.alert(alert({ alert_id: 'high', priority: 'high', signal: acknowledged, by: 'nurse-3' }));
  made.alert(alert({ alert_id: 'medium', priority: 'medium', message: 'Heart rate above 120 bpm' }));
  made.alert(alert({ alert_id: 'info', priority: 'info' }));
  const tile = tileOf(made);
  assert.deepEqual([tile.alert.alertId, tile.alert.stars, tile.more, tile.moreStars], ['medium', '**', 2, '***']);
  assert.deepEqual(made.counts(), { high: 1, medium: 1, low: 1 });
  assert.deepEqual(['high', 'medium', 'low'].map((priority) => made.calls(priority)), [false, true, true]);
});

test('an acknowledged alert says by whom and asks for nothing', () => {
  const made = ward();
  const signal = { audio: { activation: 'on', presence: 'ack' }, visual: { activation: 'on', presence: 'on' } };
  made.alert(alert({ signal, by: 'nurse-3' }));
  const { active, action, detail } = tileOf(made).alert;
  assert.deepEqual([active, action, detail], [false, '', 'ACKNOWLEDGED by nurse-3']);
});

test('unknown is not normal: an alert without data stays and says so', () => {
  const made = ward();
  made.alert(alert({ condition: { presence: 'unknown' } }));
  const { unknown, active, detail } = tileOf(made).alert;
  assert.deepEqual([unknown, active, detail], [true, true, 'state unknown: no data']);
});

test('a latched alert waits for a reset, a paused one says until when', () => {
  const made = ward();
  made.alert(alert({ change: 'latch', condition: { presence: 'false' }, signal: { audio: {}, visual: { activation: 'on', presence: 'latched' } } }));
  assert.deepEqual([tileOf(made).alert.action, tileOf(made).alert.active], ['Reset', false]);
  const until = '2026-11-20T22:02:00.000Z';
  made.alert(alert({ signal: { audio: { activation: 'paused', presence: 'off' }, visual: { activation: 'on', presence: 'on' } }, paused_until: until }));
  assert.equal(tileOf(made).alert.detail, `AUDIO PAUSED until ${timeText(until, true)}`);
});

test('a hidden alert shows again when the one that hides it is over', () => {
  const made = ward();
  made.alert(alert({ alert_id: 'desaturation', priority: 'high' }));
  made.alert(alert({ alert_id: 'low-saturation', hidden_by: 'desaturation' }));
  assert.deepEqual([tileOf(made).alert.alertId, tileOf(made).more], ['desaturation', 0]);
  made.alert(alert({ alert_id: 'desaturation', change: 'end' }));
  assert.equal(tileOf(made).alert.alertId, 'low-saturation');
});

test('an alert of the bridge, or of somebody unknown here, is not lost', () => {
  const made = ward();
  made.alert(alert({ alert_id: 'disk', patient_id: null, kind: 'technical', message: 'Disk 92 % full' }));
  made.alert(alert({ alert_id: 'stranger', patient_id: 'P-99' }));
  assert.deepEqual(made.bridgeAlerts().map(({ alertId }) => alertId).sort(), ['disk', 'stranger']);
});

test('only what is new is worth saying aloud', () => {
  const made = ward();
  const first = alert();
  assert.equal(made.alert(first), true);
  assert.equal(made.alert(first), false, 'the same event twice');
  assert.equal(made.alert(alert({ change: 'update' })), false);
  assert.equal(made.alert(alert({ change: 'escalate', priority: 'high' })), true);
  assert.equal(made.spoken(alert({ priority: 'high' })), 'high priority, bed 2, Two: SpO2 below 90 %');
});

test('data that is not about a real patient is marked', () => {
  for (const [mode, mark] of [['demo', 'DEMO'], ['test', 'TEST'], ['real', '']]) {
    const made = ward();
    made.reading(reading('heart_rate', 72, { mode }), 0);
    assert.deepEqual([tileOf(made).mark, made.mark], [mark, mark]);
  }
  const demo = new Ward();
  demo.begin({ ...SNAPSHOT, mode: 'demo' }, 0);
  assert.deepEqual([demo.mark, ...demo.tiles(0).map(({ mark }) => mark)], ['DEMO', 'DEMO', 'DEMO', 'DEMO']);
});

test('ages are as short as they can be read', () => {
  const rows = [[0, '0 s'], [59_999, '59 s'], [60_000, '1 min'], [3_599_000, '59 min'], [3_600_000, '1 h'], [172_800_000, '2 d'], [-5, '0 s']];
  for (const [ms, text] of rows) assert.equal(ageText(ms), text);
});

const signals = (activation, presence, visual = 'on') => ({ audio: { activation, presence }, visual: { activation: 'on', presence: visual } });

test('only what is on sounds, the most urgent first; what latched sounds on', () => {
  const made = ward();
  assert.equal(made.audible(), '');
  made.alert(alert({ alert_id: 'acknowledged', priority: 'high', signal: signals('on', 'ack') }));
  made.alert(alert({ alert_id: 'paused', priority: 'high', signal: signals('paused', 'off'), paused_until: '2026-11-20T22:02:00.000Z' }));
  made.alert(alert({ alert_id: 'quiet', priority: 'medium', signal: signals('on', 'off', 'latched') }));
  assert.equal(made.audible(), '');
  made.alert(alert({ alert_id: 'low', priority: 'low', patient_id: 'P-1' }));
  assert.equal(made.audible(), 'low', 'another bed is heard too');
  made.alert(alert({ alert_id: 'latched', priority: 'high', signal: signals('on', 'latched', 'latched') }));
  assert.equal(made.audible(), 'high');
  made.alert(alert({ alert_id: 'latched', change: 'end' }));
  assert.equal(made.audible(), 'low');
});

test('an alert knows its state and until when it is paused', () => {
  const made = ward();
  made.alert(alert({ alert_id: 'a', signal: signals('paused', 'off'), paused_until: '2026-11-20T22:02:00.000Z' }));
  made.alert(alert({ alert_id: 'b', signal: signals('on', 'latched', 'latched') }));
  made.alert(alert({ alert_id: 'c', signal: signals('on', 'ack') }));
  made.alert(alert({ alert_id: 'd' }));
  const states = Object.fromEntries(made.alertsOf(PATIENT).map(({ alertId, state, pausedUntil }) => [alertId, [state, pausedUntil]]));
  assert.deepEqual(states, { a: ['paused', Date.parse('2026-11-20T22:02:00.000Z')], b: ['latched', NaN], c: ['acknowledged', NaN], d: ['alarming', NaN] });
});

test('the alarms of other beds are known apart from one\'s own and from the bridge\'s', () => {
  const made = ward();
  made.alert(alert({ alert_id: 'own' }));
  made.alert(alert({ alert_id: 'other', patient_id: 'P-1', priority: 'high' }));
  made.alert(alert({ alert_id: 'bridge', patient_id: null }));
  assert.deepEqual(made.alertsOf(PATIENT).map(({ alertId }) => alertId), ['own']);
  assert.deepEqual(made.alertsElsewhere(PATIENT).map(({ alertId }) => alertId), ['other']);
  assert.deepEqual(made.about('P-1'), { bed: '1', name: 'One' });
  assert.equal(made.about('P-99'), undefined);
  assert.equal(made.tile('P-99', 0, true), undefined);
});

test('beside a number stand the limits that alarm first, and none that is off', () => {
  const made = ward();
  const rule = (different) => ({ kind: 'physiological', priority: 'medium', metrics: ['heart_rate', 'pulse_rate'], low: null, high: null, off: null, ...different });
  made.inForce(PATIENT, [rule({ low: 50 }), rule({ low: 40, priority: 'high' }), rule({ high: 120 }), rule({ high: 140, priority: 'high' }),
    rule({ high: 100, priority: 'info' }), rule({ metrics: ['spo2'], low: 90, off: { expires: '2026-11-20T22:30:00Z' } }), rule({ metrics: ['spo2'], low: 80 })]);
  assert.deepEqual(Object.fromEntries(made.limitsOf(PATIENT)), { heart_rate: { low: 50, high: 120 }, spo2: { low: 80 } });
  assert.equal(made.limitsOf('P-99').size, 0);
});

test('in a place that several alerts share each has its turn, the most urgent first and at once, until the bridge knows of all', () => {
  const turns = new Turns();
  const told = new Set();
  const one = (alertId, stars = '**', active = true) => ({ alertId, seq: 1, stars, active, audible: active, priority: stars });
  const pick = (alerts, now) => turns.pick(alerts, ({ alertId }) => !told.has(alertId), now)?.alertId;
  assert.equal(pick([], 0), undefined);
  const alerts = [one('a', '***'), one('b', '***'), one('c'), one('d', '*', false)];
  assert.equal(pick(alerts, 0), 'a');
  told.add('a');
  assert.deepEqual([pick(alerts, 1400), pick(alerts, 1500)], ['a', 'b'], 'a short turn while others wait');
  told.add('b');
  assert.equal(pick(alerts, 3000), 'c', 'what is less urgent is shown once too');
  const [first] = [one('e', '***')];
  assert.equal(pick([first, ...alerts], 3100), 'e', 'what is more urgent does not wait');
  told.add('e');
  assert.equal(pick([first, ...alerts], 4600), 'c', 'it was not told yet');
  told.add('c');
  const order = [8600, 12_600, 16_600, 20_600].map((now) => pick([first, ...alerts], now));
  assert.deepEqual(order, ['e', 'a', 'b', 'e'], 'then those that are as urgent as the first; nobody asks for an acknowledged one');
  assert.equal(pick(alerts, 20_700), 'a', 'what is over gives its place up');
});
