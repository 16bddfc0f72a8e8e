/**
 * The ward page: signs in, feeds the ward's knowledge from the connection and draws it.
 *
 * Every text enters the document through `textContent`; nothing that the bridge sends is ever read as markup.
 * @module
 */

import { VitalBridge } from './vitalbridge.js';
import { channelsOf, ownerOf } from './rest.js';
import { isBlocked, sound } from './sound.js';
import { Ward, timeText } from './ward.js';

/** @typedef {import('./ward.js').Shown} Shown @typedef {import('./ward.js').ShownAlert} ShownAlert @typedef {import('./ward.js').Tile} Tile */

/** Key of the token in the tab's own storage. */
const TOKEN_KEY = 'vitalbridge.token';
/** How often ages and the clock are drawn, and the shortest time between two drawings, in ms. */
const DRAW_MS = 250;
const REDRAW_MS = 80;
/** How often the limits in force are asked for, beside each snapshot: a changed rule file is told to nobody. In ms. */
const LIMITS_MS = 60_000;
/** How long a message at the lower edge stays, in ms. */
const TOAST_MS = 8000;
/** A token has three parts; anything else is a sign-in code. */
const TOKEN_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** The smallest tile whose digits are readable, and the shape it looks best in, in CSS pixels. */
const TILE = { minWidth: 180, minHeight: 182, ratio: 1.2 };
/** Spoken lines that are kept. */
const MAX_SPOKEN = 5;
/** Alerts of the bridge that are drawn; the count in the bar tells of more. */
const MAX_BRIDGE_ALERTS = 3;
/** Characters that one line below a number has room for on the smallest tile. @type {Record<string, number>} */
const NOTE_ROOM = { hr: 14, spo2: 14, pulse: 9, nibp: 16, resp: 9, temp: 13 };
/** A longer text of an alert is drawn smaller, in characters. */
const LONG_TITLE = 34;
/** This share of a text has to be in sight before anybody can be said to read it. */
const READABLE = 0.75;

/** @template {HTMLElement} T @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
/** @template {Element} T @param {ParentNode} parent @param {string} selector @returns {T} */
const within = (parent, selector) => /** @type {T} */ (parent.querySelector(selector));

/** Changes the document only where something changed. @param {Element} element @param {string} text */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} element @param {string} name @param {string | undefined} value */
function mark(element, name, value) {
  if (value === undefined || value === '') delete element.dataset[name];
  else if (element.dataset[name] !== value) element.dataset[name] = value;
}

/** @param {HTMLElement} element @param {boolean} hidden */
function hide(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** @param {string} templateId @returns {HTMLElement} */
function stamp(templateId) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(templateId));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}

/** @type {VitalBridge | undefined} */
let bridge;
let ward = new Ward();
let bridgeName = 'vitalbridge';
let mayAcknowledge = true;
let hasSnapshot = false;
/** Somebody relies on this page: it has shown alerts, or was to, and nobody has signed out since. */
let isWatched = false;
/** When the next attempt is due, in ms of performance.now(). */
let retryAt = 0;
/** Each time that the limits are asked for ends the one before. */
let limitsAsked = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let limitsTimer;
let waitsForDrawing = false;
/** What was drawn last into a tile. @type {WeakMap<HTMLElement, string>} */
const drawnTiles = new WeakMap();
/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;
/** Alerts whose acknowledgement is on its way. @type {Set<string>} */
const acknowledging = new Set();
/** The newest event of each alert that the bridge was told to be shown here. @type {Map<string, number>} */
const confirmed = new Map();
/** What stands on the page. @type {{tiles: Tile[], bridgeAlerts: ShownAlert[]}} */
let drawn = { tiles: [], bridgeAlerts: [] };
let confirms = false;
/** Priorities of alerts that stand on a bed out of sight. @type {Set<string>} */
const unseen = new Set();

// ---------------------------------------------------------------------------------------------------------- sign-in

/** @param {string} [problem] */
function showSignIn(problem) {
  hide(byId('ward'), true);
  pages?.close();
  hide(byId('sign-in'), false);
  hide(byId('stop-watching'), !isWatched);
  const told = byId('sign-in-problem');
  hide(told, !problem);
  write(told, problem ?? '');
  document.title = isWatched ? 'NO ALARMS – vitalbridge' : 'Sign in – vitalbridge';
  byId('sign-in-secret').focus();
}

