// The pages beside the ward, as tests look at them: a bridge with an oximeter that can be unplugged and a recording that alarms, and a
// window of each test. The tests of a file that imports this have one bridge.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach } from 'node:test';
import { SIZES, begin, launch, observed, signOut as leave, tokenFor as issue, until } from './real.mjs';

const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-pages-'));
export const stateDir = join(dir, 'state');

/** Plugs an oximeter in, on a serial line of its own. */
export async function plugIn() {
  oximeter = begin('emulate', '--profile', 'nonin-df2', '--pty', join(dir, 'oximeter'), '--seed', '7');
  await until('the oximeter is there', () => existsSync(join(dir, 'oximeter')));
}

/** And out. */
export async function unplug() {
  await oximeter.kill();
  rmSync(join(dir, 'oximeter'), { force: true });
}

export let daemon;
let oximeter;
export let origin;
export let browser;
export let context;
export let page;
/** What went wrong in a page without anybody asking. */
export let trouble;
/** What a page and the daemon said to each other and the contract does not allow. */
let broken;
/** The tokens that were issued. */
const tokens = new Map();

before(async () => {
  // A heart rate that alarms, and a cuff that measures twice.
  writeFileSync(join(dir, 'ward.csv'), 't_s,HR,RESP,NBPSys,NBPDias,NBPMean\n0,130,16,121,79,93\n20,131,17,0,0,0\n25,130,17,132,85,101\n3600,130,17,0,0,0\n');
  writeFileSync(join(dir, 'vitalbridge.toml'), `[bridge]\nid = "pages"\n[server]\nlisten = "127.0.0.1:0"\n[server.limits]\nper_user = 40\n`
    + `[[patient]]\nid = "P-1"\nname = "Ada Winter"\nbed = "1"\nward = "A"\n[[patient]]\nid = "P-2"\nname = "Bo Falk"\nbed = "2"\nward = "A"\n`
    + `[[source]]\nid = "oximeter"\nkind = "serial"\nport = "${join(dir, 'oximeter')}"\nprofile = "nonin-df2"\npatient = "P-1"\nmode = "test"\n`
    + `[[source]]\nid = "recording"\nkind = "replay"\nfile = "${join(dir, 'ward.csv')}"\npatient = "P-2"\nmode = "test"\n`);
  await plugIn();
  daemon = begin('run', '--config', join(dir, 'vitalbridge.toml'), '--state-dir', stateDir);
  const [, port] = await until('the daemon listens', () => {
    assert.equal(daemon.child.exitCode, null, `the daemon ended:\n${daemon.output}`);
    return /127\.0\.0\.1:(\d+)/.exec(daemon.output);
  });
  origin = `http://127.0.0.1:${port}`;
  browser = await launch();
});

after(async () => {
  await browser?.close();
  for (const one of [daemon, oximeter]) await one?.kill();
  rmSync(dir, { recursive: true, force: true });
});

/** Begins with new windows, in which nobody has signed in. */
export async function freshWindow() {
  await context?.close();
  context = await browser.newContext({ viewport: SIZES[1], reducedMotion: 'reduce', acceptDownloads: true });
  page = await openPage();
}

beforeEach(async () => {
  [trouble, broken] = [[], []];
  await freshWindow();
});

afterEach(async () => {
  await context?.close();
  assert.deepEqual(broken, [], 'not in the contract');
});

/** A window of the browser that tells what goes wrong in it. */
export async function openPage() {
  const opened = await context.newPage();
  await observed(opened, origin, { trouble, broken, allowsRefusals: true });
  return opened;
}

/** A token of the user `ROLE-1`. */
export const tokenFor = (role, options) => issue({ stateDir, tokens }, role, { user: `${role}-1`, ...options });

/** Signs in and opens an address. */
export async function visit(route, role = 'clinician', { patients = [], to = page } = {}) {
  await to.goto(origin);
  await to.locator('#sign-in-secret').fill(await tokenFor(role, { patients }));
  await to.keyboard.press('Enter');
  await to.locator('.tile').first().waitFor();
  await to.evaluate((hash) => {
    location.hash = hash;
  }, route);
  await to.locator('main.page').waitFor();
  return to;
}

export async function signOut() {
  await page.locator('#menu-button').click();
  await leave(page, '#sign-out');
}

export const api = async (path, role = 'clinician', options = {}) => {
  const response = await fetch(`${origin}${path}`, { ...options, headers: { Authorization: `Bearer ${await tokenFor(role)}`, 'Content-Type': 'application/json' } });
  return { status: response.status, body: await response.json() };
};

/** What a chart of the open page draws. */
export const drawnIn = (name, from = page) => from.evaluate(async (chart) => {
  const { drawn } = await import('/trends.js');
  return drawn().find((one) => one.name === chart);
}, name);

/** Those that were issued are not valid any more. */
export const forgetTokens = () => tokens.clear();
