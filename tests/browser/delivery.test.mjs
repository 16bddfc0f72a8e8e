// Whether alarms reach people: what the page confirms as shown, and that it is never silent without saying so.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { observe, signIn } from './demo.mjs';
import { SIZES, changeLimit, inAnHour, picture, startConfigured, startDemo, tokenFor, until, violationsIn } from './real.mjs';
import { context, daemon } from './stage.mjs';
import { page } from './watched.mjs';

/** What the bridge says about its alerts, asked by a socket that shows nothing itself. */
async function selfCheck(from = daemon) {
  const observer = await observe(context, from);
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
  await changeLimit(daemon, 'P-0008', 'respiration_high', { above: 8, clear: { at_most: 6 }, delay: '0s' });
  const late = await until('an alert that nobody sees', async () => (await check())?.undelivered > 0 && check());
  assert.equal(late.annunciators, 0);
  // A page behind another window draws and is not seen.
  const hidden = await context.newPage();
  await hidden.addInitScript(() => Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' }));
  await signIn(hidden, daemon);
  const seen = (await check()).self_check;
  // On a starved machine new alerts come in between, which have their time to be shown before they are undelivered.
  const unseen = await until('two self-checks and alerts that nobody sees', async () => (await check()).self_check > seen + 1 && (await check()).undelivered > 0 && check());
  assert.equal(unseen.annunciators, 1);
  assert.ok(!unseen.alerts.some(({ delivery }) => delivery === 'shown'), JSON.stringify(unseen));
  await hidden.close();
  await signIn(page, daemon);
  await until('all alerts are shown', async () => {
    const { annunciators, undelivered, alerts } = await check();
    return annunciators === 1 && undelivered === 0 && alerts.some(({ delivery }) => delivery === 'shown');
  });
  await page.close();
  await until('the page has left', async () => (await check()).annunciators === 0);
  await until('what nobody shows any more is undelivered', async () => (await check()).undelivered > 0);
  await changeLimit(daemon, 'P-0008', 'respiration_high');
});

test('on a phone an alert counts as shown when its text can be read, not while it is scrolled away under the bar', async (t) => {
  // A ward of its own, in which nothing else has alarmed yet.
  const ward = await startDemo();
  t.after(() => ward.stop());
  await page.setViewportSize(SIZES[2]);
  const check = await selfCheck(ward);
  const [{ patient }] = await signIn(page, ward);
  const tile = page.locator(`.tile[data-patient=${patient}]`);
  // One line of the first bed's alert is left below the bar, in the window and under nothing but the bar.
  await tile.evaluate((node) => {
    const main = node.closest('main');
    const place = node.querySelector('.alarm-place').getBoundingClientRect();
    main.scrollTop += place.bottom - 6 - main.getBoundingClientRect().top;
  });
  // No other rule hides this one.
  await changeLimit(ward, patient, 'respiration_high', { above: 8, clear: { at_most: 6 }, delay: '0s' });
  try {
    const id = await until('the alert is on the tile', () => tile.evaluate((node) =>
      /respir/i.test(node.querySelector('.alarm-title')?.textContent ?? '') && node.querySelector('.acknowledge').dataset.alert));
    const deliveryOf = async () => (await check()).alerts.find((alert) => alert.alert_id === id)?.delivery;
    const { self_check: seen } = await until('a self-check', check);
    await until('two self-checks', async () => (await check()).self_check > seen + 1);
    assert.notEqual(await deliveryOf(), 'shown', 'nobody could read it');
    // The bar says that there is one, and leads to it.
    const count = page.locator('#counts button[data-priority=medium]:not([hidden])');
    await until('the count says so', async () => (await count.innerText()).endsWith('↕'));
    await count.click();
    await until('it is shown', async () => await deliveryOf() === 'shown');
  } finally {
    await changeLimit(ward, patient, 'respiration_high');
  }
});

