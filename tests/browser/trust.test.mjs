// What the page does when something goes wrong with itself: it shows nothing that may be old, another's, or unread.
// `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BEDSIDE, CONTINUOUS, NEIGHBOUR, QUIET, numbersOf, untilLive, whileAlarming } from './bedside.mjs';
import { numbersOf as tilesOf } from './demo.mjs';
import { SIZES, openAt, picture, signOut, tokenFor, until } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

/** Whatever a person can read in the bedside view. */
const readAt = (page) => page.locator('#bedside').evaluate((node) => ({
  numbers: [...node.querySelectorAll('.number, .limits, .note')].map(({ textContent }) => textContent.trim()).filter((text) => /\d/.test(text)),
  alarm: node.querySelector('#bedside-alarm').textContent.trim(),
  listed: node.querySelectorAll('#alarms li').length,
  hidden: ['more-alarms', 'bedside-off', 'bedside-score'].filter((id) => !document.getElementById(id).hidden),
}));

test('a bed of which nothing is known yet shows nothing of the one before, and a session that ended leaves nothing behind its sign-in', async () => {
  await fresh();
  const page = await openAt(context, daemon, BEDSIDE);
  await untilLive(page);
  await until('limits', async () => (await readAt(page)).numbers.includes('12050'));
  const token = await tokenFor(daemon, 'nurse');
  daemon.child.kill('SIGSTOP');
  try {
    await page.evaluate(([jwt, patient]) => {
      location.hash = `#code=${jwt}&view=/patient/${patient}`;
    }, [token, NEIGHBOUR]);
    await until('the other bed', async () => await page.locator('#title').innerText() === NEIGHBOUR);
    assert.deepEqual(await readAt(page), { numbers: [], alarm: 'alert state unknown', listed: 0, hidden: [] });
    for (const [cell, { text, state }] of Object.entries(await numbersOf(page))) assert.deepEqual([text, state], ['---', 'none'], cell);
  } finally {
    daemon.child.kill('SIGCONT');
  }
  await untilLive(page);
  assert.equal(await page.locator('#sign-out').isHidden(), true);
  await page.evaluate(() => {
    history.replaceState(null, '', location.pathname);
    sessionStorage.removeItem('vitalbridge.home');
  });
  await page.reload();
  await page.evaluate((hash) => {
    location.hash = hash;
  }, BEDSIDE);
  await untilLive(page);
  await page.locator('#menu-button').click();
  await signOut(page, '#sign-out');
  assert.deepEqual((await readAt(page)).numbers, []);
});

/** Keeps the page's own connection, so that a test can say something in the bridge's name. */
const withSocket = (page) => page.addInitScript(() => {
  globalThis.WebSocket = class extends WebSocket {
    constructor(...words) {
      super(...words);
      globalThis.socket = this;
      this.addEventListener('message', ({ data }) => {
        if (typeof data === 'string') globalThis.epoch = JSON.parse(data).data?.epoch ?? globalThis.epoch;
      }, { once: true });
    }
  };
  globalThis.hear = (frame) => globalThis.socket.dispatchEvent(new MessageEvent('message', { data: JSON.stringify({ seq: 1e12, epoch: globalThis.epoch, ...frame }) }));
});

test('a page in which something breaks shows no number any more, says so with a sound, and begins anew', async () => {
  for (const view of ['#/', BEDSIDE]) {
    await fresh();
    const page = await context.newPage();
    await withSocket(page);
    await page.addInitScript((jwt) => {
      sessionStorage.setItem('vitalbridge.token', jwt);
      globalThis.tones = 0;
      OscillatorNode.prototype.start = () => {
        globalThis.tones += 1;
      };
    }, await tokenFor(daemon, 'nurse'));
    await page.goto(`${daemon.origin}/${view}`);
    const isLive = async () => (view === '#/' ? await tilesOf(page) : Object.values(await numbersOf(page))).some(({ state }) => state === 'live');
    await until('live numbers', isLive);
    await page.locator('#clock').click();
    const tones = await page.evaluate((patient) => {
      // A score that no code of the page expects.
      globalThis.hear({ type: 'health_update', channel: `patient/${patient}/news2`, data: {
        metric: 'news2', value: null, patient_id: patient, device_id: 'a', news2: { score_min: 1, score_max: 2, missing: 5 },
      } });
      return globalThis.tones;
    }, QUIET);
    const failed = page.locator('#failed');
    await failed.waitFor();
    assert.match(await failed.innerText(), /^THIS PAGE HAS FAILED/);
    assert.equal(await page.locator('.number:visible').count(), 0, 'no number');
    assert.match(await page.title(), /^PAGE FAILED/);
    await until('it sounds', () => page.evaluate((before) => globalThis.tones > before, tones));
    await page.waitForEvent('load');
    await until('live numbers again', isLive);
    assert.equal(await failed.isVisible(), false);
  }
});

