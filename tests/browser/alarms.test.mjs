// Alarms in two windows at once, and what is heard of them: `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pulsesOf } from '../../src/server/dashboard/sound.js';
import { BEDSIDE, NEIGHBOUR, QUIET, bannerOf, untilLive, whileAlarming } from './bedside.mjs';
import { changeLimit, launch, openAt, together, until, violationsIn, withMemory } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

/** How often the bridge says that it is there, in ms. */
const HEARTBEAT_MS = 5000;
/** Where the alarm stands at the bedside and in the ward. */
const PLACES = ['#bedside-alarm', `.tile[data-patient=${QUIET}] .alarm-place`];

/** Begins with new windows, which keep each tone with its time and length. */
const heard = async (options = {}) => {
  await fresh(options);
  await context.addInitScript(() => {
    globalThis.tones = [];
    const { start, stop } = OscillatorNode.prototype;
    OscillatorNode.prototype.start = function begin(at) {
      globalThis.tones.push({ at, hz: this.frequency.value });
      return start.call(this, at);
    };
    OscillatorNode.prototype.stop = function end(at) {
      globalThis.tones.at(-1).length = at - globalThis.tones.at(-1).at;
      return stop.call(this, at);
    };
  });
};

/**
 * Two windows, somebody's touch in each, and no tone yet. They have this patient alone: what happens to others in the demo is not
 * heard in between.
 */
async function twoWindows() {
  await heard();
  await withMemory(context);
  const bedside = await openAt(context, daemon, BEDSIDE, QUIET);
  const ward = await openAt(context, daemon, '#/', QUIET);
  for (const page of [ward, bedside]) {
    await page.bringToFront();
    await page.locator('#clock').click();
  }
  await untilLive(bedside);
  await until('sound is allowed', async () => !(await bedside.locator('#audio-blocked').isVisible()));
  const tile = ward.locator(`.tile[data-patient=${QUIET}]`);
  const tileOf = () => tile.evaluate((node) => ({ active: node.dataset.active, text: node.querySelector('.alarm-place').textContent.replaceAll(/\s+/g, ' ').trim() }));
  return { bedside, ward, tileOf };
}

test('a medium alarm in two windows: it sounds as the standard says, and what one acknowledges the other shows within a heartbeat', async () => {
  const { bedside, ward, tileOf } = await twoWindows();
  assert.equal(await bedside.locator('#acknowledge').isDisabled(), true);
  const began = await together([bedside, ward], 'the alarm', PLACES, /^\s*\*\* SpO/);
  let ended;
  await whileAlarming(daemon, async () => {
    assert.ok(await began() < HEARTBEAT_MS, 'it begins in both within a heartbeat');
    const banner = await until('the banner', () => bannerOf(bedside));
    assert.deepEqual([banner.priority, banner.active], ['medium', 'true']);
    assert.match(banner.text, /^\*\* SpO/);
    await until('the tile', async () => (await tileOf()).active === 'true');
    const tones = await until('a whole burst', async () => {
      const heard = await bedside.evaluate(() => globalThis.tones);
      return heard.length >= 3 && heard;
    });
    const { begins } = pulsesOf('medium');
    tones.slice(0, 3).forEach(({ at, length }, pulse) => {
      assert.ok(Math.abs(at - tones[0].at - begins[pulse]) < 0.001 && Math.abs(length - 0.2) < 0.001, JSON.stringify(tones));
    });
    const acknowledged = await together([bedside, ward], 'ACKNOWLEDGED', PLACES, /ACKNOWLEDGED by nurse/);
    await bedside.locator('#acknowledge').click();
    const apart = await acknowledged();
    assert.ok(apart < HEARTBEAT_MS, `${apart} ms from one window to the other`);
    await until('ACKNOWLEDGED in this one', async () => /ACKNOWLEDGED by nurse/.test((await bannerOf(bedside)).text));
    const heard = await bedside.evaluate(() => globalThis.tones.length);
    await new Promise((next) => setTimeout(next, 1000 * pulsesOf('medium').every + 500));
    assert.equal(await bedside.evaluate(() => globalThis.tones.length), heard, 'it is still');
    ended = await together([bedside, ward], 'its end', PLACES, /^no alert$/);
  });
  assert.ok(await ended() < HEARTBEAT_MS, 'it ends in both within a heartbeat');
  await until('the alarm is over in both', async () => !(await bannerOf(bedside)) && (await tileOf()).text === 'no alert');
});

