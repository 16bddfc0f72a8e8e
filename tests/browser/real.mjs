// The real daemon and a real browser, for tests and pictures.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { ofClient, ofServer } from './contract.mjs';

export const BINARY = process.env.VITALBRIDGE_BIN;
const PAGE_DIR = process.env.VITALBRIDGE_PAGE_DIR;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync'];
/** The Raspberry Pi's 7" panel, a desk, a phone. */
export const SIZES = [{ width: 800, height: 480 }, { width: 1280, height: 800 }, { width: 390, height: 844 }];
/** A condition that comes to pass at all does so in this time, also on a machine with other work, in ms. */
export const WAIT_MS = 60_000;
const MAX_OUTPUT_BYTES = 64 * 1024;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** Pictures that a person should look at. */
const SHOTS = new URL('shots/', import.meta.url).pathname;

/** Starts a browser; with VITALBRIDGE_PAGE_DIR its windows take the page's files from that folder, without building the daemon. */
export async function launch(...flags) {
  // What a test hands to the browser itself has no address, and Chromium would keep it from this machine.
  const own = PAGE_DIR ? ['--disable-features=LocalNetworkAccessChecks'] : [];
  const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: [...FLAGS, ...own, ...flags] });
  if (!PAGE_DIR) return browser;
  const newContext = browser.newContext.bind(browser);
  browser.newContext = async (options) => {
    const context = await newContext(options);
    await context.route((url) => existsSync(join(PAGE_DIR, url.pathname)) && !url.pathname.startsWith('/api'), async (route) => {
      const { pathname } = new URL(route.request().url());
      const file = readFileSync(join(PAGE_DIR, pathname === '/' ? 'index.html' : pathname));
      // The daemon writes into the page what its numbers are.
      const said = pathname === '/' ? /data-mode="\w+"/.exec(await (await route.fetch()).text())?.[0] : undefined;
      const body = said ? String(file).replace('data-mode=""', said) : file;
      const type = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' }[pathname.split('.').at(-1)] ?? 'text/html';
      await route.fulfill({ body, headers: { 'content-type': `${type}; charset=utf-8`, 'content-security-policy': "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'" } });
    });
    return context;
  };
  return browser;
}

/** Runs the program to its end and gives what it said. */
export const run = async (...words) => (await promisify(execFile)(BINARY, words, { encoding: 'utf8' })).stdout.trim();

/** Waits until `look` gives something true. */
export async function until(what, look, deadlineMs = WAIT_MS) {
  const end = performance.now() + deadlineMs;
  while (performance.now() < end) {
    const found = await look();
    if (found) return found;
    await new Promise((next) => setTimeout(next, 50));
  }
  return assert.fail(`not within ${deadlineMs} ms: ${what}`);
}

/** A process with what it has said; `kill` ends it as a power cut would. */
export function begin(...words) {
  assert.ok(BINARY, 'VITALBRIDGE_BIN must hold the path of the vitalbridge binary');
  const child = spawn(BINARY, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const begun = { child, output: '' };
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => {
    begun.output = (begun.output + chunk).slice(-MAX_OUTPUT_BYTES);
  });
  begun.kill = async (signal = 'SIGKILL') => {
    child.kill('SIGCONT');
    child.kill(signal);
    await ended;
  };
  return begun;
}

/** Starts a daemon and waits until it says what `ready` looks for. */
async function start(words, stateDir, ready) {
  const begun = begin(...words, '--state-dir', stateDir);
  try {
    const found = await until('the daemon is ready', () => {
      assert.equal(begun.child.exitCode, null, `the daemon ended:\n${begun.output}`);
      return ready(begun.output);
    });
    return { child: begun.child, kill: begun.kill, tokens: new Map(), ...found };
  } catch (error) {
    await begun.kill();
    throw error;
  }
}

