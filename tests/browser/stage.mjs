// What the tests of one file share: a browser, the daemon in demo mode, and windows of their own for each test.

import { after, afterEach, before } from 'node:test';
import { SIZES, launch, startDemo } from './real.mjs';

export let browser;
export let daemon;
export let context;

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
export async function fresh(options = {}) {
  await context?.close();
  context = await browser.newContext({ viewport: SIZES[1], reducedMotion: 'reduce', ...options });
}
