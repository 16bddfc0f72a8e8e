// The trends in real Chromium against the real daemon: `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { api, context, drawnIn, page, plugIn, trouble, unplug, visit } from './pages.mjs';
import { begin, openAt, picture, startConfigured, until } from './real.mjs';

/** A continuous number is lost after this (the default rules), in ms. */
const LOST_MS = 10_000;
/** The colour of its line. */
const SPO2 = [16, 180, 234];
const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-trends-'));
/** Where an oximeter of a bridge of its own is plugged in. */
const line = join(dir, 'oximeter');

after(() => rmSync(dir, { recursive: true, force: true }));

/** The places of a stream's numbers with no end of the line between them, and how long that is. */
function joined({ x, y, streams }, metric) {
  const line = y[streams.findIndex((stream) => stream.startsWith(`${metric}|`))] ?? [];
  const found = [];
  let before;
  line.forEach((value, at) => {
    if (value === null) before = undefined;
    else if (typeof value === 'number') {
      if (before !== undefined) found.push(x[at] - before);
      before = x[at];
    }
  });
  return found;
}

describe('trends', () => {
  test('a source that stopped leaves a gap: no line joins what was before it and what came after', async () => {
    await visit('#/trends/P-1');
    const numbers = async () => {
      const chart = await drawnIn('SpO₂');
      return chart?.streams.length > 0 && chart.y[0].filter((value) => typeof value === 'number').length > 2 && chart;
    };
    await until('the oximeter is drawn', numbers);
    await unplug();
    const stoppedAt = performance.now();
    await until('the bridge has lost it', async () => performance.now() - stoppedAt > LOST_MS + 5000
      && (await api('/api/v1/devices?patient=P-1')).body.devices.every(({ link }) => link !== 'live'));
    const key = page.locator('.chart[data-chart="SpO₂"] .chart-key');
    assert.match(await key.innerText(), /---/, 'an old number is not shown as one of now');
    await plugIn();
    const gapOf = async () => (await drawnIn('SpO₂')).gaps[0]?.find(({ from, to }) => to - from > LOST_MS);
    const gap = await until('the line goes on after a gap', gapOf);
    await until('a number of now', async () => /oximeter \d+$/.test(await key.innerText()));
    // The log says the same as what came live.
    await page.reload();
    await page.locator('main.page').waitFor();
    await until('the gap is there after a reload', async () => {
      const again = await drawnIn('SpO₂');
      return again?.gaps[0]?.some(({ from, to }) => Math.abs(from - gap.from) < 5000 && Math.abs(to - gap.to) < 5000);
    });
    const chart = await until('there are lines to look at', async () => {
      const now = await drawnIn('SpO₂');
      return joined(now, 'spo2').length > 3 && now;
    });
    assert.deepEqual(joined(chart, 'spo2').filter((ms) => ms > LOST_MS), [], 'no line is longer than a sensor may be silent');
    assert.match(await page.locator('.chart[data-chart="SpO₂"] .chart-box').getAttribute('aria-label'), /[1-9]\d* gaps?/);
    await picture(page, 'trends-gap');
    assert.deepEqual(trouble, []);
  });

  test('alerts are bands, limits are lines, the cuff has marks and a history', async () => {
    await visit('#/trends/P-2');
    const heart = await until('the alert is a band', async () => {
      const chart = await drawnIn('HR / PR');
      return chart?.bands.length > 0 && chart;
    });
    assert.equal(heart.bands[0].rule, 'heart_rate_high');
    assert.deepEqual(heart.lines.filter(({ side }) => side === 'high').map(({ level }) => level).sort((a, b) => a - b), [120, 140]);
    assert.match(await page.locator('.alert-lane').getAttribute('aria-label'), /^\d+ alerts? in this time$/);
    await page.getByRole('link', { name: 'NIBP history' }).click();
    const rows = page.locator('.nibp tbody tr');
    await until('both measurements, and the cuff that gave none', async () => await rows.count() === 3);
    assert.match(await rows.first().innerText(), /132\/85/, 'the newest first');
    assert.match(await rows.nth(1).innerText(), /---[\s\S]*zero reported/);
    assert.match(await rows.nth(2).innerText(), /121\/79\s+93/);
    const cuff = await until('the cuff is drawn', async () => {
      const chart = await drawnIn('NIBP');
      return chart?.streams.length === 3 && chart;
    });
    assert.deepEqual(cuff.streams.map((stream) => stream.split('|')[0]), ['blood_pressure.systolic', 'blood_pressure.diastolic', 'blood_pressure.mean']);
    assert.equal(await page.locator('[data-span="86400000"]').getAttribute('aria-pressed'), 'true');
    assert.deepEqual(trouble, []);
  });

  test('every time can be chosen, zoomed and left again, and the readings of it are a file', async () => {
    await visit('#/trends/P-2');
    for (const text of ['6 h', '24 h', '3 d', '7 d', '1 h']) {
      await page.getByRole('button', { name: text, exact: true }).click();
      await until(`${text} is shown`, async () => await page.getByRole('button', { name: text, exact: true }).getAttribute('aria-pressed') === 'true'
        && await page.locator('.trend-says').innerText() === '');
    }
    await until('something is drawn', async () => (await drawnIn('RESP'))?.x.length > 2);
    const box = await page.locator('.chart[data-chart="RESP"] .u-over').boundingBox();
    await page.mouse.move(box.x + box.width * 0.5, box.y + 20);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.75, box.y + 24, { steps: 4 });
    await page.mouse.up();
    await until('a quarter of an hour', async () => !/now$/.test(await page.locator('.trend-when').innerText()));
    const [from, to] = (await page.locator('.trend-when').innerText()).split(' – ').map((text) => Date.parse(text));
    assert.ok(Math.abs((to - from) - 900_000) < 20_000, `${to - from} ms`);
    await page.getByRole('button', { name: 'Now' }).click();
    await until('the present', async () => /now$/.test(await page.locator('.trend-when').innerText()));
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: /^Download CSV/ }).click()]);
    const lines = readFileSync(await download.path(), 'utf8').split('\r\n');
    assert.match(lines[0], /^epoch,seq,timestamp/);
    assert.ok(lines.some((line) => line.includes(',P-2,') && line.includes(',heart_rate,')), lines.slice(0, 3).join('\n'));
    assert.match(download.suggestedFilename(), /^P-2-\d{8}T\d{6}Z-\d{8}T\d{6}Z\.csv$/);
    assert.deepEqual(trouble, []);
  });

  test('the file of the readings is had by keyboard alone', async () => {
    await visit('#/trends/P-2');
    await until('something is drawn', async () => (await drawnIn('RESP'))?.x.length > 2);
    await until('tab reaches the button', async () => {
      await page.keyboard.press('Tab');
      return page.evaluate(() => document.activeElement.matches('button.csv:focus-visible'));
    });
    const [download] = await Promise.all([page.waitForEvent('download'), page.keyboard.press('Enter')]);
    assert.match(download.suggestedFilename(), /^P-2-.*\.csv$/);
    assert.deepEqual(trouble, []);
  });

  test('the live end goes on by itself', async () => {
    await visit('#/trends/P-2');
    const last = async () => (await drawnIn('HR / PR'))?.x.at(-1) ?? 0;
    const first = await until('something is drawn', last);
    await until('newer readings are drawn', async () => await last() > first + 3000);
  });
});

