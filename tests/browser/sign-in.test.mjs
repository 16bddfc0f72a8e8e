// Sign-in and its end in real Chromium against the real daemon: `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { signIn, untilLive } from './demo.mjs';
import { SIZES, picture, signOut, startConfigured, tokenFor, until } from './real.mjs';
import { daemon } from './stage.mjs';
import { page, trouble } from './watched.mjs';

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
  await page.locator('#sign-in-secret').fill(await tokenFor(daemon, 'nurse', { life: '15s' }));
  await page.keyboard.press('Enter');
  await untilLive(page);
  const banner = page.locator('#no-alarms');
  assert.equal(await banner.isVisible(), false);
  await until('the token has expired', () => banner.isVisible());
  assert.match(await banner.innerText(), /^NO ALARMS FROM BRIDGE since \d\d:\d\d:\d\d/);
  assert.match(await page.locator('#sign-in-problem').innerText(), /session has ended/i);
  assert.equal(await page.locator('.tile').count(), 0, 'who is not signed in sees no patient');
  assert.match(await page.title(), /^DEMO · NO ALARMS/);
  assert.equal(await page.locator('#sign-in-secret').inputValue(), '', 'the token is nobody else\'s');
  const heard = await page.evaluate(() => globalThis.tones);
  await until('it sounds again and again', async () => (await page.evaluate(() => globalThis.tones)) >= heard + 6);
  await picture(page, 'session-ended');
  await page.reload();
  await until('a page that is loaded again is not silent either', () => banner.isVisible());
  await page.locator('#sign-in-secret').fill('eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.c2lnbmF0dXJl');
  await page.keyboard.press('Enter');
  await until('a wrong token changes nothing', async () => await banner.isVisible() && /not valid/.test(await page.locator('#sign-in-problem').innerText()));
  await page.locator('#stop-watching').click();
  assert.equal(await banner.isVisible(), true, 'one touch makes nothing silent');
  assert.equal(await page.locator('#stop-watching').innerText(), 'Sign out: no alarms here');
  await until('it is still', async () => {
    await page.locator('#stop-watching').click({ timeout: 500 }).catch(() => {});
    return !(await banner.isVisible());
  });
  assert.equal(await banner.isVisible(), false, 'somebody is here and says so');
  const still = await page.evaluate(() => globalThis.tones);
  await page.reload();
  await page.locator('#sign-in').waitFor();
  assert.equal(await banner.isVisible(), false);
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.ok(still > 0);
});

test('before anybody has signed in the page says that its numbers are not of patients: of the demo, of tests, and nothing where they are', async (t) => {
  const source = (mode) => `[bridge]\nid = "b"\n[[patient]]\nid = "P-1"\nbed = "1"\n[[source]]\nid = "s"\nkind = "serial"\nport = "/dev/ttyNONE"\nprofile = "nonin-df2"\npatient = "P-1"\n${mode}`;
  const [tried, real] = [await startConfigured(source('mode = "test"\n')), await startConfigured(source(''))];
  t.after(() => Promise.all([tried.stop(), real.stop()]));
  const marked = page.locator('#sign-in-mark');
  for (const [of, mark] of [[daemon, 'DEMO'], [tried, 'TEST'], [real, '']]) {
    for (const size of SIZES) {
      await page.setViewportSize(size);
      await page.goto(of.origin);
      await page.locator('#sign-in').waitFor();
      assert.equal(await marked.isVisible(), mark !== '', `${mark} at ${size.width}`);
      if (mark) assert.equal(await marked.innerText(), `${mark} – no real patients`);
      if (mark) assert.ok((await marked.boundingBox()).y < (await page.locator('#sign-in-secret').boundingBox()).y, 'read before a code is typed');
      assert.equal(await page.title(), `${mark && `${mark} · `}Sign in – vitalbridge`);
      await picture(page, `sign-in-${mark || 'real'}-${size.width}x${size.height}`);
    }
  }
  // It is in the page itself: nothing has to be asked for, and nothing has to answer.
  await page.goto(daemon.origin);
  assert.match(await (await fetch(daemon.origin)).text(), /^<!doctype html>\s<html lang="en" data-mode="demo">/);
  // Who is in and leaves, and whose first snapshot is still to come, is told as well.
  await page.routeWebSocket(/\/ws$/, () => {});
  await page.goto(daemon.link);
  await until('a bar without numbers', async () => await page.locator('#mark').isVisible() && /^DEMO/.test(await page.locator('#mark').innerText()));
  assert.equal(await page.locator('.tile').count(), 0);
  await page.locator('#menu-button').click();
  await signOut(page, '#sign-out');
  assert.equal(await marked.isVisible(), true);
});

test('a wrong code is refused with a clear message, and a right one then opens the page', async () => {
  // Nor does one that is no address stop the page.
  await page.goto(`${daemon.origin}/#code=%zz`);
  const problem = page.locator('#sign-in-problem');
  await problem.waitFor();
  await page.goto('about:blank');
  await page.goto(`${daemon.origin}/#code=wrong-code`);
  await problem.waitFor();
  assert.match(await problem.innerText(), /code is wrong/);
  assert.equal(new URL(page.url()).hash, '');
  assert.equal(await page.locator('#app').isVisible(), false);
  await picture(page, 'sign-in');
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
  await signIn(page, daemon);
  await page.reload();
  await untilLive(page);
  await page.locator('#menu-button').click();
  await page.locator('#sign-out').click();
  assert.equal(await page.locator('#sign-in').isVisible(), false, 'the first press asks');
  assert.equal(await page.locator('#sign-out').innerText(), 'Sign out: no alarms here');
  await signOut(page, '#sign-out');
  await page.reload();
  await page.locator('#sign-in').waitFor();
  assert.equal(await page.locator('.tile').count(), 0);
});

test('signing in and out goes by keyboard alone, and the focus is seen', async () => {
  await page.goto(daemon.origin);
  await page.locator('#sign-in').waitFor();
  const focused = () => page.evaluate(() => ({ id: document.activeElement.id, text: document.activeElement.textContent, outline: getComputedStyle(document.activeElement).outlineStyle }));
  const tabTo = async (what, is) => {
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press('Tab');
      const at = await focused();
      if (is(at)) return assert.notEqual(at.outline, 'none', what);
    }
    return assert.fail(`${what} cannot be reached`);
  };
  assert.equal((await focused()).id, 'sign-in-secret', 'the field has the focus');
  await page.keyboard.type(daemon.code);
  await tabTo('Sign in', ({ text }) => text === 'Sign in');
  await page.keyboard.press('Space');
  await untilLive(page);
  await tabTo('the menu', ({ id }) => id === 'menu-button');
  await page.keyboard.press('Enter');
  await tabTo('Sign out', ({ id }) => id === 'sign-out');
  await until('signed out', async () => {
    await page.keyboard.press('Enter');
    return page.locator('#sign-in').isVisible();
  });
  assert.equal(await page.locator('.tile').count(), 0);
  assert.deepEqual(trouble, []);
});