/** Takes the code out of a pasted sign-in link. @param {string} text */
function secretIn(text) {
  const trimmed = text.trim();
  const at = trimmed.indexOf('#code=');
  return at < 0 ? trimmed : decodeURIComponent(trimmed.slice(at + '#code='.length));
}

/**
 * Exchanges a sign-in code for a token.
 * @param {string} code
 * @returns {Promise<{token: string} | {problem: string}>}
 */
async function exchange(code) {
  let response;
  try {
    response = await fetch('/api/v1/sign-in', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ code }),
    });
  } catch {
    return { problem: 'The bridge does not answer. Check that it is running, then try again.' };
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok && typeof answer.token === 'string') return { token: answer.token };
  if (response.status === 401) return { problem: 'This sign-in code is wrong, already used or too old. Ask the bridge for a new one.' };
  return { problem: answer.message ?? `The bridge refused the sign-in (HTTP ${response.status}).` };
}

/** @param {string} secret */
async function signIn(secret) {
  if (secret === '') return showSignIn('Paste a sign-in code or a token first.');
  const button = within(byId('sign-in-form'), 'button');
  button.setAttribute('disabled', '');
  const result = TOKEN_FORM.test(secret) ? { token: secret } : await exchange(secret);
  button.removeAttribute('disabled');
  if ('problem' in result) return showSignIn(result.problem);
  // Nobody who comes by later shall read it.
  /** @type {HTMLInputElement} */ (byId('sign-in-secret')).value = '';
  sessionStorage.setItem(TOKEN_KEY, result.token);
  start(result.token);
}

/** Forgets what the session showed. */
function clearWard() {
  ward = new Ward();
  hasSnapshot = false;
  for (const list of ['tiles', 'bridge-alerts']) byId(list).replaceChildren();
}

/** Somebody leaves, or never came in. @param {string} [problem] */
function signOut(problem) {
  sessionStorage.removeItem(TOKEN_KEY);
  bridge?.close();
  bridge = undefined;
  isWatched = false;
  hide(byId('no-alarms'), true);
  sound(false);
  clearWard();
  showSignIn(problem);
}

/**
 * The bridge has ended the session. Where somebody relied on it the page goes on to say and sound that no alarm comes, until
 * somebody signs in or out; the token stays, so that a reload does not make it silent.
 * @param {import('./vitalbridge.js').Stopped} end
 */
function stopped(end) {
  if (!isWatched) return signOut(sayEnd(end));
  clearWard();
  showSignIn(sayEnd(end));
}

/** @param {import('./vitalbridge.js').Stopped} end */
function sayEnd({ code, message, needsToken }) {
  if (needsToken) return 'Your session has ended. Sign in again.';
  const known = /** @type {Record<number, string>} */ ({
    4001: 'The token is not valid here, or it has expired.',
    4003: 'You may not see this page.',
    4006: 'You have too many open pages. Close one and sign in again.',
    4008: 'The sign-in took too long.',
    4009: 'An administrator ended this session.',
  });
  return known[code] ?? (message || `The bridge ended this session (${code}).`);
}

// -------------------------------------------------------------------------------------------------------- connection

