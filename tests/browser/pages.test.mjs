// The pages beside the ward in real Chromium against the real daemon: alarms, limits, devices, system, and the way in.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { api, context, daemon, drawnIn, forgetTokens, freshWindow, openPage, origin, page, signOut, stateDir, tokenFor, trouble, visit } from './pages.mjs';
import { SIZES, picture, run, startConfigured, tokenFor as issue, until, violationsIn } from './real.mjs';

describe('alarms', () => {
  test('an alert that the list shows is confirmed as shown', async () => {
    const screen = await visit('#/alarms', 'viewer');
    // What a reader of the list sees counts, and nothing of the ward's tiles is in sight.
    const check = async () => (await api('/api/v1/alerts')).body.alerts.filter(({ rule }) => rule === 'alert_undelivered');
    await until('the row is there', async () => await screen.locator('.present tbody tr').count() > 0);
    const told = await screen.evaluate(() => new Promise((resolve, reject) => {
      // The page's own connection, by what it hears.
      const { prototype } = EventTarget;
      const { dispatchEvent } = prototype;
      prototype.dispatchEvent = function heard(event) {
        if (event.type === 'alert_system' && event.detail.data.alerts.some(({ delivery }) => delivery === 'shown')) {
          prototype.dispatchEvent = dispatchEvent;
          resolve(event.detail.data);
        }
        return dispatchEvent.call(this, event);
      };
      setTimeout(() => reject(new Error('no alert is shown')), 25_000);
    }));
    assert.ok(told.alerts.some(({ delivery }) => delivery === 'shown'));
    assert.deepEqual(await check(), []);
  });

  test('an alert stands with its time, is acknowledged here, and its life says by whom', async () => {
    await visit('#/alarms', 'nurse');
    const row = page.locator('.present tbody tr', { hasText: 'Heart rate' });
    await until('it stands', async () => await row.count() === 1);
    assert.match(await row.innerText(), /\*\* medium[\s\S]*Bed 2 · Bo Falk[\s\S]*\d\d:\d\d:\d\d/);
    await row.getByRole('button', { name: /^Acknowledge: Bed 2/ }).click();
    await until('it is acknowledged', async () => /ACKNOWLEDGED by nurse-1/.test(await row.innerText()));
    const past = page.locator('.past tbody tr', { hasText: 'Heart rate' });
    await until('the list says by whom', async () => /nurse-1 at \d\d:\d\d:\d\d/.test(await past.innerText()));
    await past.locator('summary').click();
    await until('its life', async () => /acknowledged by nurse-1/.test(await past.locator('ol').innerText()));
    await page.getByLabel('Priority').selectOption('high');
    assert.equal(await past.count(), 0, 'a filter leaves out what is not meant');
    await page.getByLabel('Priority').selectOption('medium');
    assert.equal(await past.count(), 1);
    await page.getByLabel('About').selectOption('technical');
    assert.equal(await past.count(), 0);
    assert.deepEqual(trouble, []);
  });

  test('who may not acknowledge is told so', async () => {
    await visit('#/alarms', 'viewer');
    await until('the row is there', async () => await page.locator('.present tbody tr').count() > 0);
    assert.equal(await page.locator('.present button').count(), 0);
  });

  test('the audit trail is for those whose token has it', async () => {
    await visit('#/alarms?audit');
    const rows = page.locator('tbody tr');
    await until('rows', async () => await rows.count() > 0);
    assert.match(await rows.first().innerText(), /\d\d:\d\d:\d\d/);
    await page.getByLabel('Search in what was read').fill('no such thing');
    await until('the search leaves out', async () => await rows.count() === 0);
    await freshWindow();
    await visit('#/alarms?audit', 'nurse', { patients: ['P-1'] });
    await until('why there is none', async () => /does not show the audit trail/.test(await page.locator('main.page').innerText()));
  });
});