test('a machine that wakes up shows no number of before its sleep', async () => {
  await fresh();
  const page = await openAt(context, daemon, BEDSIDE);
  await untilLive(page);
  daemon.child.kill('SIGSTOP');
  try {
    await page.evaluate(() => {
      const { now } = Date;
      Date.now = () => now() + 2 * 3_600_000;
      globalThis.states = new Set();
      const look = () => {
        for (const { dataset, textContent } of document.querySelectorAll('.vital')) if (dataset.state === 'stale' && !['nibp', 'temp'].includes(dataset.cell)) globalThis.states.add(textContent);
      };
      new MutationObserver(look).observe(document.getElementById('vitals'), { subtree: true, attributes: true });
    });
    await until('---', async () => Object.entries(await numbersOf(page)).every(([cell, { text }]) => !CONTINUOUS.includes(cell) || text === '---'));
    assert.deepEqual(await page.evaluate(() => [...globalThis.states]), [], 'none was a little old in between');
    assert.match((await numbersOf(page)).hr.note, /2 h/);
    assert.match(await page.locator('#no-connection').innerText(), /^NO CONNECTION since \d\d:\d\d:\d\d/);
  } finally {
    daemon.child.kill('SIGCONT');
  }
});

test('without a self-check no bed says "no alert", and a page that nobody sees sounds by messages alone, also for what does not come', async () => {
  await fresh();
  const page = await context.newPage();
  await page.addInitScript((jwt) => {
    sessionStorage.setItem('vitalbridge.token', jwt);
    globalThis.tones = [];
    const { start } = OscillatorNode.prototype;
    OscillatorNode.prototype.start = function tone(...when) {
      globalThis.tones.push(this.frequency.value);
      return start.apply(this, when);
    };
    // The bridge is heard, and what it says of its alerts is not.
    globalThis.checks = true;
    const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, 'onmessage');
    Object.defineProperty(WebSocket.prototype, 'onmessage', { set(hear) {
      set.call(this, (event) => globalThis.checks || !/^\{"type":"alert_system"/.test(event.data) ? hear(event) : undefined);
    } });
    // As in a hidden window, only that no timer comes at all: from then on.
    globalThis.sleep = () => {
      for (let id = setTimeout(() => {}); id > 0; id -= 1) clearTimeout(id);
      for (const name of ['setTimeout', 'setInterval', 'requestAnimationFrame']) globalThis[name] = () => 0;
    };
  }, await tokenFor(daemon, 'nurse', { patients: [QUIET] }));
  await page.goto(`${daemon.origin}/${BEDSIDE}`);
  await untilLive(page);
  await page.locator('#clock').click();
  const saysOf = () => page.locator('#bedside-alarm').innerText();
  await until('no alert', async () => await saysOf() === 'no alert');
  await page.evaluate(() => {
    globalThis.checks = false;
  });
  await until('nobody knows', async () => await saysOf() === 'alert state unknown');
  assert.equal(await page.locator('#link-text').innerText(), 'Live');
  await page.evaluate(() => {
    globalThis.checks = true;
  });
  await until('no alert again', async () => await saysOf() === 'no alert');
  const tonesSince = async (before) => (await page.evaluate(() => globalThis.tones)).slice(before);
  await page.evaluate(() => globalThis.sleep());
  const before = (await tonesSince(0)).length;
  await whileAlarming(daemon, () => until('the burst of an alarm, and the next one', async () => (await tonesSince(before)).length >= 6));
  daemon.child.kill('SIGSTOP');
  try {
    const then = (await tonesSince(0)).length;
    await until('the burst of a bridge that is silent', async () => (await tonesSince(then)).length >= 3);
  } finally {
    daemon.child.kill('SIGCONT');
  }
});

/** Writes down what the page tells the bridge, and which alarms of other beds and of the bridge stand on the screen then. */
const withWords = (page) => page.addInitScript(() => {
  globalThis.said = [];
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function tell(text) {
    const { type, data } = JSON.parse(text);
    const read = [...document.querySelectorAll('#elsewhere, #bridge-alerts .alarm-title')].filter((node) => node.checkVisibility()).map(({ textContent }) => textContent);
    globalThis.said.push({ type, data, read });
    return send.call(this, text);
  };
});

