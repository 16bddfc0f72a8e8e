// The system page beside a live broker: the room that is left, the connection, the clock, who is connected, the version.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { SIZES, launch, observed, picture, run, startConfigured, tokenFor, until, violationsIn } from './real.mjs';

const MOSQUITTO = '/usr/sbin/mosquitto';
const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-system-'));
let browser;
let bridge;
let broker;
let port;

/** Runs the broker at its port, until it takes connections. */
async function runBroker() {
  writeFileSync(join(dir, 'mosquitto.conf'), `listener ${port} 127.0.0.1\nallow_anonymous true\n`);
  broker = spawn(MOSQUITTO, ['-c', join(dir, 'mosquitto.conf')], { stdio: 'ignore' });
  await until('the broker takes connections', () => new Promise((answer) => {
    const probe = connect(port, '127.0.0.1', () => answer(Boolean(probe.end()))).on('error', () => answer(false));
  }));
}

async function stopBroker() {
  const ended = new Promise((resolve) => broker.once('exit', resolve));
  broker.kill('SIGKILL');
  await ended;
}

before(async () => {
  port = await new Promise((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = probe.address();
      probe.close(() => resolve(free));
    });
  });
  await runBroker();
  browser = await launch();
  const rows = Array.from({ length: 600 }, (_, t) => `${t},${60 + (t % 9)},${95 + (t % 4)}`);
  bridge = await startConfigured(`[bridge]\nid = "system"\n[mqtt]\nbroker = "mqtt://127.0.0.1:${port}"\n[[patient]]\nid = "P-1"\nbed = "1"\n`
    + '[[source]]\nid = "bed-1"\nkind = "replay"\nfile = "bed.csv"\npatient = "P-1"\nmode = "test"\n', { 'bed.csv': `t_s,HR,SpO2\n${rows.join('\n')}\n` });
});

after(async () => {
  await browser?.close();
  await bridge?.stop();
  await stopBroker();
  rmSync(dir, { recursive: true, force: true });
});

test('with a broker the page tells buffer hours, connection, clock, connections and version, and follows the broker as it goes and comes back', async () => {
  const context = await browser.newContext({ reducedMotion: 'reduce', viewport: SIZES[1] });
  const page = await context.newPage();
  const { trouble, broken } = await observed(page, bridge.origin);
  await page.addInitScript((token) => sessionStorage.setItem('vitalbridge.token', token), await tokenFor(bridge, 'admin'));
  await page.goto(`${bridge.origin}/#/system`);
  const fact = async (name) => {
    const found = page.locator('.fact', { has: page.getByText(name, { exact: true }) }).locator('dd');
    return await found.count() === 1 ? (await found.innerText()).replaceAll(/\s+/g, ' ') : '';
  };
  const shows = (what, name, pattern) => until(what, async () => pattern.test(await fact(name)));
  await shows('the broker', 'Connection', /^connected since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
  await shows('nothing waits for long', 'Waiting for it', /^\d+ events that it has not confirmed$/);
  await shows('the version', 'Version', new RegExp(`^${(await run('--version')).split(' ')[1].replaceAll('.', '\\.')}`));
  await shows('the clock', 'Time of the bridge', /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
  assert.match(await fact('Synchronised'), /^no( complaint)?/);
  assert.equal(await fact('This browser'), 'agrees');
  assert.match(await fact('Open connections'), /^[1-9]/);
  assert.match(await page.locator('table tbody').innerText(), /admin[\s\S]*127\.0\.0\.1/);
  // Its pace is known after a minute at the latest, and then the hours of what can wait for the broker.
  await shows('the buffer in hours', 'Buffer', /^(unknown|\d+(\.\d)? h room for what waits for the broker)$/);
  for (const size of SIZES) {
    await page.setViewportSize(size);
    await picture(page, `system-broker-${size.width}x${size.height}`);
    assert.deepEqual(await violationsIn(page), []);
  }
  const waiting = async () => Number(/^\d+/.exec(await fact('Waiting for it'))?.[0]);
  await stopBroker();
  await shows('it is gone', 'Connection', /^not reached since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+/);
  await until('what is measured waits', async () => await waiting() > 5);
  await picture(page, 'system-broker-lost');
  await runBroker();
  await shows('it is back', 'Connection', /^connected since/);
  await until('nothing waits any more', async () => await waiting() <= 5);
  assert.deepEqual([trouble, broken], [[], []]);
  await context.close();
});