describe('limits', () => {
  test('a change with its reason is in force, seen in another window at once, and taken back again', async () => {
    await visit('#/limits/P-1');
    const other = await openPage();
    await visit('#/limits/P-1', 'nurse', { to: other });
    const row = (from) => from.locator('tr[data-rule="spo2_low"]');
    await until('what is in force', async () => /below 90 %/.test(await row(other).innerText()));
    await row(page).getByRole('button').click();
    await page.getByLabel('Alarm below (%)').fill('87');
    await page.getByLabel('Reason').fill('COPD, target 88-92');
    await page.getByLabel('Ends after').selectOption('4');
    await page.getByRole('button', { name: 'Put in force' }).click();
    await until('the other window has it', async () => {
      const text = await row(other).innerText();
      return /below 87 %/.test(text) && /clinician-1/.test(text) && /COPD, target 88-92/.test(text) && /\d\d:\d\d:\d\d/.test(text);
    });
    assert.match(await other.locator('.limit-list > .quiet-text').innerText(), /SpO₂ low set: below 87 %.* by clinician-1 \(COPD, target 88-92\)/);
    const { body } = await api('/api/v1/patients/P-1/limits/spo2_low');
    assert.deepEqual([body.low, body.source, body.decision.by, body.decision.reason], [87, 'runtime', 'clinician-1', 'COPD, target 88-92']);
    const hours = (body.decision.expires - Date.now()) / 3_600_000;
    assert.ok(hours > 3.9 && hours <= 4, `${hours} h`);
    await row(page).getByRole('button').click();
    await page.getByLabel('Reason').fill('weaned');
    await page.getByRole('button', { name: /Back to the rule/ }).click();
    await until('the rule\'s own limits', async () => /below 90 %/.test(await row(other).innerText()) && /built in/.test(await row(other).innerText()));
    assert.deepEqual(trouble, []);
  });

  test('what the bridge refuses stands at its field', async () => {
    await visit('#/limits/P-1');
    await page.locator('tr[data-rule="spo2_low"] button').click();
    await page.getByLabel('Alarm below (%)').fill('101');
    await page.getByRole('button', { name: 'Put in force' }).click();
    const reason = page.getByLabel('Reason');
    await until('the reason is missing', async () => await reason.getAttribute('aria-invalid') === 'true');
    const problemOf = (field) => field.evaluate((input) => document.getElementById(`${input.id}-problem`).textContent);
    assert.match(await problemOf(reason), /1 to 200 bytes/);
    const level = page.getByLabel('Alarm below (%)');
    assert.match(await problemOf(level), /101 is outside 1 to 100/);
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-invalid')), 'true', 'the first of them has the focus');
    assert.equal(await page.locator('dialog').isVisible(), true);
    assert.equal((await api('/api/v1/patients/P-1/limits/spo2_low')).body.low, 90);
  });

  test('ALARM OFF has an end of at most a day, stands here and on the ward, and is switched on again', async () => {
    await visit('#/limits/P-1');
    const row = page.locator('tr[data-rule="heart_rate_low"]');
    await row.getByRole('button').click();
    await page.getByLabel('ALARM OFF for a while').check();
    assert.equal(await page.getByLabel('Alarm below (bpm)').isVisible(), false);
    assert.equal(await page.locator('dialog select option[value="168"]').isDisabled(), true);
    await page.getByLabel('Reason').fill('pacemaker test');
    await page.getByLabel('Ends after').selectOption('24');
    await page.getByRole('button', { name: 'Put in force' }).click();
    await until('ALARM OFF', async () => /ALARM OFF/.test(await row.innerText()) && /pacemaker test/.test(await row.innerText()));
    await page.getByRole('link', { name: 'Ward', exact: true }).click();
    await until('the tile says so', async () => /ALARM OFF heart rate low/.test(await page.locator('.tile[data-patient=P-1] .off').innerText()));
    await page.goBack();
    await row.getByRole('button').click();
    await page.getByLabel('Reason').fill('done');
    await page.getByRole('button', { name: 'Switch the alarm on' }).click();
    await until('it is on', async () => !/ALARM OFF/.test(await row.innerText()));
    assert.deepEqual(trouble, []);
  });

  test('a role that may not change them reads them, and is told why there is no button', async () => {
    for (const role of ['viewer', 'nurse']) {
      await page.evaluate(() => sessionStorage.clear()).catch(() => {});
      await visit('#/limits/P-1', role);
      await until('the limits', async () => await page.locator('tr[data-rule="spo2_low"]').count() === 1);
      assert.equal(await page.locator('.limit-list button').count(), 0);
      assert.match(await page.locator('.page-note').innerText(), new RegExp(`takes a clinician or an admin; you are signed in as ${role}-1`));
    }
    const { status } = await api('/api/v1/patients/P-1/limits/spo2_low', 'nurse', { method: 'PUT', body: JSON.stringify({ below: 80, reason: 'x', expires: new Date(Date.now() + 60_000).toISOString() }) });
    assert.equal(status, 403, 'the bridge itself refuses as well');
  });
});

