// Pictures of every state at every size, for people to look at: `VITALBRIDGE_BIN=... node shots.mjs [state ...]` writes shots/.

import { mkdirSync } from 'node:fs';
import { BEDSIDE, NEIGHBOUR, QUIET } from './bedside.mjs';
import { startHardWard } from './hard.mjs';
import { SIZES, WAIT_MS, changeLimit, launch, openAt, startConfigured, startDemo, startWard, until, untilOver } from './real.mjs';

const FOLDER = new URL('shots/', import.meta.url).pathname;
const FAST_BREATH = { above: 8, clear: { at_most: 6 }, delay: '0s' };

mkdirSync(FOLDER, { recursive: true });
const browser = await launch();
const wanted = process.argv.slice(2);
const isWanted = (state) => wanted.length === 0 || wanted.includes(state);

/** A picture of the view at each size; one that cannot be made does not stop the others. */
async function shoot(...wish) {
  await take(...wish).catch((cause) => {
    process.exitCode = 1;
    console.error(`${wish[1]} ${wish[2]}: ${cause.message}`);
  });
}

async function take(daemon, state, view, ready, settle = 500) {
  // A panel at a bed knows its own patient only, or its neighbour too.
  const patients = view === BEDSIDE ? [QUIET, ...(state === 'two-beds' ? [NEIGHBOUR] : [])] : [];
  const context = await browser.newContext({ reducedMotion: 'no-preference' });
  for (const size of SIZES) {
    const page = await openAt(context, daemon, view, ...patients);
    await page.setViewportSize(size);
    await page.locator('#clock').click();
    await until(`${state} at ${size.width}x${size.height}`, () => ready(page));
    await page.waitForTimeout(settle);
    const place = view === '#/' ? 'ward' : /^#.patient/.test(view) ? 'bedside' : view.split('/')[1];
    const name = `${state}-${place}-${size.width}x${size.height}.png`;
    await page.screenshot({ path: `${FOLDER}${name}` });
    await page.close();
  }
  await context.close();
  console.log(state, view);
}

const live = (page) => page.evaluate(() => document.querySelectorAll('[data-cell=hr][data-state=live]').length > 0);
const says = (text) => (page) => page.evaluate((wantedText) => document.body.innerText.includes(wantedText), text);
const alarm = (priority) => (page) => page.evaluate((level) => document.querySelector(`.alarm[data-priority=${level}][data-active=true]`) !== null, priority);

const isOpen = (page) => page.evaluate(() => document.querySelector('main.page .page-body > :not(.say)') && !document.querySelector('.page-body .say')
  && document.querySelector('.page-body table, .page-body canvas, .page-body dl') !== null);

/** Presses a button of the bedside, once it may be pressed. */
async function press(daemon, id) {
  const context = await browser.newContext();
  const page = await openAt(context, daemon, BEDSIDE, QUIET);
  await page.locator(`#${id}:not(:disabled)`).click({ timeout: WAIT_MS });
  await page.waitForTimeout(1000);
  await context.close();
}

const demo = await startDemo();
try {
  if (isWanted('normal')) for (const view of ['#/', BEDSIDE]) await shoot(demo, 'normal', view, live, 7000);
  if (['medium', 'acknowledged'].some(isWanted)) {
    await changeLimit(demo, QUIET, 'respiration_high', FAST_BREATH);
    for (const view of ['#/', BEDSIDE]) await shoot(demo, 'medium', view, alarm('medium'), 5000);
    await press(demo, 'acknowledge');
    for (const view of ['#/', BEDSIDE]) await shoot(demo, 'acknowledged', view, says('ACKNOWLEDGED'));
    await changeLimit(demo, QUIET, 'respiration_high');
    await untilOver(demo, QUIET, ['respiration_high']);
  }
  if (['high', 'paused', 'latched'].some(isWanted)) {
    await changeLimit(demo, QUIET, 'heart_rate_high', { above: 52, clear: { at_most: 51 } });
    for (const view of ['#/', BEDSIDE]) await shoot(demo, 'high', view, alarm('high'), 5000);
    await press(demo, 'pause');
    // Two minutes, and the machine may be busy: the bed first.
    for (const view of [BEDSIDE, '#/']) await shoot(demo, 'paused', view, says('AUDIO PAUSED'));
    await changeLimit(demo, QUIET, 'heart_rate_high');
    for (const view of ['#/', BEDSIDE]) await shoot(demo, 'latched', view, says('over, not yet seen'));
    await press(demo, 'acknowledge');
  }
  if (isWanted('two-beds')) {
    for (const patient of [QUIET, NEIGHBOUR]) await changeLimit(demo, patient, 'respiration_high', FAST_BREATH);
    await shoot(demo, 'two-beds', BEDSIDE, (page) => page.locator('#elsewhere').isVisible(), 3000);
    for (const patient of [QUIET, NEIGHBOUR]) await changeLimit(demo, patient, 'respiration_high');
  }
  if (isWanted('pages')) {
    for (const view of [`#/trends/${QUIET}`, '#/alarms', `#/limits/${QUIET}`, '#/devices', '#/system']) await shoot(demo, 'pages', view, isOpen, 2000);
    for (const size of SIZES) {
      const page = await browser.newPage({ viewport: size });
      await page.goto(demo.origin);
      await page.locator('#sign-in').waitFor();
      await page.screenshot({ path: `${FOLDER}sign-in-${size.width}x${size.height}.png` });
      await page.close();
    }
  }
  if (['stale', 'no-connection'].some(isWanted)) {
    const contexts = [];
    for (const view of ['#/', BEDSIDE]) for (const size of SIZES) {
      const context = await browser.newContext({ viewport: size });
      const page = await openAt(context, demo, view);
      contexts.push({ context, page, name: `${view === '#/' ? 'ward' : 'bedside'}-${size.width}x${size.height}.png` });
      // One user has five windows at once; the others look on without the bridge's leave.
      await until('live', () => live(page));
      if (contexts.length === 5 || (view === BEDSIDE && size === SIZES.at(-1))) {
        await page.waitForTimeout(4000);
        demo.child.kill('SIGSTOP');
        await page.waitForTimeout(7000);
        for (const shot of contexts) await shot.page.screenshot({ path: `${FOLDER}stale-${shot.name}` });
        await page.waitForTimeout(6000);
        for (const shot of contexts) await shot.page.screenshot({ path: `${FOLDER}no-connection-${shot.name}` });
        demo.child.kill('SIGCONT');
        for (const shot of contexts.splice(0)) await shot.context.close();
      }
    }
    console.log('stale, no-connection');
  }
} finally {
  await demo.stop();
}
if (isWanted('sensor-off')) {
  const ward = await startHardWard();
  for (const view of ['#/', '#/patient/P-1']) await shoot(ward, 'sensor-off', view, says('sensor off'), 15_000);
  await ward.stop();
}
if (isWanted('empty')) {
  const empty = await startConfigured('[bridge]\nid = "bridge"\n');
  await shoot(empty, 'empty', '#/', says('No patient is assigned'));
  await empty.stop();
}
if (isWanted('64-beds')) {
  const ward = await startWard(64);
  await shoot(ward, '64-beds', '#/', (page) => page.evaluate(() => document.querySelectorAll('.cell[data-cell=hr][data-state=live]').length === 64), 2000);
  await ward.stop();
}
await browser.close();