/** The demo. `again` starts it once more at the same address and with the same state, as after a crash or another end. */
export async function startDemo() {
  const stateDir = mkdtempSync(join(tmpdir(), 'vitalbridge-page-'));
  const again = (listen) => start(['demo', '--listen', listen], stateDir, (output) => {
    const origin = /^vitalbridge: listening on (http:\/\/\S+)$/m.exec(output)?.[1];
    const link = /^vitalbridge: sign in at (\S+#code=\S+)$/m.exec(output)?.[1];
    return origin && link && { origin, link, code: link.split('#code=')[1] };
  });
  const daemon = { stateDir, ...(await again('127.0.0.1:0')) };
  daemon.again = async (signal) => {
    await daemon.kill(signal);
    Object.assign(daemon, await again(new URL(daemon.origin).host));
  };
  daemon.stop = async () => {
    await daemon.kill();
    rmSync(stateDir, { recursive: true, force: true });
  };
  return daemon;
}

/** A bridge with a configuration of its own. `files` are written beside it. */
export async function startConfigured(toml, files = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-page-'));
  const stateDir = join(dir, 'state');
  for (const [name, text] of Object.entries({ ...files, 'vitalbridge.toml': toml })) writeFileSync(join(dir, name), text);
  const daemon = await start(['run', '--config', join(dir, 'vitalbridge.toml'), '--listen', '127.0.0.1:0'], stateDir, (output) => {
    const port = /127\.0\.0\.1:(\d+)/.exec(output)?.[1];
    return port && { origin: `http://127.0.0.1:${port}` };
  });
  const stop = async () => {
    await daemon.kill();
    rmSync(dir, { recursive: true, force: true });
  };
  return { ...daemon, dir, stateDir, stop };
}

/** A bridge with so many beds, each with numbers once a second. */
export function startWard(beds) {
  const KINDS = 8;
  const row = (t, kind) => {
    const heart = 62 + 5 * kind + (t % 7);
    return [t, heart, 95 + (kind % 3) + (t % 3), 12 + (kind % 5) + (t % 4), heart, 112 + 4 * kind + (t % 5), 68 + 2 * kind, 84 + 3 * kind].join(',');
  };
  const csvOf = (kind) => `t_s,HR,SpO2,RESP,PULSE,NBPSys,NBPDias,NBPMean\n${Array.from({ length: 1800 }, (_, t) => row(t, kind)).join('\n')}\n`;
  const files = Object.fromEntries(Array.from({ length: KINDS }, (_, kind) => [`ward-${kind}.csv`, csvOf(kind)]));
  const numbers = Array.from({ length: beds }, (_, at) => at + 1);
  const patients = numbers.map((n) => `[[patient]]\nid = "P-${n}"\nbed = "${n}"\nname = "Test ${n}"\n`);
  const sources = numbers.map((n) => `[[source]]\nid = "r-${n}"\nkind = "replay"\nfile = "ward-${(3 * n) % KINDS}.csv"\npatient = "P-${n}"\n`);
  return startConfigured(['[bridge]\nid = "ward"\n', ...patients, ...sources].join('\n'), files);
}

/** A token of a daemon, printed by the program itself; one that lasts is asked for once. `patients`: only for these. */
export function tokenFor(daemon, role, { life = '1h', user = role, patients = [] } = {}) {
  const words = ['token', 'issue', '--state-dir', daemon.stateDir, '--role', role, '--user', user, '--for', life, ...patients.flatMap((patient) => ['--patient', patient])];
  if (life.endsWith('s')) return run(...words);
  const key = words.join(' ');
  if (!daemon.tokens.has(key)) daemon.tokens.set(key, run(...words));
  return daemon.tokens.get(key);
}

/** Opens a page that is signed in already, at a view such as `#/patient/P-1`; for these patients only, as a panel at a bed is. */
export async function openAt(context, daemon, view = '#/', ...patients) {
  const page = await context.newPage();
  await page.addInitScript((token) => sessionStorage.setItem('vitalbridge.token', token), await tokenFor(daemon, 'nurse', { patients }));
  await page.goto(`${daemon.origin}/${view}`);
  return page;
}

/** Presses a button that signs out, which asks first, until it has. */
export const signOut = (page, button) => until('signed out', async () => {
  await page.locator(button).click({ timeout: 1000 }).catch(() => {});
  return page.locator('#sign-in').isVisible();
});

/** A picture for people to look at. */
export async function picture(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

/** What axe-core finds wrong with a page, in lines; it looks at the size of targets too, which it leaves out by itself. */
export async function violationsIn(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ rules: { 'target-size': { enabled: true } } }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ').slice(0, 300)}`);
}

/**
 * Writes down what goes wrong in a window without anybody asking, and what it and the bridge say to each other against the
 * contract. Refusals that Chromium writes down are the tests' own matter if they say so.
 */
export async function observed(page, origin, { trouble = [], broken = [], allowsRefusals = false } = {}) {
  page.on('console', (message) => {
    // A page that nobody has touched may not sound, and shows so: AUDIO BLOCKED.
    if (/AudioContext was not allowed to start/.test(message.text()) || (allowsRefusals && /Failed to load resource/.test(message.text()))) return;
    if (['error', 'warning'].includes(message.type())) trouble.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => trouble.push(`error: ${error.stack}`));
  page.on('request', (request) => {
    if (!request.url().startsWith('blob:') && new URL(request.url()).origin !== origin) trouble.push(`request to another host: ${request.url()}`);
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== new URL(origin).host) trouble.push(`socket to another host: ${socket.url()}`);
    const hold = (to) => ({ payload }) => {
      if (typeof payload === 'string') broken.push(...to(JSON.parse(payload)).map((problem) => `${problem}: ${payload.slice(0, 200)}`));
    };
    socket.on('framereceived', hold(ofServer));
    socket.on('framesent', hold(ofClient));
  });
  await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => {
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
  }));
  return { trouble, broken };
}