describe('devices and system', () => {
  test('each device has its state, battery, signal and when it was heard; a scan without a radio says why', async () => {
    await visit('#/devices');
    const row = page.locator('tr[data-device="oximeter"]');
    await until('the oximeter', async () => await row.count() === 1);
    await until('it is live', async () => /live/.test(await row.innerText()) && /\d+ s ago/.test(await row.innerText()));
    assert.match(await row.innerText(), /Bed 1 · Ada Winter[\s\S]*unknown/, 'nobody knows its battery');
    await page.getByText('How a sensor is added').click();
    assert.match(await page.locator('.help-steps').innerText(), /configuration of the bridge is a file, and this page does not write it/);
    await page.getByRole('button', { name: 'Scan', exact: true }).click();
    await until('the scan has ended', async () => /^(Scan failed: .{10}|Scan is done)/.test(await page.locator('section[aria-labelledby=add-title] .quiet-text').innerText()));
    await signOut();
    await visit('#/devices', 'viewer');
    assert.equal(await page.getByRole('button', { name: 'Scan', exact: true }).count(), 0);
    assert.match(await page.locator('section[aria-labelledby=add-title]').innerText(), /takes a clinician or an admin/);
  });

  const factOf = (from) => (name) => from.locator('.fact', { has: from.getByText(name, { exact: true }) }).locator('dd');

  test('the system page says for how long the bridge runs, how full the disk is and what there is of a broker, to every role', async () => {
    const fact = factOf(page);
    for (const role of ['admin', 'viewer']) {
      await visit('#/system', role);
      await until('the bridge is ready', async () => await fact('State').innerText() === 'ready');
      assert.match(await fact('Version').innerText(), /^\d+\.\d+\.\d+/);
      assert.match(await fact('Running for').innerText(), /^\d+ (s|min)$/);
      await until('the disk was looked at', async () => /^\d+ % used\s+[\d.]+ [kMG]B free$/.test(await fact('Disk').innerText()));
      assert.match(await fact('Log').innerText(), /^[\d.]+ [kMG]B of [\d.]+ [kMG]B$/);
      // The first minute of a run says nothing of how fast the log grows.
      assert.match(await fact('Log full').innerText(), /^(unknown|in \d+ (min|h|d))/);
      assert.match(await fact('Connection').innerText(), /^no broker configured/);
      assert.equal(await fact('Buffer').count(), 0, 'nothing waits for a broker that there is not');
      assert.equal(await fact('This browser').innerText(), 'agrees');
      if (role === 'admin') assert.match(await page.locator('table tbody').innerText(), /admin-1/, 'an admin sees who is connected');
      else assert.equal(await page.locator('table').count(), 0);
      await signOut();
    }
    assert.deepEqual(trouble, []);
  });

  test('a broker that was never reached is told from none, and why is for administrators', async () => {
    const port = await new Promise((resolve) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const { port: free } = server.address();
        server.close(() => resolve(free));
      });
    });
    const alone = await startConfigured(`[bridge]\nid = "alone"\n[mqtt]\nbroker = "mqtt://127.0.0.1:${port}"\n[[patient]]\nid = "P-1"\nbed = "1"\n`);
    try {
      const other = await context.newPage();
      const connection = factOf(other)('Connection');
      for (const [role, expected] of [['admin', /^not reached since the start of the bridge\s+\S+/], ['nurse', /^not reached since the start of the bridge$/]]) {
        await other.goto(alone.origin);
        await other.evaluate((token) => sessionStorage.setItem('vitalbridge.token', token), await issue(alone, role));
        await other.goto(`${alone.origin}/#/system`);
        await other.reload();
        await until(`what a ${role} is told`, async () => await connection.count() === 1 && expected.test(await connection.innerText()));
      }
    } finally {
      await alone.stop();
    }
  });
});

