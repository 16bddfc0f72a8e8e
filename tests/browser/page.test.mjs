// The ward in real Chromium against the real daemon in demo mode: numbers, loss of the bridge, every screen.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PATIENTS, isNumber, numbersOf, observe, signIn, untilLive } from './demo.mjs';
import { startHardWard } from './hard.mjs';
import { SIZES, changeLimit, inAnHour, openAt, picture, remember, remembered, until, violationsIn, withMemory } from './real.mjs';
import { context, daemon } from './stage.mjs';
import { page, trouble } from './watched.mjs';

/** How often the bridge says that it is there, in ms. */
const HEARTBEAT_MS = 5000;

/** What the page must show for a reading. */
function expectedText({ metric, value, wire, components }) {
  if (metric === 'blood_pressure') return `${components.systolic ?? '---'}/${components.diastolic ?? '---'}`;
  return wire ?? String(value);
}

test('the sign-in link opens the page: live numbers of every demo patient, marked DEMO, and they change', async () => {
  const first = await signIn(page, daemon);
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
  await until('a number of every patient changes', async () => {
    const changed = (await numbersOf(page)).filter((number) => isNumber(number) && before.has(key(number)) && before.get(key(number)) !== number.text);
    return new Set(changed.map(({ patient }) => patient)).size === PATIENTS;
  });
  assert.deepEqual(trouble, []);
});

test('the numbers on the page are those that the bridge sent, digit for digit', async () => {
  const observer = await observe(context, daemon);
  await signIn(page, daemon);
  const compared = new Map();
  const seen = new Set();
  await until('three readings of every patient compared', async () => {
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
  const numbers = await signIn(page, daemon);
  for (const number of numbers) assert.ok(number.seq > 0, JSON.stringify(number));
  for (const number of (await numbersOf(page)).filter((shown) => !isNumber(shown))) {
    assert.equal(number.text, '---');
    assert.notEqual(number.note, '', JSON.stringify(number));
  }
});

test('a stopped bridge turns numbers grey, then ---, then says NO CONNECTION; it heals when the bridge goes on', async () => {
  await withMemory(page);
  await signIn(page, daemon);
  const continuous = ({ cell }) => ['hr', 'spo2', 'pulse', 'resp'].includes(cell);
  const banner = page.locator('#no-connection');
  daemon.child.kill('SIGSTOP');
  try {
    await remember(page, 'grey', '.cell[data-cell=hr][data-state=stale]', /\d+ s old/);
    await remember(page, 'NO CONNECTION', '#no-connection', /NO CONNECTION/);
    await until('every continuous number is stale', async () => {
      const shown = (await numbersOf(page)).filter((number) => continuous(number) && isNumber(number));
      return shown.length > 0 && shown.every(({ state, note }) => state === 'stale' && /\d+ s old/.test(note));
    });
    // By the page's own clock: the numbers were grey before the second heartbeat was missed, and then the banner came at once.
    const [grey, lost] = [await remembered(page, 'grey'), await remembered(page, 'NO CONNECTION')];
    assert.ok(grey.silentMs < 2 * HEARTBEAT_MS, `grey after ${grey.silentMs} ms`);
    assert.ok(lost.silentMs > HEARTBEAT_MS && lost.silentMs < 3 * HEARTBEAT_MS, `NO CONNECTION after ${lost.silentMs} ms`);
    assert.match(await banner.innerText(), /^NO CONNECTION since \d\d:\d\d:\d\d/);
    assert.equal((await banner.boundingBox()).width, SIZES[1].width, 'over the full width');
    assert.equal(await page.locator('#mark').isVisible(), true, 'DEMO stays');
    await until('every continuous number is ---', async () => (await numbersOf(page)).filter(continuous).every((number) => number.text === '---'));
    await picture(page, 'no-connection');
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await untilLive(page);
  await until('NO CONNECTION is gone', async () => !(await banner.isVisible()));
  // Where the bridge closed the connection in between, the page connects anew first.
  await until('it is live', async () => await page.locator('#link-text').innerText() === 'Live');
});

describe('on every screen', () => {
  for (const size of SIZES) {
    test(`${size.width}x${size.height}: nothing is cut off, nothing overlaps, axe finds nothing`, async () => {
      await page.setViewportSize(size);
      await signIn(page, daemon);
      await picture(page, `ward-${size.width}x${size.height}`);
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
      assert.deepEqual(await violationsIn(page), []);
      assert.deepEqual(trouble, []);
    });
  }
});

/** Texts of one tile that lie over each other by more than a pixel, or leave the tile. */
const crowdedIn = (from) => from.evaluate(() => [...document.querySelectorAll('.tile')].flatMap((tile) => {
  const whole = tile.getBoundingClientRect();
  const texts = [...tile.querySelectorAll('header h2, .off, .alarm-place, .cell dt, .number, .note, .news2')].filter((node) => node.checkVisibility() && node.textContent.trim() !== '').map((node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    const [{ left, right }, box] = [range.getBoundingClientRect(), node.getBoundingClientRect()];
    // What a box cuts off is not drawn.
    const isCut = getComputedStyle(node).overflowX !== 'visible';
    return { says: `${node.closest('.cell')?.dataset.cell ?? ''} ${node.className || node.tagName}: ${node.textContent.trim()}`, top: box.top, bottom: box.bottom, left: isCut ? Math.max(left, box.left) : left, right: isCut ? Math.min(right, box.right) : right };
  });
  const over = texts.flatMap((a, at) => texts.slice(at + 1).filter((b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
    .map((b) => `${tile.dataset.patient}: ${a.says} / ${b.says}`));
  const out = texts.filter(({ bottom, right }) => bottom > whole.bottom + 1 || right > whole.right + 1).map(({ says }) => `${tile.dataset.patient}: ${says} leaves the tile`);
  return [...over, ...out];
}));

describe('on a bad day', () => {
  test('no text of a tile lies over another: sensor off, sensor silent, alarms, ALARM OFF, no data, no link, at every size', async (t) => {
    const ward = await startHardWard();
    t.after(ward.stop);
    await changeLimit(ward, 'P-4', 'spo2_low', { enabled: false, until: inAnHour() });
    const hard = await openAt(context, ward);
    const says = (patient, cell, pattern) => hard.locator(`.tile[data-patient=${patient}] [data-cell=${cell}] .note`).textContent().then((text) => pattern.test(text));
    const look = async (when) => {
      for (const size of SIZES) {
        await hard.setViewportSize(size);
        // The tiles are arranged anew.
        await hard.waitForTimeout(500);
        await picture(hard, `hard-${when}-${size.width}x${size.height}`);
        assert.deepEqual(await crowdedIn(hard), [], `${when} at ${size.width}x${size.height}`);
      }
    };
    await until('sensor off', () => says('P-1', 'spo2', /sensor off/));
    await until('a high alarm', async () => await hard.locator('.tile[data-patient=P-3][data-priority=high]').count() === 1);
    await until('ALARM OFF', () => hard.locator('.tile[data-patient=P-4] .off').isVisible());
    await until('no signal', () => says('P-2', 'resp', /sensor silent/));
    await look('signal');
    assert.deepEqual(await violationsIn(hard), [], 'sensor off');
    ward.child.kill('SIGSTOP');
    try {
      await until('no link', () => says('P-3', 'resp', /no link/));
      await hard.locator('#no-connection').waitFor();
      await look('link');
      assert.deepEqual(await violationsIn(hard), []);
    } finally {
      ward.child.kill('SIGCONT');
    }
  });
});