test('two bedsides of one patient agree from the onset to the end, and each says the alarm aloud once', async () => {
  await heard();
  await withMemory(context);
  const bedsides = [await openAt(context, daemon, BEDSIDE, QUIET), await openAt(context, daemon, BEDSIDE, QUIET)];
  const [one, other] = bedsides;
  const places = bedsides.map(() => '#bedside-alarm');
  for (const page of bedsides) {
    await page.bringToFront();
    await untilLive(page);
  }
  /** What a screen reader was told of the alarm. */
  const spokenIn = (page) => page.locator('#spoken').evaluate((node) => [...node.children].map(({ textContent }) => textContent.trim()).filter((text) => /SpO/.test(text)));
  const began = await together(bedsides, 'the alarm', places, /^\s*\*\* SpO/);
  let ended;
  await whileAlarming(daemon, async () => {
    assert.ok(await began() < HEARTBEAT_MS, 'it begins in both within a heartbeat');
    for (const page of bedsides) await until('it is said', async () => (await spokenIn(page)).length > 0);
    const acknowledged = await together(bedsides, 'ACKNOWLEDGED', places, /ACKNOWLEDGED by nurse/);
    await other.locator('#acknowledge:not(:disabled)').click();
    assert.ok(await acknowledged() < HEARTBEAT_MS, 'acknowledged in both within a heartbeat');
    assert.deepEqual(await bannerOf(one), await bannerOf(other));
    ended = await together(bedsides, 'its end', places, /^no alert$/);
  });
  assert.ok(await ended() < HEARTBEAT_MS, 'it ends in both within a heartbeat');
  for (const page of bedsides) {
    const spoken = await spokenIn(page);
    assert.equal(spoken.length, 1, `said once, not again when it is acknowledged or over: ${spoken.join(' | ')}`);
    assert.match(spoken[0], /^medium priority, bed B4, Hugo Brandt: SpO\S+ .*\.$/);
    assert.equal(await page.locator('#spoken').getAttribute('aria-live'), 'assertive');
  }
});

test('a high alarm: the audio pause counts down in every window, a latched alarm waits for its reset', async () => {
  const { bedside, ward, tileOf } = await twoWindows();
  // The extreme limit stands 20 beyond this one.
  await changeLimit(daemon, QUIET, 'heart_rate_high', { above: 52, clear: { at_most: 51 } });
  try {
    await until('a high alarm', async () => (await bannerOf(bedside))?.priority === 'high');
    const fast = await until('ten pulses', async () => {
      const tones = (await bedside.evaluate(() => globalThis.tones)).filter(({ hz }) => hz > 700);
      return tones.length >= 10 && tones;
    });
    pulsesOf('high').begins.forEach((begin, pulse) => assert.ok(Math.abs(fast[pulse].at - fast[0].at - begin) < 0.001));
    const paused = await together([bedside, ward], 'AUDIO PAUSED', PLACES, /AUDIO PAUSED until/);
    await bedside.locator('#pause').click();
    const left = async () => Number(/^Audio paused (\d):(\d\d)$/.exec((await bedside.locator('#pause').innerText()).replaceAll(/\s+/g, ' '))?.slice(1).reduce((m, s) => 60 * Number(m) + Number(s)));
    const first = await until('it counts', left);
    assert.ok(first <= 120 && first > 90, `${first} s`);
    assert.match((await bannerOf(bedside)).text, /AUDIO PAUSED until \d\d:\d\d:\d\d/);
    assert.ok(await paused() < HEARTBEAT_MS, 'in the other window within a heartbeat');
    const heard = await ward.evaluate(() => globalThis.tones.length);
    await until('it counts down', async () => (await left()) <= first - 4);
    assert.equal(await ward.evaluate(() => globalThis.tones.length), heard, 'no window sounds');
    for (const page of [bedside, ward]) assert.deepEqual(await violationsIn(page), [], 'while its audio is paused');
  } finally {
    await changeLimit(daemon, QUIET, 'heart_rate_high');
  }
  await until('it is latched', async () => /over, not yet seen/.test((await bannerOf(bedside))?.text ?? ''));
  assert.match(await bedside.locator('#acknowledge').innerText(), /^Reset/);
  for (const page of [bedside, ward]) assert.deepEqual(await violationsIn(page), [], 'latched');
  const gone = await together([bedside, ward], 'gone', PLACES, /^no alert$/);
  await bedside.locator('#acknowledge').click();
  assert.ok(await gone() < HEARTBEAT_MS, 'in the other window within a heartbeat');
  await until('it is gone in both', async () => !(await bannerOf(bedside)) && (await tileOf()).text === 'no alert');
});

test('an alarm of another bed is seen and heard at this one, and leads there', async () => {
  await heard();
  const page = await openAt(context, daemon, `#/patient/${NEIGHBOUR}`, NEIGHBOUR, QUIET);
  await page.locator('#clock').click();
  await untilLive(page);
  await whileAlarming(daemon, async () => {
    await until('it stands above', async () => /^B4 *\*\* SpO/.test((await page.locator('#elsewhere').textContent()).trim()));
    await until('it sounds', async () => (await page.evaluate(() => globalThis.tones.length)) >= 3);
    await page.locator('#elsewhere').click();
    await until('the bed that alarms', async () => (await bannerOf(page))?.priority === 'medium');
  });
});

test('without a touch the browser blocks the sound, and the page says AUDIO BLOCKED until somebody touches it', async () => {
  await heard();
  const page = await openAt(context, daemon, BEDSIDE, QUIET);
  const blocked = page.locator('#audio-blocked');
  await blocked.waitFor();
  assert.deepEqual(await violationsIn(page), [], 'AUDIO BLOCKED');
  await blocked.click();
  await until('it may sound', async () => !(await blocked.isVisible()));
});

test('a kiosk may sound at once', async () => {
  const kiosk = await launch('--autoplay-policy=no-user-gesture-required');
  try {
    const page = await openAt(await kiosk.newContext(), daemon, BEDSIDE);
    await page.locator('#vitals').waitFor();
    await until('it may sound', async () => !(await page.locator('#audio-blocked').isVisible()));
  } finally {
    await kiosk.close();
  }
});
