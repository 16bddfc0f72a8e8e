// The real daemon and a real browser, for tests and pictures.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

export const BINARY = process.env.VITALBRIDGE_BIN;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync'];
/** The Raspberry Pi's 7" panel, a desk, a phone. */
export const SIZES = [{ width: 800, height: 480 }, { width: 1280, height: 800 }, { width: 390, height: 844 }];
const STARTED_MS = 20_000;
const MAX_OUTPUT_BYTES = 64 * 1024;

export const launch = (...flags) => chromium.launch({ executablePath: CHROMIUM, headless: true, args: [...FLAGS, ...flags] });

/** Waits until `look` gives something true; fails with what it looked at last. */
export async function until(what, deadlineMs, look) {
  const end = performance.now() + deadlineMs;
  let last;
  while (performance.now() < end) {
    last = await look();
    if (last) return last;
    await new Promise((next) => setTimeout(next, 50));
  }
  return assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

/** Starts a daemon and waits until it says what `ready` looks for. */
async function start(args, stateDir, ready) {
  assert.ok(BINARY, 'VITALBRIDGE_BIN must hold the path of the vitalbridge binary');
  const child = spawn(BINARY, [...args, '--state-dir', stateDir], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => {
    output = (output + chunk).slice(-MAX_OUTPUT_BYTES);
  });
  const kill = async () => {
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await ended;
  };
  try {
    const found = await until('the daemon is ready', STARTED_MS, () => {
      assert.equal(child.exitCode, null, `the daemon ended:\n${output}`);
      return ready(output);
    });
    return { child, kill, ...found };
  } catch (error) {
    await kill();
    throw error;
  }
}

/** The demo. `again` starts it once more at the same address and with the same state, as after a crash. */
export async function startDemo() {
  const stateDir = mkdtempSync(join(tmpdir(), 'vitalbridge-page-'));
  const run = (listen) => start(['demo', '--listen', listen], stateDir, (output) => {
    const origin = /^vitalbridge: listening on (http:\/\/\S+)$/m.exec(output)?.[1];
    const link = /^vitalbridge: sign in at (\S+#code=\S+)$/m.exec(output)?.[1];
    return origin && link && { origin, link, code: link.split('#code=')[1] };
  });
  const daemon = { stateDir, ...(await run('127.0.0.1:0')) };
  daemon.again = async () => {
    await daemon.kill();
    Object.assign(daemon, await run(new URL(daemon.origin).host));
  };
  daemon.stop = async () => {
    await daemon.kill();
    rmSync(stateDir, { recursive: true, force: true });
  };
  return daemon;
}

/** A bridge with a configuration of its own. `files` are written beside it. */
export async function startConfigured(toml, files = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-page-'));
  const stateDir = join(dir, 'state');
  for (const [name, text] of Object.entries({ ...files, 'vitalbridge.toml': toml })) writeFileSync(join(dir, name), text);
  const daemon = await start(['run', '--config', join(dir, 'vitalbridge.toml'), '--listen', '127.0.0.1:0'], stateDir, (output) => {
    const port = /127\.0\.0\.1:(\d+)/.exec(output)?.[1];
    return port && { origin: `http://127.0.0.1:${port}` };
  });
  return { ...daemon, dir, stateDir, stop: async () => {
    await daemon.kill();
    rmSync(dir, { recursive: true, force: true });
  } };
}

/** A bridge with so many beds, each with numbers once a second. */
export function startWard(beds) {
  const row = (t) => [t, 70 + (t % 7), 96 + (t % 3), 14 + (t % 4), 70 + (t % 7), 120 + (t % 5), 78, 92].join(',');
  const csv = ['t_s,HR,SpO2,RESP,PULSE,NBPSys,NBPDias,NBPMean', ...Array.from({ length: 1800 }, (_, t) => row(t))].join('\n');
  const numbers = Array.from({ length: beds }, (_, at) => at + 1);
  const patients = numbers.map((n) => `[[patient]]\nid = "P-${n}"\nbed = "${n}"\nname = "Test ${n}"\n`);
  const sources = numbers.map((n) => `[[source]]\nid = "r-${n}"\nkind = "replay"\nfile = "ward.csv"\npatient = "P-${n}"\n`);
  return startConfigured(['[bridge]\nid = "ward"\n', ...patients, ...sources].join('\n'), { 'ward.csv': `${csv}\n` });
}

/** A token of a daemon, printed by the program itself. */
export function tokenFor(daemon, role, life = '1h', patient = undefined) {
  const only = patient === undefined ? [] : ['--patient', patient];
  return execFileSync(BINARY, ['token', 'issue', '--state-dir', daemon.stateDir, '--role', role, '--user', role, '--for', life, ...only], { encoding: 'utf8' }).trim();
}

/** Opens a page that is signed in already, at a view such as `#/patient/P-1`; for one patient only, as a panel at a bed is. */
export async function openAt(context, daemon, view = '#/', patient = undefined) {
  const page = await context.newPage();
  await page.addInitScript((token) => sessionStorage.setItem('vitalbridge.token', token), tokenFor(daemon, 'nurse', '1h', patient));
  await page.goto(`${daemon.origin}/${view}`);
  return page;
}

/** Changes a rule of a patient, as a clinician does; without a change it holds again what held before. */
export async function changeLimit(daemon, patient, rule, change) {
  const address = `${daemon.origin}/api/v1/patients/${patient}/limits/${rule}`;
  const expires = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, '');
  const response = await fetch(change ? address : `${address}?reason=test`, {
    method: change ? 'PUT' : 'DELETE',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${tokenFor(daemon, 'clinician', '5m')}` },
    body: change && JSON.stringify({ ...change, ...(change.enabled === undefined ? { expires } : { until: expires }), reason: 'test' }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** Waits until nothing of a rule is left at a patient; what has latched is reset. */
export async function untilOver(daemon, patient, rules) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${tokenFor(daemon, 'nurse', '5m')}` };
  await until(`${rules} of ${patient} are over`, 30_000, async () => {
    const { alerts } = await (await fetch(`${daemon.origin}/api/v1/alerts`, { headers })).json();
    const left = alerts.filter((alert) => alert.patient_id === patient && rules.includes(alert.rule));
    for (const { alert_id: id } of left.filter((alert) => alert.signal.visual.presence === 'latched')) {
      await fetch(`${daemon.origin}/api/v1/commands`, { method: 'POST', headers, body: JSON.stringify({ name: 'alert.reset', alert_id: id }) });
    }
    return left.length === 0;
  });
}
