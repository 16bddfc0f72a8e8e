// What a page has heard over a stop and a start of the bridge, beside what the log holds: nothing is missing, nothing came twice.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilLive } from './demo.mjs';
import { openAt, tokenFor, until } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

/** Keeps, in the order of their arrival, what the page's own connection told it. */
const keepingWhatIsHeard = () => {
  globalThis.heard = { readings: [], gaps: [], joins: 0, snapshots: 0 };
  const { heard } = globalThis;
  const { dispatchEvent } = EventTarget.prototype;
  EventTarget.prototype.dispatchEvent = function tell(event) {
    const { detail } = event;
    if (event.type === 'health_update') {
      const { epoch, seq, patient_id: patient, metric, value, value_text: digits } = detail.data;
      heard.readings.push({ epoch, seq, patient, metric, value: digits ?? value, replayed: detail.replayed });
    }
    if (event.type === 'gap') heard.gaps.push({ ...detail.data, whileCatchingUp: heard.joins > heard.snapshots });
    if (event.type === 'subscribed') heard.joins += 1;
    if (event.type === 'snapshot') heard.snapshots += 1;
    return dispatchEvent.call(this, event);
  };
};

/** Everything that the log has of the numbers from this one to that one. */
async function logged(from, to) {
  const headers = { Authorization: `Bearer ${await tokenFor(daemon, 'nurse')}` };
  const rows = [];
  for (let cursor = `${from.epoch}:${from.seq - 1}`; cursor; ) {
    const response = await fetch(`${daemon.origin}/api/v1/readings?limit=1000&cursor=${encodeURIComponent(cursor)}`, { headers });
    const page = await response.json();
    assert.equal(response.status, 200, JSON.stringify(page));
    rows.push(...page.rows);
    cursor = page.rows.some(({ seq }) => seq >= to.seq) ? null : page.next;
  }
  return rows.filter(({ seq }) => seq >= from.seq && seq <= to.seq);
}

const nameOf = ({ epoch, seq }) => `${epoch}:${seq}`;

test('over a stop and a start of the bridge the page hears every reading of the log once, and none twice', async () => {
  await fresh();
  await context.addInitScript(keepingWhatIsHeard);
  const page = await openAt(context, daemon);
  await untilLive(page);
  const heard = () => page.evaluate(() => globalThis.heard);
  await until('a second of readings', async () => (await heard()).readings.length > 40);
  const before = (await heard()).readings.at(-1);
  // A bridge that is stopped in good order has written everything.
  await daemon.again('SIGTERM');
  await until('readings of the new run that are live', async () => {
    const { readings } = await heard();
    return new Set(readings.filter(({ epoch, replayed }) => epoch !== before.epoch && !replayed).map(({ patient }) => patient)).size === 8;
  });
  const { readings, gaps } = await heard();
  const [first, last] = [readings[0], readings.at(-1)];
  // What is heard is on disk within a second.
  const rows = await until('the newest of them on disk', async () => {
    const found = await logged(first, last);
    return found.at(-1)?.seq === last.seq && found;
  });
  assert.ok(rows.some(({ epoch }) => epoch !== before.epoch) && readings.some(({ epoch, replayed }) => replayed && epoch !== before.epoch), 'it came back to something that it had missed');
  const told = new Map(readings.map((reading) => [nameOf(reading), reading]));
  assert.equal(told.size, readings.length, 'none came twice');
  // A starved machine: of what the bridge skipped in passing it said so, which is no loss by the restart.
  const skipped = ({ epoch, seq }) => gaps.some((gap) => !gap.whileCatchingUp && gap.epoch === epoch && gap.from <= seq && seq <= gap.to);
  const missing = rows.filter((row) => !told.has(nameOf(row)) && !skipped(row));
  assert.deepEqual(missing.map(nameOf), [], `of ${rows.length} readings`);
  assert.deepEqual(readings.filter((reading) => reading.seq <= last.seq && !rows.some((row) => nameOf(row) === nameOf(reading))).map(nameOf), [], 'the log has all of them');
  for (const { epoch, seq, data } of rows) {
    const reading = told.get(nameOf({ epoch, seq }));
    if (reading && typeof data.value === 'number') assert.deepEqual([reading.patient, reading.metric, Number(reading.value)], [data.patient_id, data.metric, data.value]);
  }
  console.log(`${rows.length} readings of the log, ${readings.filter(({ replayed }) => replayed).length} of them caught up with, ${rows.filter(({ epoch }) => epoch === before.epoch).length} before the restart`);
  // And what stands on the page is the newest that the log has of the new run.
  await untilLive(page);
});