describe('the way in', () => {
  test('a token or a code is never in the address, the history or another page\'s referrer', async () => {
    const code = /#code=(\S+)/.exec(await run('token', 'code', '--state-dir', stateDir, '--role', 'nurse', '--user', 'nurse-2'))?.[1];
    assert.ok(code, 'a sign-in link');
    const urls = [];
    page.on('framenavigated', (frame) => urls.push(frame.url()));
    page.on('request', (request) => urls.push(request.url()));
    await page.goto(`${origin}/#code=${code}`);
    await page.locator('.tile').first().waitFor();
    for (const hash of ['#/alarms', '#/system', '#/']) {
      await page.evaluate((to) => {
        location.hash = to;
      }, hash);
      await page.waitForURL((url) => url.hash === hash);
    }
    const token = await page.evaluate(() => sessionStorage.getItem('vitalbridge.token'));
    assert.ok(token.length > 40);
    assert.ok(!urls.some((url) => url.includes(token)), 'no address ever had the token');
    // The entry that had the code was replaced, not left.
    for (let back = 0; back < 4; back += 1) {
      await page.goBack({ waitUntil: 'commit' }).catch(() => null);
      assert.ok(!page.url().includes(code) && !page.url().includes(token), page.url());
      if (!page.url().startsWith(origin)) break;
      const kept = await page.evaluate(() => document.cookie + JSON.stringify(localStorage));
      assert.ok(!kept.includes(token) && !kept.includes(code), kept);
    }
    // A code works once.
    const second = await openPage();
    await second.goto(`${origin}/#code=${code}`);
    await until('it is refused', async () => /wrong, already used or too old/.test(await second.locator('#sign-in-problem').innerText()));
    assert.equal(new URL(second.url()).hash, '');
  });

  test('a token that is taken back leaves no page behind it, and an expired one is refused', async () => {
    await visit('#/limits/P-1', 'viewer');
    await page.locator('tr[data-rule="spo2_low"]').waitFor();
    const { status } = await api('/api/v1/tokens/revoke', 'admin', { method: 'POST', body: JSON.stringify({ user: 'viewer-1' }) });
    assert.equal(status, 200);
    await until('the session has ended', () => page.locator('#sign-in').isVisible());
    assert.equal(await page.locator('main.page').count(), 0, 'who is not signed in sees no patient');
    forgetTokens();
    const short = await tokenFor('clinician', { life: '1s' });
    await until('it is over', async () => (await fetch(`${origin}/api/v1/patients`, { headers: { Authorization: `Bearer ${short}` } })).status === 401);
    await page.locator('#sign-in-secret').fill(short);
    await page.keyboard.press('Enter');
    await until('the old one is refused', async () => /not valid here, or it has expired/.test(await page.locator('#sign-in-problem').innerText()));
    assert.equal(await page.locator('.tile').count(), 0);
  });

  test('a token for one patient opens the page with this patient alone', async () => {
    await visit('#/limits/P-2', 'nurse', { patients: ['P-2'] });
    await page.locator('tr[data-rule="spo2_low"]').waitFor();
    assert.equal(await page.locator('.tile').count(), 1);
    assert.equal(await page.locator('.tile').getAttribute('data-patient'), 'P-2');
    assert.deepEqual(trouble, []);
  });

  test('an address of nobody\'s says so, and a patient of somebody else\'s is as one who does not exist', async () => {
    await visit('#/trends/P-1', 'nurse', { patients: ['P-2'] });
    await until('no such patient', async () => /no such patient/.test(await page.locator('main.page').innerText()));
    await page.evaluate(() => {
      location.hash = '#/nowhere/%E0%A4%A';
    });
    await until('no such page', async () => /no page of this address/.test(await page.locator('main.page').innerText()));
    assert.deepEqual(trouble, []);
  });
});