/** @param {string} token */
function start(token) {
  bridge?.close();
  ward = new Ward();
  hasSnapshot = false;
  const url = new URL('/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  const current = new VitalBridge({ url: url.href, token, channels: channelsOf(ownerOf(token)), annunciator: true, queueCommands: false });
  bridge = current;
  hide(byId('sign-in'), true);
  hide(byId('ward'), false);
  listen(current, token);
  current.connect();
  draw();
  route();
}

/**
 * Asks which alarms are switched off by the rule file, of which no message tells, now and again.
 * @param {VitalBridge} current
 * @param {string} token
 * @param {{id: string}[]} patients
 */
async function askLimits(current, token, patients) {
  clearTimeout(limitsTimer);
  limitsAsked += 1;
  const asked = limitsAsked;
  for (const { id } of patients) {
    const answer = await fetch(`/api/v1/patients/${encodeURIComponent(id)}/limits`, { headers: { Authorization: `Bearer ${token}` } })
      .then((response) => (response.ok ? response.json() : undefined)).catch(() => undefined);
    if (asked !== limitsAsked || current !== bridge || current.state === 'stopped') return;
    // Without an answer the last one stands.
    if (answer) ward.inForce(id, answer.limits ?? []);
  }
  drawSoon();
  limitsTimer = setTimeout(() => askLimits(current, token, patients), LIMITS_MS);
}

/** @param {VitalBridge} current @param {string} token */
function listen(current, token) {
  /** @param {string} name @param {(detail: any) => void} act */
  const on = (name, act) => current.addEventListener(name, (event) => {
    if (current !== bridge) return;
    act(/** @type {CustomEvent} */ (event).detail);
    drawSoon();
  });
  on('welcome', ({ data }) => {
    bridgeName = data.bridge_id ?? 'vitalbridge';
    write(byId('bridge-id'), bridgeName);
    write(byId('site'), data.site ?? '');
  });
  on('authenticated', ({ data }) => {
    mayAcknowledge = !['viewer', 'service'].includes(data?.role);
  });
  on('snapshot', ({ data }) => {
    ward.begin(data ?? {}, performance.now());
    confirmed.clear();
    current.receipt('delivered', ward.present());
    // Who opens the page hears what is alarming already, once.
    if (!hasSnapshot) for (const alert of (data?.alerts ?? []).slice(0, MAX_SPOKEN)) say(ward.spoken(alert));
    hasSnapshot = true;
    isWatched = true;
    askLimits(current, token, data?.patients ?? []);
  });
  // What is older than the snapshot is history: the snapshot already holds the newest of it.
  on('health_update', ({ data, born, replayed }) => replayed || ward.reading(data, born));
  on('alert_system', ({ data }) => {
    if (ward.differs(data)) current.refresh();
    // A receipt that did not arrive is sent again.
    for (const { alert_id: id, delivery } of data.alerts ?? []) if (delivery && delivery !== 'shown') confirmed.delete(id);
    write(byId('delivery-notice'), data.notice ?? '');
    hide(byId('delivery-notice'), !data.notice);
  });
  on('alert', ({ data, replayed }) => {
    if (data.change === 'end') confirmed.delete(data.alert_id);
    else if (!replayed) current.receipt('delivered', [{ alertId: data.alert_id, seq: data.seq }]);
    if (!replayed && ward.alert(data)) say(ward.spoken(data));
  });
  on('limits_changed', ({ data, replayed }) => {
    // Limits and ALARM OFF of one rule end each for itself: what holds then is in the snapshot.
    if (!replayed && !ward.limit(data)) current.refresh();
  });
  on('device_status', ({ data, replayed }) => replayed || ward.device(data));
  on('heartbeat', ({ data }) => ward.ages(data?.ages ?? {}, performance.now()));
  on('token_expiring', () => toast('Your session ends soon. Sign in again to go on watching.'));
  on('state', ({ retryInMs }) => {
    retryAt = performance.now() + (retryInMs ?? 0);
  });
  on('stopped', stopped);
}

/** @param {ShownAlert} alert */
async function acknowledge(alert) {
  if (!bridge || acknowledging.has(alert.alertId)) return;
  acknowledging.add(alert.alertId);
  draw();
  const result = await bridge.acknowledge(alert.alertId, alert.seq);
  acknowledging.delete(alert.alertId);
  if (!result.ok) toast(`Not acknowledged: ${result.message ?? result.code ?? 'the bridge refused it'}`);
  draw();
}

/** @param {string} text */
function toast(text) {
  const place = byId('toast');
  write(place, text);
  hide(place, false);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => hide(place, true), TOAST_MS);
}

/** @param {string} text */
function say(text) {
  const line = document.createElement('span');
  line.textContent = `${text}. `;
  const place = byId('spoken');
  if (place.childElementCount >= MAX_SPOKEN) place.firstElementChild?.remove();
  place.append(line);
}

// ----------------------------------------------------------------------------------------------------------- drawing

/** Draws once for all frames that arrive within a moment. */
function drawSoon() {
  if (waitsForDrawing) return;
  waitsForDrawing = true;
  setTimeout(() => requestAnimationFrame(() => {
    waitsForDrawing = false;
    draw();
  }), REDRAW_MS);
}