/** How many pixels of a colour a chart has within so many columns of each of these moments. */
const inkAt = (from, name, moments, colour, columns) => from.evaluate(async ([chart, times, [red, green, blue], reach]) => {
  const canvas = document.querySelector(`.chart[data-chart="${chart}"] canvas`);
  const over = document.querySelector(`.chart[data-chart="${chart}"] .u-over`).getBoundingClientRect();
  const { left } = canvas.getBoundingClientRect();
  const { drawn } = await import('/trends.js');
  const { span } = drawn().find((one) => one.name === chart);
  const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return times.map((at) => {
    const middle = Math.round((over.left - left + over.width * (at - span.from) / (span.to - span.from)) * devicePixelRatio);
    let ink = 0;
    for (let x = middle - reach; x <= middle + reach; x += 1) for (let y = 0; y < height; y += 1) {
      const place = 4 * (y * width + x);
      if (data[place + 3] > 120 && Math.hypot(data[place] - red, data[place + 1] - green, data[place + 2] - blue) < 60) ink += 1;
    }
    return ink;
  });
}, [name, moments, colour, columns]);

describe('what a device kept', () => {
  test('stands at the time of its measurement, each marked as backfilled, with nothing drawn where it kept nothing', async () => {
    const MINUTE_MS = 60_000;
    const now = Math.floor(Date.now() / 1000) * 1000;
    // Ten minutes, then ten of nothing, then ten more, as the log tells of them: the serial lines of these tests have no device that keeps anything.
    const minutes = [...Array(11).keys(), ...Array.from({ length: 11 }, (_, at) => 20 + at)];
    const kept = minutes.map((minute) => ({ at: now - 35 * MINUTE_MS + minute * MINUTE_MS, spo2: 92 + (minute % 5) }));
    const asLogged = ({ at, spo2 }) => ({ timestamp: new Date(at).toISOString(), patient_id: 'P-1', device_id: 'memory', metric: 'spo2', value: spo2, late: true });
    await context.route('**/api/v1/readings?*', async (route) => {
      const response = await route.fetch();
      const answer = await response.json();
      const asked = new URL(route.request().url()).searchParams;
      const among = ({ at }) => Date.parse(asked.get('from')) <= at && at < Date.parse(asked.get('to'));
      await route.fulfill({ response, json: { ...answer, every_ms: 1000, points: [...answer.points ?? [], ...kept.filter(among).map(asLogged)] } });
    });
    const trends = await visit('#/trends/P-1');
    const memory = ({ streams }) => streams.indexOf('spo2|memory');
    const chart = await until('all that was kept', async () => {
      const found = await drawnIn('SpO₂');
      return found && memory(found) >= 0 && found.late[memory(found)].filter(Boolean).length === kept.length && found;
    });
    const line = memory(chart);
    const shown = chart.x.map((at, index) => ({ at, spo2: chart.y[line][index] })).filter(({ spo2 }) => typeof spo2 === 'number');
    assert.deepEqual(shown.map(({ at, spo2 }) => [at, spo2]), kept.map(({ at, spo2 }) => [at, spo2]), 'at the time of the measurement, not of its arrival');
    const orange = [255, 159, 67];
    const marks = await inkAt(trends, 'SpO₂', kept.map(({ at }) => at), orange, 5);
    assert.ok(marks.every((ink) => ink > 8), `a diamond at each: ${marks}`);
    assert.ok((await inkAt(trends, 'SpO₂', kept.map(({ at }) => at), SPO2, 5)).some((ink) => ink > 0), 'the line has this colour');
    const empty = Array.from({ length: 7 }, (_, at) => now - 35 * MINUTE_MS + (12 + at) * MINUTE_MS);
    assert.deepEqual([await inkAt(trends, 'SpO₂', empty, orange, 5), await inkAt(trends, 'SpO₂', empty, SPO2, 5)], [empty.map(() => 0), empty.map(() => 0)], 'nothing joins what was before and after');
    assert.ok(chart.gaps[line].some(({ from, to }) => from === kept[10].at && to === kept[11].at), JSON.stringify(chart.gaps));
    // Whoever points at one is told.
    const box = await trends.locator('.chart[data-chart="SpO₂"] .u-over').boundingBox();
    await trends.mouse.move(box.x + box.width * (kept[5].at - chart.span.from) / (chart.span.to - chart.span.from), box.y + 10);
    await until('it says so', async () => /measured earlier/.test(await trends.locator('.chart[data-chart="SpO₂"] .chart-key').innerText()));
    await picture(trends, 'trends-backfilled');
    await context.unrouteAll({ behavior: 'ignoreErrors' });
  });
});

