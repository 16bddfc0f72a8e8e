// The page in real Chromium against the real daemon in demo mode: `VITALBRIDGE_BIN=target/debug/vitalbridge npm test`.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { ofClient, ofServer } from './contract.mjs';

const BINARY = process.env.VITALBRIDGE_BIN;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync'];
/** Pictures that a person should look at. */
const SHOTS = new URL('shots/', import.meta.url).pathname;
const PATIENTS = 8;
/** The Raspberry Pi's 7" panel, a desk, a phone. */
const SIZES = [{ width: 800, height: 480 }, { width: 1280, height: 800 }, { width: 390, height: 844 }];
const STARTED_MS = 20_000;
const NUMBERS_MS = 20_000;
const HEARTBEAT_MS = 5000;
const STALE_MS = 5000;
/** Timers of page and test, and a busy machine. */
const SLACK_MS = 2000;
const MAX_OUTPUT_BYTES = 64 * 1024;

/** Waits until `look` gives something true; fails with what it looked at last. */
async function until(what, deadlineMs, look) {
  const end = performance.now() + deadlineMs;
  let last;
  while (performance.now() < end) {
    last = await look();
    if (last) return last;
    await new Promise((next) => setTimeout(next, 50));
  }
  return assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

/** Starts the daemon in demo mode and reads from its output where it is. */
async function startDaemon() {
  assert.ok(BINARY, 'VITALBRIDGE_BIN must hold the path of the vitalbridge binary');
  const stateDir = mkdtempSync(join(tmpdir(), 'vitalbridge-page-'));
  const child = spawn(BINARY, ['demo', '--listen', '127.0.0.1:0', '--state-dir', stateDir], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let output = '';
  const keep = (chunk) => {
    output = (output + chunk).slice(-MAX_OUTPUT_BYTES);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const stop = async () => {
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await ended;
    rmSync(stateDir, { recursive: true, force: true });
  };
  try {
    const [, origin] = await until('the daemon listens', STARTED_MS, () => {
      assert.equal(child.exitCode, null, `the daemon ended:\n${output}`);
      return /^vitalbridge: listening on (http:\/\/\S+)$/m.exec(output);
    });
    const [, link] = await until('the daemon says how to sign in', STARTED_MS, () => /^vitalbridge: sign in at (\S+#code=\S+)$/m.exec(output));
    return { child, origin, link, code: link.split('#code=')[1], stateDir, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

let browser;
let daemon;
let context;
let page;
/** What went wrong in the page without anybody asking. */
let trouble;
/** What the page and the daemon said to each other and the contract does not allow. */
let broken;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  daemon = await startDaemon();
  browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
});

beforeEach(async () => {
  context = await browser.newContext({ viewport: SIZES[1], reducedMotion: 'reduce' });
  page = await context.newPage();
  trouble = [];
  broken = [];
  page.on('console', (message) => {
    // A page that nobody has touched may not sound, and shows so: AUDIO BLOCKED.
    if (/AudioContext was not allowed to start/.test(message.text())) return;
    if (['error', 'warning'].includes(message.type())) trouble.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => trouble.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== daemon.origin) trouble.push(`request to another host: ${request.url()}`);
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== new URL(daemon.origin).host) trouble.push(`socket to another host: ${socket.url()}`);
    const hold = (to) => ({ payload }) => {
      if (typeof payload === 'string') broken.push(...to(JSON.parse(payload)).map((problem) => `${problem}: ${payload.slice(0, 200)}`));
    };
    socket.on('framereceived', hold(ofServer));
    socket.on('framesent', hold(ofClient));
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
});

afterEach(async () => {
  await context?.close();
  assert.deepEqual(broken, [], 'not in the contract');
});

/** Every number on the page: whose, which, its digits, its state, and the event it came from. */
const numbersOf = (from) => from.evaluate(() => [...document.querySelectorAll('.tile')].flatMap((tile) =>
  [...tile.querySelectorAll('.cell')].map((cell) => ({
    patient: tile.dataset.patient,
    cell: cell.dataset.cell,
    text: cell.querySelector('.number').textContent,
    state: cell.dataset.state,
    seq: cell.dataset.seq === undefined ? undefined : Number(cell.dataset.seq),
    note: cell.querySelector('.note').textContent.trim(),
  }))));

const isNumber = ({ text }) => /\d/.test(text);

/** Waits until each of the patients has a live number. */
const untilLive = (from) => until('live numbers of every patient', NUMBERS_MS, async () => {
  const live = (await numbersOf(from)).filter((number) => isNumber(number) && number.state === 'live');
  return new Set(live.map(({ patient }) => patient)).size === PATIENTS && live;
});

async function signIn(to = page) {
  await to.goto(daemon.link);
  return untilLive(to);
}

/** A second page without the dashboard, whose own socket speaks the protocol by hand and keeps every reading by its number. */
async function observe() {
  const response = await fetch(`${daemon.origin}/api/v1/sign-in`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ code: daemon.code }),
  });
  assert.equal(response.status, 200, 'a demo\'s code can be used again');
  const { token } = await response.json();
  const observer = await context.newPage();
  await observer.goto(`${daemon.origin}/icon.svg`);
  await observer.evaluate((jwt) => {
    globalThis.readings = {};
    globalThis.jwt = jwt;
    const socket = new WebSocket(`ws://${location.host}/ws`);
    const send = (frame) => socket.send(JSON.stringify(frame));
    const keep = (data) => {
      globalThis.readings[data.seq] = data;
    };
    socket.onmessage = ({ data: text }) => {
      const frame = JSON.parse(text);
      if (frame.type === 'welcome') send({ type: 'authenticate', token: jwt, correlation_id: 'o1' });
      if (frame.type === 'authenticated') send({ type: 'subscribe', channels: ['patient/+/+'], correlation_id: 'o2' });
      if (frame.type === 'snapshot') frame.data.readings.forEach(keep);
      // The digits as they came over the wire, not as JavaScript writes them.
      if (frame.type === 'health_update') keep({ ...frame.data, seq: frame.seq, wire: /"value":([^,}]+)/.exec(text)[1] });
    };
  }, token);
  await until('the observer receives', NUMBERS_MS, () => observer.evaluate(() => Object.keys(globalThis.readings).length > 0));
  return observer;
}

/** What the page must show for a reading. */
function expectedText({ metric, value, wire, components }) {
  if (metric === 'blood_pressure') return `${components.systolic ?? '---'}/${components.diastolic ?? '---'}`;
  return wire ?? String(value);
}

test('the sign-in link opens the page: live numbers of every demo patient, marked DEMO, and they change', async () => {
  const first = await signIn();
  assert.equal(new URL(page.url()).hash, '', 'the code has left the address bar');
  assert.equal(await page.locator('.tile').count(), PATIENTS);
  assert.match(await page.locator('#mark').innerText(), /^DEMO/);
  assert.match(await page.title(), /^DEMO/);
  assert.deepEqual(await page.locator('.tile-mark').allInnerTexts(), Array(PATIENTS).fill('DEMO'));
  assert.match(await page.locator('.notice').innerText(), /not a medical device/i);
  const beds = await page.locator('.bed').allInnerTexts();
  assert.deepEqual(beds, [...beds].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })));
  const key = ({ patient, cell }) => `${patient} ${cell}`;
  const before = new Map(first.map((number) => [key(number), number.text]));
  await until('a number of every patient changes', 60_000, async () => {
    const changed = (await numbersOf(page)).filter((number) => isNumber(number) && before.has(key(number)) && before.get(key(number)) !== number.text);
    return new Set(changed.map(({ patient }) => patient)).size === PATIENTS;
  });
  assert.deepEqual(trouble, []);
});