/** An alert as the bridge tells it. */
const alertOf = (alertId, seq, { priority = 'medium', patient = QUIET, message = alertId } = {}) => ({
  type: 'alert', channel: `alerts/${patient}`, seq, data: {
    alert_id: alertId, change: 'start', patient_id: patient, device_id: null, rule: 'spo2_low', kind: 'physiological', priority, metric: 'spo2', message,
    condition: { presence: 'true' }, signal: { audio: { activation: 'on', presence: 'on' }, visual: { activation: 'on', presence: 'on' } },
    onset: '2026-11-20T22:00:00.000Z', paused_until: null, hidden_by: null, recurrence: 0, by: null, mode: 'demo',
  },
});

/** A window whose bridge a test can speak for, signed in for these patients. */
async function spokenFor(view, ...patients) {
  await fresh();
  const page = await context.newPage();
  await withSocket(page);
  await withWords(page);
  await page.addInitScript((jwt) => sessionStorage.setItem('vitalbridge.token', jwt), await tokenFor(daemon, 'nurse', { patients }));
  await page.goto(`${daemon.origin}/${view}`);
  await until('live', async () => await page.locator('#link-text').innerText() === 'Live');
  const hear = (...frames) => page.evaluate((all) => all.forEach((frame) => globalThis.hear(frame)), frames);
  const said = (type, name) => page.evaluate(([kind, command]) => globalThis.said.filter(({ type: is, data }) => is === kind && (!command || data.name === command)), [type, name]);
  return { page, hear, said };
}

/** Waits until the bridge was told that these are shown; each stood on the screen then. */
async function confirmedInWords(said, alerts) {
  const shown = await until('all are confirmed', async () => {
    const receipts = (await said('alert_receipt')).filter(({ data }) => data.state === 'shown');
    const found = alerts.map(([id, words]) => ({ words, read: receipts.find(({ data }) => data.alerts.some(({ alert_id: is }) => is === id))?.read }));
    return found.every(({ read }) => read) && found;
  });
  for (const { words, read } of shown) assert.ok(read.some((text) => text.includes(words)), `${words}: confirmed while the screen said ${read}`);
}

test('an alarm of another bed is confirmed when its bed and its text have stood at this one, and not by a number', async () => {
  const beds = ['P-0005', 'P-0006', NEIGHBOUR];
  const { page, hear, said } = await spokenFor(BEDSIDE, QUIET, ...beds);
  const FIRST_SEQ = 1e9;
  await hear(...beds.map((patient, at) => alertOf(`high-${at}`, FIRST_SEQ + at, { priority: 'high', patient, message: `alarm of ${patient}` })));
  await until('+2 ***', async () => /\+2 \*\*\*$/.test((await page.locator('#elsewhere').innerText()).trim()));
  await confirmedInWords(said, beds.map((patient, at) => [`high-${at}`, `*** alarm of ${patient}`]));
});

test('five alerts of the bridge have three lines, and each is confirmed when it has stood in one', async () => {
  const { page, hear, said } = await spokenFor('#/');
  const names = ['one', 'two', 'three', 'four', 'five'];
  await hear(...names.map((name, at) => {
    const frame = alertOf(`bridge-${name}`, 1e9 + at, { priority: 'low', message: `bridge says ${name}` });
    Object.assign(frame.data, { patient_id: null, kind: 'technical' });
    return frame;
  }));
  await confirmedInWords(said, names.map((name) => [`bridge-${name}`, `* bridge says ${name}`]));
  assert.equal(await page.locator('#bridge-alerts li').count(), 3);
});

