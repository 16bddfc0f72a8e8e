// The bedside view in real Chromium against the real daemon: `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BEDSIDE, CONTINUOUS, NEIGHBOUR, QUIET, bannerOf, inkOf, numbersOf, untilLive, whileAlarming } from './bedside.mjs';
import { SIZES, changeLimit, openAt, picture, until, violationsIn } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

/** What a clinician changed is read beside the number within this, in ms. */
const SOON_MS = 5000;
/** How often the page asks for all limits, in ms. */
const LIMITS_MS = 60_000;

/** The limits beside the heart rate, the upper one first. */
const limitsOf = async (page) => (await page.locator('[data-cell=hr].vital .limits').innerText()).split(/\s+/).join(' ');

test('a tile opens the bedside, by a click and by Enter; Escape and the arrow lead back', async () => {
  await fresh();
  const page = await openAt(context, daemon);
  const tile = page.locator(`.tile[data-patient=${QUIET}]`);
  await tile.locator('.number').first().click();
  await until('the bedside', () => page.locator('#bedside').isVisible());
  assert.equal(new URL(page.url()).hash, BEDSIDE);
  await page.keyboard.press('Escape');
  await until('the ward', async () => !(await page.locator('#bedside').isVisible()));
  await tile.locator('.open').focus();
  await page.keyboard.press('Enter');
  await untilLive(page);
  assert.deepEqual([await page.locator('#place').innerText(), await page.locator('#title').innerText()], ['B4', 'Hugo Brandt']);
  assert.match(await page.title(), /^DEMO · B4 · Hugo Brandt/);
  await page.locator('#back').click();
  await until('the ward', () => page.locator('#tiles').isVisible());
  await page.goto(`${daemon.origin}/#/patient/nobody`);
  await until('who is not there is named so', () => page.locator('#nobody').isVisible());
});

test('the numbers at the bedside are those that the bridge sent, digit for digit', async () => {
  await fresh();
  const page = await context.newPage();
  const sent = new Map();
  page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
    if (typeof payload !== 'string') return;
    const frame = JSON.parse(payload);
    const wire = (text) => /"value":([^,}]+)/.exec(text)?.[1];
    if (frame.type === 'health_update') sent.set(frame.seq, { ...frame.data, wire: wire(payload) });
  }));
  await page.goto(daemon.link.replace(/#.*/, `#code=${daemon.code}&view=/patient/${QUIET}`));
  await untilLive(page);
  assert.equal(new URL(page.url()).hash, BEDSIDE, 'the link names the view, and the code has left the address');
  const metrics = { hr: 'heart_rate', spo2: 'spo2', pulse: 'pulse_rate', resp: 'respiratory_rate', temp: 'temperature', nibp: 'blood_pressure' };
  const compared = new Map();
  await until('three readings of each continuous metric compared', async () => {
    for (const [cell, { text, seq }] of Object.entries(await numbersOf(page))) {
      const data = sent.get(seq);
      if (!data || compared.get(cell)?.has(seq)) continue;
      assert.deepEqual([data.metric, data.patient_id], [metrics[cell], QUIET]);
      assert.equal(text, cell === 'nibp' ? `${data.components.systolic}/${data.components.diastolic}` : data.wire, `reading ${seq}`);
      compared.set(cell, (compared.get(cell) ?? new Set()).add(seq));
    }
    return CONTINUOUS.every((cell) => compared.get(cell)?.size >= 3);
  });
  await until('limits stand beside the numbers', async () => await limitsOf(page) === '120 50');
});

test('a changed limit stands beside its number at once, and so does the end of the change', async () => {
  await fresh();
  // The limits are asked for now and again too: not here.
  await context.addInitScript((rounds) => {
    const { setInterval: every } = globalThis;
    globalThis.setInterval = (act, ms, ...words) => (ms === rounds ? 0 : every(act, ms, ...words));
  }, LIMITS_MS);
  const page = await openAt(context, daemon, BEDSIDE, QUIET);
  await until('the limits of the rules', async () => await limitsOf(page) === '120 50');
  try {
    await changeLimit(daemon, QUIET, 'heart_rate_high', { above: 131, clear: { at_most: 129 } });
    await until('the new limit', async () => await limitsOf(page) === '131 50', SOON_MS);
  } finally {
    await changeLimit(daemon, QUIET, 'heart_rate_high');
  }
  await until('the limit of the rules again', async () => await limitsOf(page) === '120 50', SOON_MS);
});

