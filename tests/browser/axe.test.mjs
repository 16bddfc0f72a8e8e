// What axe-core finds in each state of the page, the size of targets included: `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { BEDSIDE, NEIGHBOUR, QUIET, bannerOf, whileAlarming } from './bedside.mjs';
import { SIZES, openAt, startConfigured, startWard, tokenFor, until, violationsIn } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

/** A page that is signed in as somebody who may change limits. */
async function openAsClinician(view) {
  const page = await context.newPage();
  await page.addInitScript((token) => sessionStorage.setItem('vitalbridge.token', token), await tokenFor(daemon, 'clinician'));
  await page.goto(`${daemon.origin}/${view}`);
  return page;
}

for (const size of SIZES) {
  describe(`axe finds nothing at ${size.width}x${size.height}`, () => {
    beforeEach(() => fresh({ viewport: size }));

    test('on the sign-in page, and when it refuses', async () => {
      const page = await context.newPage();
      await page.goto(daemon.origin);
      await page.locator('#sign-in').waitFor();
      assert.deepEqual(await violationsIn(page), []);
      await page.keyboard.press('Enter');
      await page.locator('#sign-in-problem').waitFor();
      assert.deepEqual(await violationsIn(page), []);
    });

    test('on the ward with alarms, on a bed with its list of alarms, in the menu', async () => {
      const ward = await openAt(context, daemon);
      const bedside = await openAt(context, daemon, BEDSIDE);
      await whileAlarming(daemon, async () => {
        await until('two beds alarm', async () => await ward.locator('.tile[data-active=true]').count() >= 2);
        assert.deepEqual(await violationsIn(ward), []);
        await ward.locator('#menu-button').click();
        await ward.locator('#menu').waitFor();
        assert.deepEqual(await violationsIn(ward), []);
        await until('the banner', () => bannerOf(bedside));
        await bedside.evaluate(() => document.getElementById('alarm-list').showPopover());
        await until('the list', () => bedside.locator('#alarms .acknowledge').first().isVisible());
        assert.deepEqual(await violationsIn(bedside), []);
      }, { patients: [QUIET, NEIGHBOUR] });
    });

    test('in the form of a limit, and in the list of alarms', async () => {
      const page = await openAsClinician(`#/limits/${QUIET}`);
      await page.locator('.limit-list button, table button').first().click();
      await page.locator('dialog[open]').waitFor();
      assert.deepEqual(await violationsIn(page), []);
      const alarms = await openAsClinician('#/alarms');
      await alarms.locator('.page-body table, .page-body .say').first().waitFor();
      assert.deepEqual(await violationsIn(alarms), []);
    });

    test('without a connection, on the ward and at a bed', async () => {
      const pages = [await openAt(context, daemon), await openAt(context, daemon, BEDSIDE)];
      for (const page of pages) await page.locator('[data-cell=hr][data-state=live]:visible').first().waitFor();
      daemon.child.kill('SIGSTOP');
      try {
        for (const page of pages) {
          await page.locator('#no-connection').waitFor();
          await until('the numbers are gone', async () => await page.locator('[data-cell=hr][data-state=lost]:visible').count() > 0);
          assert.deepEqual(await violationsIn(page), []);
        }
      } finally {
        daemon.child.kill('SIGCONT');
      }
    });
  });
}

test('axe finds nothing on an empty ward', async (t) => {
  const empty = await startConfigured('[bridge]\nid = "empty"\n');
  t.after(empty.stop);
  await fresh();
  const page = await openAt(context, empty);
  await until('it says so', async () => /No patient is assigned[\s\S]*Scan[\s\S]*\[\[patient\]\][\s\S]*restart vitalbridge/.test(await page.locator('main').innerText()));
  assert.deepEqual(await violationsIn(page), []);
});

test('axe finds nothing on 64 beds', async (t) => {
  const ward = await startWard(64);
  t.after(ward.stop);
  await fresh();
  const page = await openAt(context, ward);
  await until('all beds are live', async () => await page.locator('.cell[data-cell=hr][data-state=live]').count() === 64);
  assert.deepEqual(await violationsIn(page), []);
});