test('a press acknowledges what could be read when the finger set out, and neither what came after nor what took its place', async () => {
  const { page, hear, said } = await spokenFor(BEDSIDE, QUIET);
  const acknowledge = page.locator('#acknowledge');
  const acknowledged = async () => (await said('command', 'alert.acknowledge')).map(({ data }) => data.alert_id);
  await hear(alertOf('old', 1e9));
  await until('it can be acknowledged', async () => await acknowledge.getAttribute('aria-disabled') === 'false' && await acknowledge.isEnabled());
  /** Presses in the moment in which the page has drawn this. */
  const pressWhen = (button, text, frame) => page.evaluate(([selector, like, heard]) => new Promise((done) => {
    const observer = new MutationObserver(() => {
      if (!document.getElementById('bedside').textContent.includes(like) && !document.getElementById('tiles').textContent.includes(like)) return;
      observer.disconnect();
      document.querySelector(selector).click();
      done();
    });
    observer.observe(document.body, { subtree: true, childList: true, characterData: true });
    globalThis.hear(heard);
  }), [button, text, frame]);
  await pressWhen('#acknowledge', 'just begun', alertOf('new', 2e9, { priority: 'high', message: 'just begun' }));
  await until('the old one is acknowledged', async () => (await acknowledged()).includes('old'));
  assert.deepEqual(await acknowledged(), ['old']);
  await until('the button says how many it is about', async () => await acknowledge.innerText() === 'Acknowledge 2');
  await acknowledge.click();
  await until('both', async () => (await acknowledged()).includes('new'));
  // The button on a tile, under which another alarm takes the place.
  await page.evaluate(() => {
    location.hash = '#/';
  });
  const button = `.tile[data-patient=${QUIET}] .acknowledge`;
  const before = (await acknowledged()).length;
  await pressWhen(button, 'newest', alertOf('newest', 3e9, { priority: 'high', message: 'newest' }));
  assert.match(await page.locator('#toast').innerText(), /Read them, then press again/);
  assert.equal((await acknowledged()).length, before);
  await until('it can be acknowledged later', async () => {
    await page.locator(button).click();
    return (await acknowledged()).at(-1) === 'newest';
  });
});

test('a panel that somebody led elsewhere says whose it is, goes back by itself, and cannot be signed out by a touch', async () => {
  await fresh({ viewport: { width: 800, height: 480 } });
  const page = await context.newPage();
  await page.clock.install();
  await page.goto(`${daemon.origin}/#code=${daemon.code}&view=/patient/${QUIET}`);
  await untilLive(page);
  const away = page.locator('#away');
  assert.equal(await away.isVisible(), false);
  const viewIs = (hash) => until(`the view ${hash}`, async () => await page.evaluate(() => location.hash) === hash);
  const lead = async (hash) => {
    await page.locator('#clock').click();
    await page.evaluate((to) => {
      location.hash = to;
    }, hash);
    await until('whose panel it is', async () => /^This panel belongs to bed B4/.test(await away.innerText().catch(() => '')));
  };
  await lead(`#/patient/${NEIGHBOUR}`);
  await picture(page, 'panel-away');
  await page.clock.fastForward(110_000);
  await page.locator('#clock').click();
  await page.clock.fastForward(110_000);
  assert.equal(await page.evaluate(() => location.hash), `#/patient/${NEIGHBOUR}`, 'somebody is there');
  await page.clock.fastForward(15_000);
  await viewIs(BEDSIDE);
  await until('it is at home', async () => !(await away.isVisible()));
  await lead('#/system');
  await page.clock.fastForward(65_000);
  await viewIs(BEDSIDE);
  await lead('#/');
  await page.locator('#away-back').click();
  await viewIs(BEDSIDE);
  await page.reload();
  await page.locator('#menu-button').click();
  assert.equal(await page.locator('#sign-out').isVisible(), false);
  await lead('#/alarms');
});