/**
 * Lets a window tell by its own clock and its own connection when something came to stand in it: a busy machine makes a test
 * look late, and must not make the page be late. A page or a context, before it is opened; then `remember` and `remembered`.
 */
export async function withMemory(window) {
  await window.addInitScript(() => {
    globalThis.memory = { heardAt: NaN, seen: {} };
    globalThis.WebSocket = class extends WebSocket {
      constructor(...words) {
        super(...words);
        this.addEventListener('message', () => {
          globalThis.memory.heardAt = performance.now();
        });
      }
    };
  });
}

/** From now on: when the text of an element first was like this, and for how long nothing had been heard then, in ms. */
export const remember = (page, name, selector, pattern) => page.evaluate(([key, where, like]) => {
  const { memory } = globalThis;
  const observer = new MutationObserver(look);
  function look() {
    const node = document.querySelector(where);
    if (!node?.checkVisibility() || !new RegExp(like).test(node.textContent.replaceAll(/\s+/g, ' '))) return;
    memory.seen[key] = { at: Date.now(), silentMs: performance.now() - memory.heardAt };
    observer.disconnect();
  }
  observer.observe(document.documentElement, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
}, [name, selector, pattern.source]);

/** The same in several windows; gives a function that waits for it in all of them and says how far apart they were, in ms. */
export async function together(pages, name, selectors, pattern) {
  await Promise.all(pages.map((page, at) => remember(page, name, selectors[at], pattern)));
  return async () => {
    const times = (await Promise.all(pages.map((page) => remembered(page, name)))).map(({ at }) => at);
    return Math.max(...times) - Math.min(...times);
  };
}

/** What was written down about it, once it came. */
export const remembered = (page, name) => until(`${name} in its window`, () => page.evaluate((key) => globalThis.memory.seen[key], name));

/** As the bridge takes it. */
export const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+/, '');

/** Changes a rule of a patient, as a clinician does; without a change it holds again what held before. */
export async function changeLimit(daemon, patient, rule, change) {
  const address = `${daemon.origin}/api/v1/patients/${patient}/limits/${rule}`;
  const end = inAnHour();
  const ends = change?.enabled === undefined ? { expires: end } : change.enabled ? {} : { until: end };
  const response = await fetch(change ? address : `${address}?reason=test`, {
    method: change ? 'PUT' : 'DELETE',
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${await tokenFor(daemon, 'clinician')}` },
    body: change && JSON.stringify({ ...ends, ...change, reason: 'test' }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** Waits until nothing of a rule is left at a patient; what has latched is reset. */
export async function untilOver(daemon, patient, rules) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${await tokenFor(daemon, 'nurse')}` };
  await until(`${rules} of ${patient} are over`, async () => {
    const { alerts } = await (await fetch(`${daemon.origin}/api/v1/alerts`, { headers })).json();
    const left = alerts.filter((alert) => alert.patient_id === patient && rules.includes(alert.rule));
    for (const { alert_id: id } of left.filter((alert) => alert.signal.visual.presence === 'latched')) {
      await fetch(`${daemon.origin}/api/v1/commands`, { method: 'POST', headers, body: JSON.stringify({ name: 'alert.reset', alert_id: id }) });
    }
    return left.length === 0;
  });
}