test('the numbers on the page are those that the bridge sent, digit for digit', async () => {
  const observer = await observe();
  await signIn();
  const compared = new Map();
  const seen = new Set();
  await until('three readings of every patient compared', 60_000, async () => {
    const shown = (await numbersOf(page)).filter((number) => number.seq !== undefined);
    const sent = await observer.evaluate(() => globalThis.readings);
    for (const number of shown) {
      const data = sent[number.seq];
      // A reading from before the observer came is not known to it.
      if (!data || seen.has(number.seq)) continue;
      assert.equal(data.patient_id, number.patient, `reading ${number.seq}`);
      if (isNumber(number) && data.wire) assert.equal(number.text, expectedText(data), `reading ${number.seq} of ${number.patient}`);
      if (data.value === null && !isNumber(number)) assert.notEqual(number.note, '', 'an absent value says why');
      seen.add(number.seq);
      if (isNumber(number)) compared.set(number.patient, (compared.get(number.patient) ?? 0) + 1);
    }
    return [...compared.values()].filter((count) => count >= 3).length === PATIENTS;
  });
});

test('the browser keeps the digits that a sensor gave: 37.0 is not 37', async () => {
  await page.goto(daemon.origin);
  const text = await page.evaluate(async () => {
    const { parseFrame } = await import('/vitalbridge.js');
    return parseFrame('{"type":"health_update","data":{"metric":"temperature","value":37.0}}').data.value_text;
  });
  assert.equal(text, '37.0');
});