test('waves sweep behind an erase bar, only for who looks at them, and a lost bridge leaves an empty screen', async () => {
  await fresh({ reducedMotion: 'no-preference' });
  const page = await context.newPage();
  const said = [];
  let blocks = 0;
  page.on('websocket', (socket) => {
    socket.on('framesent', ({ payload }) => said.push(JSON.parse(payload)));
    socket.on('framereceived', ({ payload }) => {
      if (typeof payload !== 'string') blocks += 1;
    });
  });
  await page.goto(`${daemon.origin}/#code=${daemon.code}`);
  await page.locator(`.tile[data-patient=${QUIET}]`).waitFor();
  assert.equal(blocks, 0, 'the ward has no waves');
  await page.goto(`${daemon.origin}/${BEDSIDE}`);
  for (const lane of ['ecg', 'pleth', 'resp']) {
    await until(`the lane of ${lane} is full but for the bar`, async () => {
      const ink = await inkOf(page, lane);
      return ink > 0.85 && ink < 0.99;
    });
  }
  assert.deepEqual(await page.locator('.lane-name').allInnerTexts(), ['ECG', 'Pleth', 'Resp']);
  const seen = await page.locator('#speed').innerText();
  await page.locator('#speed').click();
  assert.deepEqual([seen, await page.locator('#speed').innerText()], ['25 mm/s', '50 mm/s']);
  await page.locator('#speed').click();
  assert.equal(await page.locator('#speed').innerText(), '12.5 mm/s');
  await page.locator('#speed').click();
  daemon.child.kill('SIGSTOP');
  try {
    await until('nothing of the past is left on the screen', async () => (await inkOf(page, 'ecg')) === 0);
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await until('the wave is back', async () => (await inkOf(page, 'ecg')) > 0.2);
  await page.locator('#back').click();
  await until('the waves are left', () => said.some(({ type, channels }) => type === 'unsubscribe' && channels[0] === `waveform/${QUIET}/+`));
  const before = blocks;
  await new Promise((next) => setTimeout(next, 1000));
  assert.ok(blocks - before <= 4, 'what was under way');
});

test('everything can be done by keyboard alone, and the focus is always seen', async () => {
  await fresh({ viewport: SIZES[0] });
  const page = await openAt(context, daemon);
  await page.locator(`.tile[data-patient=${QUIET}]`).waitFor();
  await whileAlarming(daemon, async () => {
    const focused = () => page.evaluate(() => {
      const node = document.activeElement;
      const seen = node.closest('.tile:has(.open:focus-visible)') ?? node;
      return { id: node.id, patient: node.closest('.tile')?.dataset.patient, name: node.className, outline: getComputedStyle(seen).outlineStyle };
    });
    /** Goes on with the key until the focus is where it should be. */
    const tabTo = async (what, is) => {
      for (let presses = 0; presses < 60; presses += 1) {
        await page.keyboard.press('Tab');
        const at = await focused();
        if (at.id || at.name) assert.notEqual(at.outline, 'none', JSON.stringify(at));
        if (is(at)) return;
      }
      assert.fail(`${what} cannot be reached`);
    };
    await tabTo('the tile', ({ patient, name }) => patient === QUIET && name === 'open');
    await page.keyboard.press('Enter');
    await until('the alarm', async () => (await bannerOf(page))?.active === 'true');
    // What could not be read yet is neither paused nor acknowledged.
    await until('it could be read', async () => await page.locator('#acknowledge').getAttribute('aria-disabled') === 'false');
    await tabTo('Audio pause', ({ id }) => id === 'pause');
    await page.keyboard.press('Space');
    await until('the audio is paused', async () => /^Audio paused \d:\d\d$/.test((await page.locator('#pause').innerText()).replaceAll(/\s+/g, ' ')));
    await tabTo('Acknowledge', ({ id }) => id === 'acknowledge');
    await page.keyboard.press('Enter');
    await until('acknowledged', async () => /ACKNOWLEDGED/.test((await bannerOf(page)).text));
    for (const id of ['to-limits', 'to-trends', 'to-nibp']) await tabTo(id, (at) => at.id === id);
    assert.deepEqual(await page.evaluate(() => ['to-limits', 'to-trends', 'to-nibp'].map((id) => document.getElementById(id).getAttribute('href'))),
      [`#/limits/${QUIET}`, `#/trends/${QUIET}`, `#/trends/${QUIET}?nibp`]);
    await tabTo('the menu', ({ id }) => id === 'menu-button');
    await page.keyboard.press('Enter');
    assert.equal(await page.locator('#menu').isVisible(), true);
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('#menu').isVisible(), false);
    assert.equal(await page.locator('#bedside').isVisible(), true, 'Escape closed the menu only');
  });
});