describe('for everybody', () => {
  const ROUTES = ['#/trends/P-2', '#/trends/P-2?nibp', '#/alarms', '#/alarms?audit', '#/limits/P-1', '#/devices', '#/system'];
  for (const size of SIZES) {
    test(`${size.width}x${size.height}: axe finds nothing, nothing goes sideways, all can be pressed with a finger`, async () => {
      await page.setViewportSize(size);
      await visit('#/alarms', 'admin');
      for (const route of ROUTES) {
        await page.evaluate((to) => {
          location.hash = to;
        }, route);
        const name = route.split(/[/?]/)[1];
        await page.locator(`main.page[data-page=${name}] .page-body > :not(.say)`).first().waitFor();
        await until(`${route} is there`, () => page.evaluate(() => !document.querySelector('.page-body .say') && document.querySelectorAll('.page-body table, .page-body canvas, .page-body dl').length > 0));
        await picture(page, `${route.replace(/\W+/g, '-').slice(1)}-${size.width}x${size.height}`);
        assert.deepEqual(await violationsIn(page), [], route);
        const layout = await page.evaluate(() => ({
          sideways: document.documentElement.scrollWidth > innerWidth || document.querySelector('.page-body').scrollWidth > document.querySelector('.page-body').clientWidth + 1,
          small: [...document.querySelectorAll('.page button, .page select, .page input, .page nav a')].filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 47).map((one) => one.outerHTML.slice(0, 80)),
        }));
        assert.deepEqual(layout, { sideways: false, small: [] }, route);
      }
      assert.deepEqual(trouble, []);
    });
  }

  test('by keyboard alone: from the ward\'s address to the limits, through the form and back', async () => {
    await visit('#/limits/P-1');
    await until('the heading has the focus', () => page.evaluate(() => document.activeElement?.classList.contains('page-title')));
    const rule = () => page.evaluate(() => document.activeElement?.closest('tr')?.dataset.rule);
    await until('tab reaches the rule', async () => {
      await page.keyboard.press('Tab');
      return await rule() === 'spo2_low';
    });
    await page.keyboard.press('Enter');
    const inDialog = () => page.evaluate(() => Boolean(document.activeElement?.closest('dialog')));
    await until('the form has the focus', inDialog);
    // Every part of the form is reached, and the banner of alarms is not covered by it.
    const reached = new Set();
    for (let press = 0; press < 9 && await inDialog(); press += 1) {
      reached.add(await page.evaluate(() => document.activeElement.labels?.[0]?.textContent ?? document.activeElement.textContent));
      await page.keyboard.press('Tab');
    }
    for (const name of ['Other limits', 'Alarm below (%)', 'For at least (s)', 'Reason', 'Ends after', 'Put in force', 'Cancel']) assert.ok(reached.has(name), `${name} in ${[...reached]}`);
    await page.getByLabel('Reason').focus();
    await page.keyboard.press('Escape');
    await until('it is closed and the button has the focus', async () => await rule() === 'spo2_low');
    // A focus can be seen.
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
    await page.evaluate(() => {
      location.hash = '#/trends/P-2';
    });
    await until('a chart is drawn', async () => (await drawnIn('RESP'))?.x.length > 2);
    await page.locator('.chart[data-chart="RESP"] .chart-box').focus();
    for (const key of ['End', 'ArrowLeft']) await page.keyboard.press(key);
    await until('a time is read aloud', async () => /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(await page.locator('.trend-at').innerText()));
    const before = await page.locator('.trend-at').innerText();
    await page.keyboard.press('PageUp');
    await until('and another one', async () => await page.locator('.trend-at').innerText() !== before);
    assert.deepEqual(trouble, []);
  });

  test('without a connection a page says that what stands on it is old', async () => {
    await visit('#/alarms');
    daemon.child.kill('SIGSTOP');
    try {
      await until('it says so', async () => /NO CONNECTION: what stands here was last known at \d\d:\d\d:\d\d/.test(await page.locator('.page-old').innerText()));
    } finally {
      daemon.child.kill('SIGCONT');
    }
    await until('it is over', async () => !(await page.locator('.page-old').isVisible()));
  });
});