test('no number stands without the reading it came from', async () => {
  const numbers = await signIn();
  for (const number of numbers) assert.ok(number.seq > 0, JSON.stringify(number));
  for (const number of (await numbersOf(page)).filter((shown) => !isNumber(shown))) {
    assert.equal(number.text, '---');
    assert.notEqual(number.note, '', JSON.stringify(number));
  }
});

test('a stopped bridge turns numbers grey, then ---, then says NO CONNECTION; it heals when the bridge goes on', async () => {
  await signIn();
  const continuous = ({ cell }) => ['hr', 'spo2', 'pulse', 'resp'].includes(cell);
  daemon.child.kill('SIGSTOP');
  const stoppedAt = performance.now();
  try {
    await until('every continuous number is stale', STALE_MS + 2 * SLACK_MS, async () => {
      const shown = (await numbersOf(page)).filter((number) => continuous(number) && isNumber(number));
      return shown.length > 0 && shown.every(({ state, note }) => state === 'stale' && /\d+ s old/.test(note));
    });
    const banner = page.locator('#no-connection');
    assert.equal(await banner.isVisible(), false, 'one missed heartbeat is not a lost connection');
    await until('NO CONNECTION', 2 * HEARTBEAT_MS + SLACK_MS - (performance.now() - stoppedAt), () => banner.isVisible());
    assert.match(await banner.innerText(), /^NO CONNECTION since \d\d:\d\d:\d\d/);
    assert.equal((await banner.boundingBox()).width, SIZES[1].width, 'over the full width');
    assert.equal(await page.locator('#mark').isVisible(), true, 'DEMO stays');
    await until('every continuous number is ---', SLACK_MS, async () => (await numbersOf(page)).filter(continuous).every((number) => number.text === '---'));
    await page.screenshot({ path: join(SHOTS, 'no-connection.png') });
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await untilLive(page);
  await until('NO CONNECTION is gone', SLACK_MS, async () => !(await page.locator('#no-connection').isVisible()));
  assert.equal(await page.locator('#link-text').innerText(), 'Live');
});

/** What the bridge says about its alerts, asked by a socket that shows nothing itself. */
async function selfCheck() {
  const observer = await observe();
  await observer.evaluate(() => {
    const socket = new WebSocket(`ws://${location.host}/ws`);
    globalThis.checks = [];
    const send = (frame) => socket.send(JSON.stringify(frame));
    socket.onmessage = ({ data: text }) => {
      const frame = JSON.parse(text);
      if (frame.type === 'welcome') send({ type: 'authenticate', token: globalThis.jwt });
      if (frame.type === 'authenticated') send({ type: 'subscribe', channels: ['alerts/+'] });
      if (frame.type === 'alert_system') globalThis.checks.push(frame.data);
    };
  });
  return () => observer.evaluate(() => globalThis.checks.at(-1));
}

test('the page confirms the alerts that it shows, and not while nobody can see them', async () => {
  const check = await selfCheck();
  // Nothing shows alerts yet, and there is one.
  await changeLimit('PUT', 'P-0008', 'respiration_high', { above: 8, clear: { at_most: 6 }, delay: '0s', expires: inAnHour() });
  const late = await until('an alert that nobody sees', 180_000, async () => (await check())?.undelivered > 0 && check());
  assert.equal(late.annunciators, 0);
  // A page behind another window draws and is not seen.
  const hidden = await context.newPage();
  await hidden.addInitScript(() => Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' }));
  await signIn(hidden);
  const seen = (await check()).self_check;
  const unseen = await until('two self-checks', 30_000, async () => (await check()).self_check > seen + 1 && check());
  assert.equal(unseen.annunciators, 1);
  assert.ok(unseen.undelivered > 0 && !unseen.alerts.some(({ delivery }) => delivery === 'shown'), JSON.stringify(unseen));
  await hidden.close();
  await signIn();
  await until('all alerts are shown', 60_000, async () => {
    const { annunciators, undelivered, alerts } = await check();
    return annunciators === 1 && undelivered === 0 && alerts.some(({ delivery }) => delivery === 'shown');
  });
  await page.close();
  await until('the page has left', 30_000, async () => (await check()).annunciators === 0);
  await until('what nobody shows any more is undelivered', 120_000, async () => (await check()).undelivered > 0);
  await changeLimit('DELETE', 'P-0008', 'respiration_high');
});

/** A token of the demo for somebody else than its nurse. */
function tokenFor(role, life) {
  return execFileSync(BINARY, ['token', 'issue', '--state-dir', daemon.stateDir, '--role', role, '--user', role, '--for', life], { encoding: 'utf8' }).trim();
}

/** Changes a rule of a patient, as a clinician does. */
async function changeLimit(method, patient, rule, change) {
  const address = `${daemon.origin}/api/v1/patients/${patient}/limits/${rule}`;
  const response = await fetch(method === 'DELETE' ? `${address}?reason=test` : address, {
    method,
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${tokenFor('clinician', '5m')}` },
    body: method === 'DELETE' ? undefined : JSON.stringify({ ...change, reason: 'test' }),
  });
  assert.equal(response.status, 200, await response.text());
}

const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, '');

test('on a phone an alert counts as shown when its text can be read, not while it is scrolled away under the bar', async (t) => {
  // A ward of its own, in which nothing else has alarmed yet.
  const shared = daemon;
  daemon = await startDaemon();
  t.after(async () => {
    await daemon.stop();
    daemon = shared;
  });
  await page.setViewportSize(SIZES[2]);
  const check = await selfCheck();
  const [{ patient }] = await signIn();
  const tile = page.locator(`.tile[data-patient=${patient}]`);
  // One line of the first bed's alert is left below the bar, in the window and under nothing but the bar.
  await tile.evaluate((node) => {
    const main = node.closest('main');
    const place = node.querySelector('.alarm-place').getBoundingClientRect();
    main.scrollTop += place.bottom - 6 - main.getBoundingClientRect().top;
  });
  // No other rule hides this one.
  await changeLimit('PUT', patient, 'respiration_high', { above: 8, clear: { at_most: 6 }, delay: '0s', expires: inAnHour() });
  try {
    const id = await until('the alert is on the tile', 60_000, () => tile.evaluate((node) =>
      /respir/i.test(node.querySelector('.alarm-title')?.textContent ?? '') && node.querySelector('.acknowledge').dataset.alert));
    const deliveryOf = async () => (await check()).alerts.find((alert) => alert.alert_id === id)?.delivery;
    const { self_check: seen } = await until('a self-check', 30_000, check);
    await until('two self-checks', 30_000, async () => (await check()).self_check > seen + 1);
    assert.notEqual(await deliveryOf(), 'shown', 'nobody could read it');
    // The bar says that there is one, and leads to it.
    const count = page.locator('#counts button[data-priority=medium]:not([hidden])');
    await until('the count says so', 20_000, async () => (await count.innerText()).endsWith('↕'));
    await count.click();
    await until('it is shown', 30_000, async () => await deliveryOf() === 'shown');
  } finally {
    await changeLimit('DELETE', patient, 'respiration_high');
  }
});

test('a session that ends by itself does not leave a silent page: it says and sounds that no alarm comes', async () => {
  await page.addInitScript(() => {
    globalThis.tones = 0;
    const { start } = OscillatorNode.prototype;
    OscillatorNode.prototype.start = function tone(...when) {
      globalThis.tones += 1;
      return start.apply(this, when);
    };
  });
  await page.goto(daemon.origin);
  await page.locator('#sign-in-secret').fill(tokenFor('nurse', '15s'));
  await page.keyboard.press('Enter');
  await untilLive(page);
  const banner = page.locator('#no-alarms');
  assert.equal(await banner.isVisible(), false);
  await until('the token has expired', 60_000, () => banner.isVisible());
  assert.match(await banner.innerText(), /^NO ALARMS FROM BRIDGE since \d\d:\d\d:\d\d/);
  assert.match(await page.locator('#sign-in-problem').innerText(), /session has ended/i);
  assert.equal(await page.locator('.tile').count(), 0, 'who is not signed in sees no patient');
  assert.match(await page.title(), /^NO ALARMS/);
  assert.equal(await page.locator('#sign-in-secret').inputValue(), '', 'the token is nobody else\'s');
  const heard = await page.evaluate(() => globalThis.tones);
  await until('it sounds again and again', 20_000, async () => (await page.evaluate(() => globalThis.tones)) >= heard + 6);
  await page.screenshot({ path: join(SHOTS, 'session-ended.png') });
  await page.reload();
  await until('a page that is loaded again is not silent either', 20_000, () => banner.isVisible());
  await page.locator('#sign-in-secret').fill('eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.c2lnbmF0dXJl');
  await page.keyboard.press('Enter');
  await until('a wrong token changes nothing', 20_000, async () => await banner.isVisible() && /not valid/.test(await page.locator('#sign-in-problem').innerText()));
  await page.locator('#stop-watching').click();
  assert.equal(await banner.isVisible(), false, 'somebody is here and says so');
  const still = await page.evaluate(() => globalThis.tones);
  await page.reload();
  await page.locator('#sign-in').waitFor();
  assert.equal(await banner.isVisible(), false);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.ok(still > 0);
});

test('ALARM OFF stands on the tile with its rule and its end, and the score never as a bare number while it is incomplete', async () => {
  const numbers = await signIn();
  const { patient } = numbers.at(-1);
  const tile = page.locator(`.tile[data-patient=${patient}]`);
  assert.equal(await tile.locator('.off').isVisible(), false);
  const end = inAnHour();
  await changeLimit('PUT', patient, 'spo2_low', { enabled: false, until: end });
  await changeLimit('PUT', patient, 'spo2_low', { below: 88, clear: { at_least: 89 }, expires: end });
  try {
    const hhmm = await page.evaluate((at) => new Date(at).toTimeString().slice(0, 5), end);
    await until('ALARM OFF', 20_000, async () => await tile.locator('.off').textContent() === `ALARM OFF spo2 low until ${hhmm}`);
    await page.reload();
    await until('ALARM OFF from the snapshot', 20_000, () => tile.locator('.off').isVisible());
    await until('a range with what is missing', 90_000, async () => /^NEWS2 \d+–\d+ ≥ \S+ .*O2\? ACVPU\?/.test(await tile.locator('.news2').innerText()));
  } finally {
    await changeLimit('PUT', patient, 'spo2_low', { enabled: true });
    await until('the end of ALARM OFF', 20_000, async () => !(await tile.locator('.off').isVisible()));
    await changeLimit('DELETE', patient, 'spo2_low');
  }
});

test('what the rule file has switched off stands on the tile too', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-rules-'));
  const end = inAnHour();
  writeFileSync(join(dir, 'rules.toml'), `[patient."P-1".rule.spo2_low]\nenabled = false\nreason = "test"\nby = "dr"\nexpires = "${end}"\n`);
  writeFileSync(join(dir, 'vitalbridge.toml'), `[bridge]\nid = "filed"\n[alerts]\nrules = "rules.toml"\n[[patient]]\nid = "P-1"\nbed = "1"\n`);
  const child = spawn(BINARY, ['run', '--config', join(dir, 'vitalbridge.toml'), '--listen', '127.0.0.1:0', '--state-dir', join(dir, 'state')],
    { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => {
    output = (output + chunk).slice(-MAX_OUTPUT_BYTES);
  });
  try {
    const [, port] = await until('the daemon listens', STARTED_MS, () => {
      assert.equal(child.exitCode, null, `the daemon ended:\n${output}`);
      return /127\.0\.0\.1:(\d+)/.exec(output);
    });
    const token = execFileSync(BINARY, ['token', 'issue', '--state-dir', join(dir, 'state')], { encoding: 'utf8' }).trim();
    await page.goto(`http://127.0.0.1:${port}`);
    await page.locator('#sign-in-secret').fill(token);
    await page.keyboard.press('Enter');
    const hhmm = await page.evaluate((at) => new Date(at).toTimeString().slice(0, 5), end);
    const off = page.locator('.tile[data-patient=P-1] .off');
    await until('ALARM OFF', 20_000, async () => await off.count() === 1 && await off.textContent() === `ALARM OFF spo2 low until ${hhmm}`);
  } finally {
    child.kill('SIGKILL');
    await ended;
    rmSync(dir, { recursive: true, force: true });
  }
});

test('without a self-check of the bridge the page says and sounds that no alarm would come', async () => {
  await signIn();
  await page.locator('#app').click({ position: { x: 5, y: 5 } });
  const banner = page.locator('#no-alarms');
  assert.equal(await banner.isVisible(), false);
  daemon.child.kill('SIGSTOP');
  try {
    await until('NO ALARMS FROM BRIDGE', 30_000, () => banner.isVisible());
    assert.match(await banner.innerText(), /^NO ALARMS FROM BRIDGE since \d\d:\d\d:\d\d/);
    assert.doesNotMatch(await banner.innerText(), /AUDIO BLOCKED/);
    await page.screenshot({ path: join(SHOTS, 'no-alarms.png') });
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await until('it is over', 30_000, async () => !(await banner.isVisible()));
});

test('a wrong code is refused with a clear message, and a right one then opens the page', async () => {
  await page.goto(`${daemon.origin}/#code=wrong-code`);
  const problem = page.locator('#sign-in-problem');
  await problem.waitFor();
  assert.match(await problem.innerText(), /code is wrong/);
  assert.equal(new URL(page.url()).hash, '');
  assert.equal(await page.locator('#app').isVisible(), false);
  await page.screenshot({ path: join(SHOTS, 'sign-in.png') });
  assert.deepEqual(trouble.filter((line) => !/401/.test(line)), [], 'the refusal itself is all that the console tells');
  await page.locator('#sign-in-secret').fill(daemon.code);
  await page.keyboard.press('Enter');
  await untilLive(page);
});

test('a forged token leads back to the sign-in page with the reason', async () => {
  await page.goto(daemon.origin);
  await page.locator('#sign-in-secret').fill('eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.c2lnbmF0dXJl');
  await page.keyboard.press('Enter');
  const problem = page.locator('#sign-in-problem');
  await problem.waitFor();
  assert.match(await problem.innerText(), /token is not valid/);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test('a reload stays signed in, signing out does not', async () => {
  await signIn();
  await page.reload();
  await untilLive(page);
  await page.locator('#menu-button').click();
  await page.locator('#sign-out').click();
  assert.equal(await page.locator('#sign-in').isVisible(), true);
  await page.reload();
  await page.locator('#sign-in').waitFor();
  assert.equal(await page.locator('.tile').count(), 0);
});

describe('on every screen', () => {
  for (const size of SIZES) {
    test(`${size.width}x${size.height}: nothing is cut off, nothing overlaps, axe finds nothing`, async () => {
      await page.setViewportSize(size);
      await signIn();
      await page.screenshot({ path: join(SHOTS, `ward-${size.width}x${size.height}.png`) });
      const layout = await page.evaluate(() => {
        const cut = [...document.querySelectorAll('.tile .number, .cell dt, .bed, .mark, .clock, .link')]
          .filter((node) => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflow !== 'visible')
          .map((node) => node.textContent);
        const outside = [...document.querySelectorAll('.tile .number')].filter((node) => {
          const range = document.createRange();
          range.selectNodeContents(node);
          return range.getBoundingClientRect().right > node.closest('.tile').getBoundingClientRect().right;
        }).map((node) => node.textContent);
        const main = document.querySelector('main');
        return { cut, outside, sideways: document.documentElement.scrollWidth > innerWidth, scrolls: main.scrollHeight > main.clientHeight + 1 };
      });
      // A phone is not high enough for eight patients; the other screens show them all at once.
      assert.deepEqual(layout, { cut: [], outside: [], sideways: false, scrolls: size.width < 600 });
      const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ').slice(0, 300)}`), []);
      assert.deepEqual(trouble, []);
    });
  }
});