test('what alarms flashes at its rate, and not for those who want no movement', async () => {
  await whileAlarming(daemon, async () => {
    for (const [reducedMotion, animations, border] of [['no-preference', [{ name: 'flash', ms: 1666.7 }], '2px'], ['reduce', [], '5px']]) {
      await fresh({ reducedMotion });
      const page = await openAt(context, daemon, BEDSIDE);
      await until('the alarm', async () => (await bannerOf(page))?.active === 'true');
      const cell = page.locator('.vital[data-cell=spo2]');
      const running = await cell.evaluate((node) => node.getAnimations().map((it) => ({ name: it.animationName, ms: Number(it.effect.getTiming().duration) })));
      assert.deepEqual(running, animations);
      assert.equal(await cell.evaluate((node) => getComputedStyle(node).borderTopWidth), border);
    }
  });
});

describe('on every screen', () => {
  for (const size of SIZES) {
    test(`${size.width}x${size.height}: while two beds alarm nothing is cut off, the digits keep their size, everything can be touched, axe finds nothing`, async () => {
      await fresh({ viewport: size });
      const page = await openAt(context, daemon, BEDSIDE, QUIET, NEIGHBOUR);
      await untilLive(page);
      const digitsOf = () => page.locator('.vital[data-cell=hr] .number').evaluate((node) => parseFloat(getComputedStyle(node).fontSize));
      const calm = await digitsOf();
      await whileAlarming(daemon, async () => {
        await until('the alarm', async () => (await bannerOf(page))?.active === 'true');
        await until('the other bed\'s', () => page.locator('#elsewhere').isVisible());
        await picture(page, `two-beds-bedside-${size.width}x${size.height}`);
        const layout = await page.evaluate(() => {
          const inside = (node) => {
            const range = document.createRange();
            range.selectNodeContents(node);
            const [text, box] = [range.getBoundingClientRect(), node.closest('.vital, .actions > *, .bar, .banner').getBoundingClientRect()];
            return text.left >= box.left - 1 && text.right <= box.right + 1 && box.right <= innerWidth + 1 && box.bottom <= innerHeight + 1;
          };
          const visible = (node) => node.checkVisibility({ visibilityProperty: true });
          const cut = [...document.querySelectorAll('.number, .vital dt, .vital .note, .actions .action, .clock, .link, .mark, .heading span, .banner .alarm-title, .elsewhere-text')]
            .filter((node) => visible(node) && node.textContent.trim() !== '' && node.closest('.vital, .actions, .bar, .banner') && !inside(node)).map((node) => node.textContent);
          const small = [...document.querySelectorAll('button, a')].filter(visible).filter((node) => {
            const { width, height } = node.getBoundingClientRect();
            return width < 48 || height < 48;
          }).map((node) => node.outerHTML.slice(0, 80));
          const main = document.querySelector('main');
          return { cut, small, sideways: document.documentElement.scrollWidth > innerWidth, scrolls: main.scrollHeight > main.clientHeight + 1 };
        });
        assert.deepEqual(layout, { cut: [], small: [], sideways: false, scrolls: false });
        const digits = await digitsOf();
        console.log(`${size.width}x${size.height}: digits of ${digits.toFixed(0)} px`);
        if (size.width === 800) assert.ok(digits >= 90 && digits <= 115, `${digits} px`);
        if (size.width >= 800) assert.equal(digits, calm, 'alarms do not make the numbers smaller');
        assert.deepEqual(await violationsIn(page), []);
        assert.match(await page.locator('.notice').innerText(), /not a medical device.*secondary/i);
        assert.equal(await page.locator('#mark').isVisible(), true);
      }, { patients: [QUIET, NEIGHBOUR], rule: 'respiration_high' });
    });
  }
});

