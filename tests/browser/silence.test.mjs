// When a number is old and when it is none: as the rule of its patient and metric has it, at the moment that rule alarms.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { begin, changeLimit, inAnHour, launch, openAt, picture, startConfigured, together, until, withMemory } from './real.mjs';

/** How often the bridge says that it is there, in ms. */
const HEARTBEAT_MS = 5000;
const BEDS = ['P-1', 'P-2'];
/** P-1 may be silent for 25 s, but its saturation for 15 s, and everybody else for 10 s. */
const RULES = `[[rule]]\nid = "spo2_silent"\nkind = "technical"\npriority = "low"\nmetric = "spo2"\nwhen = { no_valid_for = "15s" }\nstale_after = "6s"\n`
  + '[patient."P-1".rule.no_signal]\nwhen = { no_valid_for = "25s" }\nreason = "test"\nby = "dr"\n' + `expires = "${inAnHour()}"\n`;

let browser;
let ward;
const emulated = [];
const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-silence-'));

before(async () => {
  browser = await launch();
  const beds = BEDS.map((id) => `[[patient]]\nid = "${id}"\nbed = "${id}"\n[[source]]\nid = "s-${id}"\nkind = "serial"\nport = "${join(dir, id)}"\nprofile = "nonin-df2"\npatient = "${id}"\nmode = "test"\n`);
  ward = await startConfigured(`[bridge]\nid = "silence"\n[alerts]\nrules = "rules.toml"\n${beds.join('')}`, { 'rules.toml': RULES, 'still.toml': '[[step]]\nat = "15s"\npause = "60min"\n' });
});

after(async () => {
  await browser?.close();
  for (const one of emulated) await one.kill();
  await ward?.stop();
  rmSync(dir, { recursive: true, force: true });
});

test('each number is grey and gone at the times of its own patient and rule, and what a person changes of them holds at once', async () => {
  const context = await browser.newContext({ reducedMotion: 'reduce' });
  await withMemory(context);
  const page = await openAt(context, ward);
  const cell = (patient, name) => `.tile[data-patient=${patient}] [data-cell=${name}]`;
  const stateOf = (patient, name) => page.locator(cell(patient, name)).getAttribute('data-state');
  for (const id of BEDS) emulated.push(begin('emulate', '--profile', 'nonin-df2', '--pty', join(dir, id), '--scenario', join(ward.dir, 'still.toml')));
  for (const id of BEDS) await until(`${id} is live`, async () => await stateOf(id, 'pulse') === 'live' && await stateOf(id, 'spo2') === 'live');
  const gone = (id) => [`${cell(id, 'pulse')} .number`, `.tile[data-patient=${id}] .alarm-title`];
  // The bridge and the page count the age each for itself.
  const agree = await Promise.all(BEDS.map((id) => together([page, page], `${id} is gone`, gone(id), /^---$|no signal|No signal|no value/)));
  await until('P-2 has no pulse rate', async () => await stateOf('P-2', 'pulse') === 'lost');
  assert.equal(await stateOf('P-2', 'spo2'), 'stale', 'its saturation has a rule of its own');
  assert.equal(await stateOf('P-1', 'pulse'), 'stale', 'another patient has other times');
  await picture(page, 'own-times');
  await until('no saturation', async () => (await Promise.all(BEDS.map((id) => stateOf(id, 'spo2')))).every((state) => state === 'lost'));
  assert.equal(await stateOf('P-1', 'pulse'), 'stale');
  await until('P-1 has no pulse rate', async () => await stateOf('P-1', 'pulse') === 'lost');
  for (const apart of agree) assert.ok(await apart() < HEARTBEAT_MS);
  // A sensor that sends seldom: somebody says so while the page stands.
  await changeLimit(ward, 'P-2', 'no_signal', { when: { no_valid_for: '2m' } });
  await until('the old number is one again, grey with its age', async () => await stateOf('P-2', 'pulse') === 'stale');
  assert.match(await page.locator(`${cell('P-2', 'pulse')} .note`).innerText(), /\d+ (s|min) old/);
  assert.deepEqual([await stateOf('P-1', 'pulse'), await stateOf('P-2', 'spo2')], ['lost', 'lost']);
  await changeLimit(ward, 'P-2', 'no_signal');
  await until('and none again', async () => await stateOf('P-2', 'pulse') === 'lost');
  await context.close();
});