/** A bed with an oximeter that is silent for 7 s once; a number is lost after `lost`. */
async function startSilent(lost) {
  const started = await startConfigured('[bridge]\nid = "silent"\n[alerts]\nrules = "rules.toml"\n[[patient]]\nid = "P-1"\nbed = "1"\n'
    + `[[source]]\nid = "oximeter"\nkind = "serial"\nport = "${line}"\nprofile = "nonin-df2"\npatient = "P-1"\nmode = "test"\n`, {
    'rules.toml': `[[rule]]\nid = "no_signal"\nkind = "technical"\npriority = "low"\nwhen = { no_valid_for = "${lost}" }\n`,
    'silent.toml': '[[step]]\nat = "8s"\npause = "7s"\n',
  });
  const silent = begin('emulate', '--profile', 'nonin-df2', '--pty', line, '--scenario', join(started.dir, 'silent.toml'));
  return { ...started, stop: () => silent.kill().then(started.stop) };
}

describe('how long a sensor may be silent is the rule\'s', () => {
  test('with a rule of 3 s a silence of 7 s is a gap in the trend', async (t) => {
    const silent = await startSilent('3s');
    t.after(silent.stop);
    const trends = await openAt(context, silent, '#/trends/P-1');
    const chart = await until('what came after the silence', async () => {
      const drawn = await drawnIn('SpO₂', trends);
      return drawn?.streams.length > 0 && drawn.x.length > 9 && drawn.x.at(-1) - drawn.x[0] > 17_000 && drawn;
    });
    const gaps = chart.gaps[0].map(({ from, to }) => to - from);
    assert.ok(gaps.some((ms) => ms > 6000 && ms < 10_000), `${gaps}`);
    assert.deepEqual(joined(chart, 'spo2').filter((ms) => ms > 3000), []);
  });

  test('with a rule of 100 s a device of which no link is known still delivers after 12 s', async (t) => {
    const silent = await startSilent('100s');
    t.after(silent.stop);
    // No source of these tests hides its link, and no test waits until a number is old.
    await context.route('**/api/v1/devices*', (route) => route.fulfill({ json: { devices: [] } }));
    await context.route('**/api/v1/readings/latest*', async (route) => {
      const response = await route.fetch();
      const answer = await response.json();
      await route.fulfill({ response, json: { ...answer, readings: answer.readings.map((reading) => ({ ...reading, age_ms: 12_000 })) } });
    });
    const devices = await openAt(context, silent, '#/devices');
    await until('the device', async () => await devices.locator('.link-state').count() > 0);
    assert.equal(await devices.locator('.link-state').first().innerText(), 'delivers');
  });
});