test('whatever digits a sensor gives, none is cut off or stands on its name, its limits or the next number, in both views at every size', async () => {
  await fresh();
  const page = await openAt(context, daemon, BEDSIDE);
  await untilLive(page);
  const samples = { nibp: ['120/80', '---/80', '120/100', '119.5/79.5', '119.25/79.75'], '': ['7', '100', '97.5', '36.8', '36.55', '101.3', '100.25', '1000.25'] };
  for (const [view, cells] of [[BEDSIDE, '.vital'], ['#/', '.cell']]) {
    await page.evaluate((hash) => {
      location.hash = hash;
    }, view);
    for (const size of SIZES) {
      await page.setViewportSize(size);
      await until('numbers', () => page.locator(`${cells} .number:visible`).count());
      const wrong = await page.evaluate(([selector, all]) => [...document.querySelectorAll(selector)].filter((cell) => cell.checkVisibility()).flatMap((cell) => {
        const number = cell.querySelector('.number');
        const before = [number.textContent, cell.dataset.digits, cell.dataset.state];
        const found = (all[cell.dataset.cell] ?? all['']).flatMap((text) => ['live', 'doubtful'].flatMap((state) => {
          number.textContent = text;
          Object.assign(cell.dataset, { digits: text.length, state });
          const range = document.createRange();
          range.selectNodeContents(number);
          const size = parseFloat(getComputedStyle(number).fontSize);
          const digits = range.getBoundingClientRect();
          // The question mark is no part of the text.
          const right = digits.right + (state === 'doubtful' ? 0.33 * size : 0);
          const whole = cell.getBoundingClientRect();
          const beside = selector === '.vital' ? Math.max(...[...cell.querySelectorAll('dt, .limits')].map((node) => {
            range.selectNodeContents(node);
            return range.getBoundingClientRect().right;
          })) : whole.left;
          const { left } = digits;
          return left < beside - 1 || (selector === '.cell' && right > whole.right + 1) || size < 9 ? [`${cell.dataset.cell} ${text} ${state}: ${Math.round(left)} to ${Math.round(right)} beside ${Math.round(beside)} in ${Math.round(whole.right)}, ${size} px`] : [];
        }));
        number.textContent = before[0];
        Object.assign(cell.dataset, { digits: before[1], state: before[2] });
        return found;
      }), [cells, samples]);
      assert.deepEqual(wrong, [], `${cells} at ${size.width}x${size.height}`);
    }
  }
  // The tallest and the widest shape of a tile: where the digits are limited by the width.
  for (const [width, height] of [[390, 844], [800, 480], [1280, 800], [800, 900]]) {
    await page.setViewportSize({ width, height });
    const apart = await page.evaluate(() => [...document.querySelectorAll('.tile')].map((tile) => {
      const [heart, oxygen] = ['hr', 'spo2'].map((name) => tile.querySelector(`[data-cell=${name}] .number`));
      [heart.textContent, oxygen.textContent] = ['101', '82'];
      const range = document.createRange();
      range.selectNodeContents(heart);
      return (oxygen.getBoundingClientRect().left - range.getBoundingClientRect().right) / parseFloat(getComputedStyle(heart).fontSize);
    }));
    for (const ems of apart) assert.ok(ems > 0.2, `two numbers stand ${ems} of their size apart at ${width}x${height}`);
  }
});

test('the bed and the name are read in the bar whatever stands beside them, and nothing leaves it', async () => {
  const { page, hear } = await spokenFor(BEDSIDE, QUIET);
  await hear(...['high', 'medium', 'low'].map((priority, at) => alertOf(priority, 1e9 + at, { priority })));
  await page.locator('#audio-blocked').waitFor();
  await until('three counts', async () => await page.locator('#counts button:visible').count() === 3);
  for (const size of SIZES) {
    await page.setViewportSize(size);
    await picture(page, `bar-${size.width}x${size.height}`);
    const read = await page.evaluate(() => {
      const [place, title] = ['place', 'title'].map((id) => document.getElementById(id));
      [place.textContent, title.textContent] = ['ICU-North-12', 'Maria-Magdalena Konstantinopoulou-Schmidt'];
      const range = document.createRange();
      const lettersOf = (node) => [...node.textContent].filter((_, at) => {
        range.setStart(node.firstChild, at);
        range.setEnd(node.firstChild, at + 1);
        const { left, right } = range.getBoundingClientRect();
        return left >= 0 && right <= node.getBoundingClientRect().right + 1;
      }).length;
      const outside = [...document.querySelectorAll('.bar > *')].filter((node) => node.checkVisibility()).filter((node) => {
        const [{ right, bottom }, bar] = [node.getBoundingClientRect(), document.getElementById('bar').getBoundingClientRect()];
        return right > bar.right + 1 || bottom > bar.bottom + 1;
      }).map(({ id, className }) => id || className);
      return { bed: lettersOf(place), name: lettersOf(title), outside };
    });
    assert.equal(read.bed, 12, `${size.width}: the whole bed`);
    assert.ok(read.name >= 12, `${size.width}: ${read.name} letters of the name`);
    assert.deepEqual(read.outside, [], String(size.width));
  }
});

test('beside a paused alarm what has latched sounds on, and nothing says that the audio is paused', async () => {
  const { page, hear } = await spokenFor(BEDSIDE, QUIET);
  const pause = async () => (await page.locator('#pause').innerText()).replaceAll(/\s+/g, ' ');
  const paused = alertOf('paused', 1e9);
  Object.assign(paused.data, { paused_until: new Date(Date.now() + 100_000).toISOString(), signal: { audio: { activation: 'paused', presence: 'on' }, visual: { activation: 'on', presence: 'on' } } });
  await hear(paused);
  await until('it is paused', async () => /^Audio paused \d:\d\d$/.test(await pause()));
  const latched = alertOf('latched', 2e9, { priority: 'high' });
  latched.data.signal = { audio: { activation: 'on', presence: 'latched' }, visual: { activation: 'on', presence: 'latched' } };
  await hear(latched);
  await until('it sounds', async () => await pause() === 'Audio pause 2:00');
});