function draw() {
  if (!bridge) return;
  drawNoAlarms(bridge);
  if (bridge.state === 'stopped') return;
  drawBar(bridge);
  const bridgeAlerts = drawBridgeAlerts();
  const tiles = ward.tiles(performance.now(), !bridge.isLost, bridge.wall);
  hide(byId('empty'), tiles.length > 0);
  write(byId('empty'), hasSnapshot ? 'No patient is assigned to this bridge.' : 'Waiting for the bridge …');
  drawTiles(tiles);
  drawn = { tiles, bridgeAlerts };
  if (confirms) return;
  confirms = true;
  // After the next frame: what was drawn has then been on the screen. A page that nobody sees has no frames.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    confirms = false;
    confirmShown();
  }));
}

/**
 * True if a person who looks at the page can read this: most of it is inside the window and every box that cuts it off,
 * the scrolled list among them, and nothing lies over its middle.
 * @param {Element | null} node
 */
function isInSight(node) {
  if (!node?.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
  const whole = node.getBoundingClientRect();
  let { top, bottom, left, right } = whole;
  const cut = (/** @type {{top: number, bottom: number, left: number, right: number}} */ box) => {
    [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
    [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
  };
  cut({ top: 0, left: 0, bottom: innerHeight, right: innerWidth });
  for (let box = node.parentElement; box; box = box.parentElement) {
    if (getComputedStyle(box).overflow !== 'visible') cut(box.getBoundingClientRect());
  }
  const area = whole.width * whole.height;
  if (!(area > 0) || bottom <= top || right <= left || (bottom - top) * (right - left) < READABLE * area) return false;
  const front = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return front !== null && (node.contains(front) || front.contains(node));
}

/** Tells the bridge which alerts a person can read here: those with their text, and those that a tile counts beside it. */
function confirmShown() {
  if (bridge?.state !== 'live' || !hasSnapshot || document.visibilityState !== 'visible') return;
  /** @type {{alertId: string, seq: number}[]} */
  const shown = [];
  const withText = (/** @type {Element | null | undefined} */ place, /** @type {ShownAlert | undefined} */ alert) => {
    const button = /** @type {HTMLElement | null | undefined} */ (place?.querySelector('.acknowledge'));
    const isDrawn = alert && button?.dataset.alert === alert.alertId && button.dataset.seq === String(alert.seq);
    if (isDrawn && isInSight(/** @type {Element} */ (place).querySelector('.alarm-title'))) shown.push(alert);
  };
  const nodes = new Map([...byId('tiles').children].map((node) => [/** @type {HTMLElement} */ (node).dataset.patient, node]));
  unseen.clear();
  for (const tile of drawn.tiles) {
    const node = nodes.get(tile.id);
    if (tile.alert && !isInSight(node?.querySelector('.alarm-title') ?? null)) unseen.add(tile.alert.priority);
    withText(node, tile.alert);
    if (node && isInSight(within(node, '.more'))) shown.push(...tile.counted);
  }
  const list = byId('bridge-alerts').children;
  drawn.bridgeAlerts.forEach((alert, place) => withText(list[place], alert));
  // Those of the bridge that have no line are counted in the bar.
  if (drawn.bridgeAlerts.length > MAX_BRIDGE_ALERTS && isInSight(byId('counts'))) shown.push(...drawn.bridgeAlerts.slice(MAX_BRIDGE_ALERTS));
  const news = shown.filter(({ alertId, seq }) => (confirmed.get(alertId) ?? -1) < seq);
  if (news.length === 0) return;
  for (const { alertId, seq } of news) confirmed.set(alertId, seq);
  bridge.receipt('shown', news.map(({ alertId, seq }) => ({ alertId, seq })));
}

/** @param {VitalBridge} current */
function drawNoAlarms(current) {
  const missing = current.isAlarmless;
  const since = timeText(current.checkedWall, true);
  hide(byId('no-alarms'), !missing);
  sound(missing);
  if (!missing) return;
  write(byId('no-alarms-title'), since ? `NO ALARMS FROM BRIDGE since ${since}` : 'NO ALARMS FROM BRIDGE');
  write(byId('no-alarms-more'), `Watch the patients and their own monitors.${isBlocked() ? ' AUDIO BLOCKED: touch the page.' : ''}`);
}

/** @param {VitalBridge} current */
function drawBar(current) {
  const lost = current.isLost;
  const live = current.state === 'live' && hasSnapshot && !lost;
  const link = live ? 'live' : lost ? 'lost' : 'connecting';
  mark(byId('link'), 'link', link);
  write(byId('link-text'), { live: 'Live', lost: 'No connection', connecting: 'Connecting' }[link]);
  mark(byId('ward'), 'link', link);
  write(byId('clock'), timeText(live ? current.wall : undefined, true) || '--:--:--');
  const modeMark = ward.mark;
  hide(byId('mark'), modeMark === '');
  write(byId('mark-text'), modeMark);
  const title = `${modeMark && `${modeMark} · `}${bridgeName} – vitalbridge`;
  if (document.title !== title) document.title = title;
  drawCounts();
  drawNoConnection(current, lost);
}

function drawCounts() {
  const counts = ward.counts();
  const place = byId('counts');
  for (const priority of /** @type {const} */ (['high', 'medium', 'low'])) {
    let count = /** @type {HTMLElement | null} */ (place.querySelector(`[data-priority=${priority}]`));
    if (!count) {
      count = document.createElement('button');
      count.setAttribute('type', 'button');
      count.dataset.priority = priority;
      count.addEventListener('click', () => goTo(priority));
      place.append(count);
    }
    hide(count, counts[priority] === 0);
    write(count, `${counts[priority]} ${priority}${unseen.has(priority) ? ' ↕' : ''}`);
  }
}

/** The tile of a patient. @param {Tile} tile */
const nodeOf = (tile) => [...byId('tiles').children].find((node) => /** @type {HTMLElement} */ (node).dataset.patient === tile.id);

/** Brings the next bed into sight whose most urgent alert has this priority. @param {string} priority */
function goTo(priority) {
  const nodes = drawn.tiles.filter(({ alert }) => alert?.priority === priority).map(nodeOf);
  const next = nodes.find((node) => !isInSight(node?.querySelector('.alarm-title') ?? null)) ?? nodes[0];
  next?.scrollIntoView({ block: 'center' });
}

/** @param {VitalBridge} current @param {boolean} lost */
function drawNoConnection(current, lost) {
  const since = timeText(current.contactWall, true);
  const seconds = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
  hide(byId('no-connection'), !lost);
  if (!lost) return;
  write(byId('no-connection-title'), since ? `NO CONNECTION since ${since}` : 'NO CONNECTION to the bridge');
  write(byId('no-connection-more'), current.state === 'waiting' && seconds > 0 ? `trying again in ${seconds} s` : 'trying again');
}

/** @returns {ShownAlert[]} all of them, also those that have no line */
function drawBridgeAlerts() {
  const list = byId('bridge-alerts');
  const alerts = ward.bridgeAlerts();
  const shown = alerts.slice(0, MAX_BRIDGE_ALERTS);
  while (list.children.length > shown.length) list.lastElementChild?.remove();
  shown.forEach((alert, place) => {
    if (!list.children[place]) list.append(document.createElement('li'));
    drawAlarm(/** @type {HTMLElement} */ (list.children[place]), alert, 'bridge');
  });
  return alerts;
}

/** @param {Tile[]} tiles */
function drawTiles(tiles) {
  const list = byId('tiles');
  const known = new Map([...list.children].map((node) => [/** @type {HTMLElement} */ (node).dataset.patient, node]));
  tiles.forEach((tile, place) => {
    let node = /** @type {HTMLElement | undefined} */ (known.get(tile.id));
    known.delete(tile.id);
    if (!node) {
      node = stamp('tile-template');
      node.dataset.patient = tile.id;
    }
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
    drawTile(node, tile);
  });
  for (const node of known.values()) node.remove();
  if (list.dataset.count !== String(tiles.length)) arrange();
}

/** @param {HTMLElement} node @param {Tile} tile */
function drawTile(node, tile) {
  const pending = tile.alert !== undefined && acknowledging.has(tile.alert.alertId);
  const content = JSON.stringify([tile, byId('ward').dataset.link, bridge?.state, mayAcknowledge, pending]);
  if (drawnTiles.get(node) === content) return;
  drawnTiles.set(node, content);
  write(within(node, '.bed'), tile.bed);
  write(within(node, '.name'), tile.name);
  const tileMark = /** @type {HTMLElement} */ (within(node, '.tile-mark'));
  write(tileMark, tile.mark);
  hide(tileMark, tile.mark === '');
  const { alert } = tile;
  const changed = node.dataset.priority !== alert?.priority || node.dataset.active !== String(alert?.active ?? '');
  mark(node, 'priority', alert?.priority);
  mark(node, 'active', alert && String(alert.active));
  // All tiles flash in step: the start of the document's timeline is the common beginning.
  if (changed) for (const animation of node.getAnimations()) animation.startTime = 0;
  const more = /** @type {HTMLElement} */ (within(node, '.more'));
  hide(more, tile.more === 0);
  write(more, `+${tile.more} ${tile.moreStars}`);
  mark(node, 'off', tile.off.length > 0 ? 'true' : '');
  drawOff(within(node, '.off'), tile.off);
  drawScore(within(node, '.news2'), tile.news2);
  drawAlarm(within(node, '.alarm-place'), alert, tile.bed ? `bed ${tile.bed}` : tile.name);
  const metrics = { hr: 'heart_rate', spo2: 'spo2', pulse: 'pulse_rate', nibp: 'blood_pressure', resp: 'respiratory_rate', temp: 'temperature' };
  for (const [name, metric] of Object.entries(metrics)) {
    const cell = /** @type {HTMLElement} */ (within(node, `[data-cell=${name}]`));
    const shown = name === 'pulse' ? tile.pulse : tile.cells[/** @type {import('./ward.js').CellName} */ (name)];
    mark(cell, 'priority', tile.marked[metric]);
    drawNumber(cell, shown);
  }
}

/** Says which alarms of a patient somebody has switched off. @param {HTMLElement} place @param {string[]} off */
function drawOff(place, off) {
  hide(place, off.length === 0);
  write(place, off.length > 0 ? `ALARM OFF ${off.length > 1 ? `(${off.length}) ` : ''}${off.join(', ')}` : '');
  if (place.title !== place.textContent) place.title = place.textContent ?? '';
}

/** @param {HTMLElement} place @param {import('./ward.js').ShownScore | undefined} score */
function drawScore(place, score) {
  hide(place, score === undefined);
  if (!score) return;
  mark(place, 'band', score.band);
  mark(place, 'complete', String(score.complete));
  write(within(place, '.score'), score.text);
  write(within(place, '.band'), score.says);
  write(within(place, '.missing'), score.missing);
  write(within(place, '.age'), score.age);
  if (place.title !== score.inputs) place.title = score.inputs;
}

/** @param {HTMLElement} cell @param {Shown} shown */
function drawNumber(cell, shown) {
  mark(cell, 'state', shown.state);
  mark(cell, 'seq', shown.seq === undefined ? '' : String(shown.seq));
  mark(cell, 'device', shown.device);
  mark(cell, 'digits', String(shown.text.length));
  write(within(cell, '.number'), shown.text);
  write(within(cell, '.mean'), shown.mean ? `(${shown.mean}) ` : '');
  const { said, age } = noteOf(shown);
  write(within(cell, '.said'), said);
  write(within(cell, '.age'), age);
  const room = NOTE_ROOM[cell.dataset.cell ?? ''] ?? 0;
  mark(cell, 'note', said.length + age.length < room ? '' : said.length + age.length < 2 * room ? 'long' : 'longer');
  const title = [shown.note, shown.pulsePressure && `pulse pressure ${shown.pulsePressure} mmHg`, shown.device && `from ${shown.device}`].filter(Boolean).join(' · ');
  if (cell.title !== title) cell.title = title;
}

/** What stands under a number: the reason why it is not an ordinary one, time and age. @param {Shown} shown */
function noteOf({ state, note, time, age }) {
  const separated = age && `· ${age}`;
  if (time !== undefined) return { said: [note, time].filter(Boolean).join(' · '), age: separated };
  if (state === 'lost') return { said: note, age: separated };
  if (state === 'stale') return { said: note, age: `${age} old` };
  return { said: note, age: note ? '' : `${age} ago` };
}

/**
 * @param {HTMLElement} place
 * @param {ShownAlert | undefined} alert
 * @param {string} whose
 */
function drawAlarm(place, alert, whose) {
  let node = /** @type {HTMLElement | null} */ (place.querySelector('.alarm'));
  if (!alert) {
    write(place, byId('ward').dataset.link === 'live' ? 'no alert' : 'alert state unknown');
    return;
  }
  const lastKnown = byId('ward').dataset.link === 'lost' ? 'LAST KNOWN' : '';
  const detail = [lastKnown, alert.detail].filter(Boolean).join(' · ');
  if (!node) {
    node = stamp('alarm-template');
    place.replaceChildren(node);
    const button = /** @type {HTMLButtonElement} */ (within(node, '.acknowledge'));
    button.addEventListener('click', () => {
      const shown = [...ward.tiles(performance.now()).map((tile) => tile.alert), ...ward.bridgeAlerts()]
        .find((candidate) => candidate?.alertId === button.dataset.alert);
      // What the person saw counts, not what has come since.
      if (shown) acknowledge({ ...shown, seq: Number(button.dataset.seq) });
    });
  }
  mark(node, 'priority', alert.priority);
  mark(node, 'active', String(alert.active));
  mark(node, 'unknown', alert.unknown ? 'true' : '');
  within(node, 'use').setAttribute('href', `#icon-${alert.unknown ? 'unknown' : alert.priority}`);
  write(within(node, '.alarm-title'), `${alert.stars} ${alert.title}`);
  mark(node, 'special', detail && 'true');
  mark(node, 'long', alert.title.length > LONG_TITLE ? 'true' : '');
  write(within(node, '.alarm-detail'), detail);
  write(within(node, '.alarm-since'), alert.since);
  const button = /** @type {HTMLButtonElement} */ (within(node, '.acknowledge'));
  hide(button, alert.action === '' || !mayAcknowledge);
  button.disabled = acknowledging.has(alert.alertId) || bridge?.state !== 'live';
  mark(button, 'alert', alert.alertId);
  mark(button, 'seq', String(alert.seq));
  write(button, alert.action === 'Reset' ? 'Reset' : 'Ack');
  const label = `${alert.action}: ${whose}, ${alert.title}`;
  if (button.getAttribute('aria-label') !== label) button.setAttribute('aria-label', label);
}

/** Chooses the number of columns that makes the tiles largest; below the smallest readable tile the page scrolls instead. */
function arrange() {
  const list = byId('tiles');
  const space = /** @type {HTMLElement} */ (list.parentElement);
  const count = list.children.length;
  mark(list, 'count', String(count));
  const { clientWidth: width, clientHeight: height } = space;
  let best = Math.max(1, Math.floor(width / TILE.minWidth));
  let bestSize = 0;
  for (let columns = 1; columns <= count; columns += 1) {
    const tile = { width: width / columns, height: height / Math.ceil(count / columns) };
    const size = Math.min(tile.width, tile.height * TILE.ratio);
    if (tile.width >= TILE.minWidth && tile.height >= TILE.minHeight && size > bestSize) [best, bestSize] = [columns, size];
  }
  list.style.setProperty('--columns', String(best));
  list.style.setProperty('--rows', String(Math.max(1, Math.ceil(count / best))));
  mark(list, 'fits', bestSize > 0 ? 'true' : '');
}

// ------------------------------------------------------------------------------------------------------------- start

/** The other pages, once one was wanted. @type {typeof import('./pages.js') | undefined} */
let pages;

/** Shows what the address names: the ward, or one of the other pages in its place. */
async function route() {
  const { hash } = location;
  const isOther = bridge !== undefined && bridge.state !== 'stopped' && /^#\/(?!patient\/)./.test(hash);
  hide(byId('page'), !isOther);
  hide(/** @type {HTMLElement} */ (byId('tiles').parentElement), isOther);
  if (!isOther) return pages?.close();
  pages ??= await import('./pages.js');
  if (bridge && location.hash === hash) pages.open(hash, { client: bridge, root: byId('page') });
}

/** Signs in by the code in the address, which is removed from it, or by the token of this tab. */
function begin() {
  const fromAddress = location.hash.startsWith('#code=') ? secretIn(location.hash) : '';
  if (fromAddress) {
    history.replaceState(null, '', location.pathname + location.search);
    signIn(fromAddress);
    return;
  }
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (!token) return showSignIn();
  // A page that watched before it was loaded again must not become a silent one.
  isWatched = true;
  start(token);
}

byId('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn(secretIn(/** @type {HTMLInputElement} */ (byId('sign-in-secret')).value));
});
for (const id of ['sign-out', 'stop-watching']) byId(id).addEventListener('click', () => signOut());
addEventListener('hashchange', () => (location.hash.startsWith('#code=') ? begin() : route()));
new ResizeObserver(arrange).observe(within(document, 'main'));
document.addEventListener('visibilitychange', draw);
setInterval(draw, DRAW_MS);
begin();