/** Bed and name in the bar, each only where nothing lies over it and it is not cut off. */
const whoIsRead = (page) => page.evaluate(() => ['place', 'title'].map((id) => {
  const node = document.getElementById(id);
  const { left, right, top, bottom } = node.getBoundingClientRect();
  const box = node.parentElement.getBoundingClientRect();
  const front = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  const title = document.getElementById('no-connection-title').getBoundingClientRect();
  const isApart = right <= title.left || bottom <= title.top + 1;
  return node.checkVisibility({ visibilityProperty: true }) && node.contains(front) && right <= box.right + 1 && isApart ? node.textContent : `not to be read: ${node.textContent}`;
}));

test('a stopped bridge turns the numbers grey, then ---, and the page says since when; it heals by itself', async () => {
  await fresh();
  const page = await openAt(context, daemon, BEDSIDE);
  await untilLive(page);
  daemon.child.kill('SIGSTOP');
  const at = performance.now();
  try {
    await until('grey with its age', async () => {
      const numbers = await numbersOf(page);
      return CONTINUOUS.every((cell) => numbers[cell].state === 'stale' && /^\d+ s old$/.test(numbers[cell].note) && /\d/.test(numbers[cell].text));
    });
    assert.ok(performance.now() - at > 3000, 'not before it is old');
    await until('---', async () => {
      const numbers = await numbersOf(page);
      return CONTINUOUS.every((cell) => numbers[cell].text === '---' && numbers[cell].state === 'lost');
    });
    const banner = page.locator('#no-connection');
    await banner.waitFor();
    assert.match(await banner.innerText(), /^NO CONNECTION since \d\d:\d\d:\d\d/);
    assert.equal((await banner.boundingBox()).width, SIZES[1].width);
    for (const size of SIZES) {
      await page.setViewportSize(size);
      assert.deepEqual(await whoIsRead(page), ['B4', 'Hugo Brandt'], `whose numbers they were, at ${size.width}x${size.height}`);
      await picture(page, `lost-bedside-${size.width}x${size.height}`);
    }
    assert.deepEqual(await violationsIn(page), []);
    assert.match((await numbersOf(page)).nibp.note, /\d\d:\d\d · \d+/, 'a single measurement keeps its time');
    assert.equal(await page.locator('#acknowledge').isDisabled(), true);
    assert.equal(await page.locator('#mark').isVisible(), true);
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await untilLive(page);
  await until('the banner is gone', async () => !(await page.locator('#no-connection').isVisible()));
});

test('after a crash and restart of the bridge the page goes on by itself', async () => {
  await fresh();
  const page = await openAt(context, daemon, BEDSIDE);
  await untilLive(page);
  await page.evaluate(() => {
    globalThis.notReloaded = true;
  });
  const before = (await numbersOf(page)).hr.seq;
  await daemon.again();
  await until('numbers of the new run', async () => {
    const { hr } = await numbersOf(page);
    return hr.state === 'live' && hr.seq > before;
  });
  await until('its waves too', async () => (await inkOf(page, 'ecg')) > 0);
  assert.equal(await page.evaluate(() => globalThis.notReloaded), true);
});