test('an alarm that nobody\'s page has shown is alert_undelivered: a page that cannot show it says so, and one that shows it ends that', async (t) => {
  const ward = await startDemo();
  t.after(() => ward.stop());
  // A page that draws and is not seen: what stands in it is shown to nobody.
  const hidden = await context.newPage();
  await hidden.addInitScript(() => Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' }));
  await signIn(hidden, ward);
  await changeLimit(ward, 'P-0008', 'respiration_high', { above: 8, clear: { at_most: 6 }, delay: '0s' });
  const ofBridge = hidden.locator('#bridge-alerts li', { hasText: /shown/ });
  await until('the alert of the bridge', async () => await ofBridge.count() === 1);
  assert.match(await ofBridge.innerText(), /respir/i, 'it names what nobody has seen');
  assert.ok(await hidden.locator('.tile[data-patient=P-0008][data-priority]').count() === 1, 'the alarm itself stands there too');
  // A page that is opened afterwards finds it in its snapshot, shows the alarm, and by that ends it, in every page.
  const opened = new Promise((resolve) => {
    page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
      const frame = typeof payload === 'string' ? JSON.parse(payload) : {};
      if (frame.type === 'snapshot') resolve(frame.data.alerts);
    }));
  });
  await signIn(page, ward);
  assert.ok((await opened).some(({ rule }) => rule === 'alert_undelivered'), 'in the snapshot of a page that comes later');
  await until('it is shown', () => page.locator('.tile[data-patient=P-0008] .alarm-title').isVisible());
  for (const from of [hidden, page]) await until('the alert of the bridge is over', async () => await from.locator('#bridge-alerts li', { hasText: /shown/ }).count() === 0);
  // And whoever looks later finds that it was so.
  await page.evaluate(() => {
    location.hash = '#/alarms';
  });
  await until('the past has it', async () => await page.locator('.past tbody tr', { hasText: /shown/ }).count() > 0);
  await picture(page, 'undelivered-past');
});

test('ALARM OFF stands on the tile with its rule and its end, and the score never as a bare number while it is incomplete', async () => {
  const numbers = await signIn(page, daemon);
  const { patient } = numbers.at(-1);
  const tile = page.locator(`.tile[data-patient=${patient}]`);
  assert.equal(await tile.locator('.off').isVisible(), false);
  const end = inAnHour();
  await changeLimit(daemon, patient, 'spo2_low', { enabled: false, until: end });
  await changeLimit(daemon, patient, 'spo2_low', { below: 88, clear: { at_least: 89 }, expires: end });
  try {
    const hhmm = await page.evaluate((at) => new Date(at).toTimeString().slice(0, 5), end);
    await until('ALARM OFF', async () => await tile.locator('.off').textContent() === `ALARM OFF spo2 low until ${hhmm}`);
    await page.reload();
    await until('ALARM OFF from the snapshot', () => tile.locator('.off').isVisible());
    await until('a range with what is missing', async () => /^NEWS2 \d+–\d+ ≥ \S+ .*O2\? ACVPU\?/.test(await tile.locator('.news2').innerText()));
  } finally {
    await changeLimit(daemon, patient, 'spo2_low', { enabled: true });
    await until('the end of ALARM OFF', async () => !(await tile.locator('.off').isVisible()));
    await changeLimit(daemon, patient, 'spo2_low');
  }
});

test('what the rule file has switched off stands on the tile too', async () => {
  const end = inAnHour();
  const filed = await startConfigured('[bridge]\nid = "filed"\n[alerts]\nrules = "rules.toml"\n[[patient]]\nid = "P-1"\nbed = "1"\n', {
    'rules.toml': `[patient."P-1".rule.spo2_low]\nenabled = false\nreason = "test"\nby = "dr"\nexpires = "${end}"\n`,
  });
  try {
    await page.goto(filed.origin);
    await page.locator('#sign-in-secret').fill(await tokenFor(filed, 'nurse'));
    await page.keyboard.press('Enter');
    const hhmm = await page.evaluate((at) => new Date(at).toTimeString().slice(0, 5), end);
    const off = page.locator('.tile[data-patient=P-1] .off');
    await until('ALARM OFF', async () => await off.count() === 1 && await off.textContent() === `ALARM OFF spo2 low until ${hhmm}`);
  } finally {
    await filed.stop();
  }
});

test('without a self-check of the bridge the page says and sounds that no alarm would come', async () => {
  await signIn(page, daemon);
  await page.locator('#app').click({ position: { x: 5, y: 5 } });
  const banner = page.locator('#no-alarms');
  assert.equal(await banner.isVisible(), false);
  daemon.child.kill('SIGSTOP');
  try {
    await until('NO ALARMS FROM BRIDGE', () => banner.isVisible());
    assert.match(await banner.innerText(), /^NO ALARMS FROM BRIDGE since \d\d:\d\d:\d\d/);
    assert.doesNotMatch(await banner.innerText(), /AUDIO BLOCKED/);
    await picture(page, 'no-alarms');
    assert.deepEqual(await violationsIn(page), []);
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await until('it is over', async () => !(await banner.isVisible()));
});
