/**
 * The page: signs in, feeds the ward's knowledge from the connection, chooses the view that the address names and draws it.
 *
 * `#/` is the ward, `#/patient/ID` a bed; every other `#/...` is opened by `pages.js`, which is loaded when it is needed.
 * @module
 */

import { READ_MS, Turns, drawAlarm, inStep, isDrawn } from './alarm.js';
import { Bedside, prepare } from './bedside.js';
import { byId, describe, hide, isCut, isInSight, mark, routeOf, stamp, within, write } from './dom.js';
import { METRICS, drawNumber } from './number.js';
import { everySecond, isBlocked, sound, unlock } from './sound.js';
import { VitalBridge } from './vitalbridge.js';
import { Ward, timeText } from './ward.js';

/** @typedef {import('./ward.js').ShownAlert} ShownAlert @typedef {import('./ward.js').Tile} Tile */

/**
 * What every view may look at and do.
 * @typedef {object} State
 * @property {VitalBridge | undefined} client The connection, undefined while nobody has signed in.
 * @property {Ward} ward What is known of the patients.
 * @property {string} token For requests over HTTP.
 * @property {string} role Of who has signed in.
 * @property {string} user Who has signed in.
 * @property {'live' | 'connecting' | 'lost'} link
 * @property {boolean} isConnected Commands can be given.
 * @property {boolean} hasSnapshot The ward is known.
 * @property {boolean} isAlarmless An alarm of the bridge might not come.
 * @property {boolean} mayAcknowledge
 * @property {Set<string>} acknowledging Alerts whose acknowledgement, reset or pause is on its way.
 * @property {(alerts: ShownAlert[]) => void} acknowledge Acknowledges alerts as they were drawn, and resets latched ones.
 * @property {(alerts: ShownAlert[], seconds: number) => void} pauseAudio
 * @property {(text: string) => void} toast A message at the lower edge.
 */

/** Key of the token in the tab's own storage. */
const TOKEN_KEY = 'vitalbridge.token';
/** Key of the view that a panel was started with, in the same place. */
const HOME_KEY = 'vitalbridge.home';
/** So long nobody has touched a panel that shows another bed, or a page without numbers, before it goes back, in ms. */
const AWAY_MS = 120_000;
const AWAY_PAGE_MS = 60_000;
/** How long a button waits for its second press, in ms. */
const ASK_MS = 8000;
/** How often ages and the clock are drawn, and the shortest time between two drawings, in ms. */
const DRAW_MS = 250;
const REDRAW_MS = 80;
/** How often the limits in force are asked for, beside each snapshot: a changed rule file is told to nobody. In ms. */
const LIMITS_MS = 60_000;
/** A request without an answer has failed after this, in ms. */
const ASK_TIMEOUT_MS = 15_000;
/** How long a message at the lower edge stays, in ms. */
const TOAST_MS = 8000;
/** A page that has failed says so for this long before it loads itself anew, in ms. */
const RELOAD_MS = 10_000;
/** A token has three parts; anything else is a sign-in code. */
const TOKEN_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** The smallest tile whose digits are readable, and the shape it looks best in, in CSS pixels. */
const TILE = { minWidth: 180, minHeight: 182, ratio: 1.2 };
/** Spoken lines that are kept. */
const MAX_SPOKEN = 5;
/** Tiles that are drawn before one frame: more would hold up what a person does. Those whose alarm changed do not wait. */
const TILES_A_FRAME = 8;
/** Alerts of the bridge that are drawn; in the last line those that are more take turns. */
const MAX_BRIDGE_ALERTS = 3;
/** The audio of an alert cannot be paused for longer, in s. */
const MAX_PAUSE_S = 120;
/** The other views. */
const PAGES = './pages.js';
/** Titles of the views of other modules. @type {Record<string, string>} */
const TITLES = { alarms: 'Alarms', trends: 'Trends', limits: 'Limits', devices: 'Devices', system: 'System' };

/** @type {VitalBridge | undefined} */
let bridge;
let ward = new Ward(document.documentElement.dataset.mode);
let bridgeName = 'vitalbridge';
/** @type {State} */
const state = {
  client: undefined,
  ward,
  token: '',
  role: '',
  user: '',
  link: 'connecting',
  isConnected: false,
  hasSnapshot: false,
  isAlarmless: false,
  mayAcknowledge: true,
  acknowledging: new Set(),
  acknowledge,
  pauseAudio,
  toast,
};
/** The view that the address names: its first word, the patient it is about, and its whole text. */
let view = { name: '', patient: '', route: '' };
/** The views of other modules, once they are loaded. @type {{open: (route: string, seam: {client: VitalBridge, root: HTMLElement, state: State}) => unknown, close: () => void} | undefined} */
let pages;
/** The route that `pages` has opened. */
let openedRoute = '';
/** Somebody relies on this page: it has shown alerts, or was to, and nobody has signed out since. */
let isWatched = false;
/** The view that this panel was started with; empty for a window that is no panel. */
let home = sessionStorage.getItem(HOME_KEY) ?? '';
/** When somebody touched this page last, in ms of performance.now(). */
let touchedAt = performance.now();
/** When the next attempt is due, in ms of performance.now(). */
let retryAt = 0;
/** How often the limits of each patient were asked for: an answer that another request has overtaken is old. @type {Map<string, number>} */
const limitsAsked = new Map();
/** @type {ReturnType<typeof setInterval> | undefined} */
let limitsTimer;
let waitsForDrawing = false;
/** What this page sounds for. @type {Parameters<typeof sound>[0]} */
let heard = '';
let hasFailed = false;
/** What was drawn last into a tile. @type {WeakMap<HTMLElement, string>} */
const drawnTiles = new WeakMap();
/** Tiles that wait for a frame. @type {Map<HTMLElement, {tile: Tile, content: string}>} */
const waitingTiles = new Map();
let drawsTiles = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let toastTimer;
/** The newest event of each alert that the bridge was told to be shown here. @type {Map<string, number>} */
const confirmed = new Map();
/** Whose turn it is in the line of other beds' alerts, and in the last line of the bridge's. */
const elsewhereTurns = new Turns();
const bridgeTurns = new Turns();
/** What stands on the page: alerts with their text and where they are counted, and the tiles. @type {{texts: [Element, ShownAlert][], counts: [Element, {alertId: string, seq: number}[]][], tiles: Tile[]}} */
let drawn = { texts: [], counts: [], tiles: [] };
let confirms = false;
/** Priorities of alerts that stand on a bed out of sight. @type {Set<string>} */
const unseen = new Set();

// ---- sign-in

/** @param {string} [problem] */
function showSignIn(problem) {
  hide(byId('app'), true);
  hide(byId('sign-in'), false);
  // Nobody can sign a panel in by hand: it has no keyboard, and must not be made silent by a touch.
  hide(byId('stop-watching'), !isWatched || home !== '');
  const told = byId('sign-in-problem');
  hide(told, !problem);
  write(told, `${problem ?? ''}${home && ' A panel signs in by itself when it is started anew: systemctl restart vitalbridge-kiosk'}`);
  drawMark('sign-in-mark');
  document.title = [ward.mark, isWatched ? 'NO ALARMS' : 'Sign in'].filter(Boolean).join(' · ') + ' – vitalbridge';
  byId('sign-in-secret').focus();
}

/** Takes the code out of a pasted sign-in link. @param {string} text */
function secretIn(text) {
  const trimmed = text.trim();
  const at = trimmed.indexOf('#code=');
  const code = trimmed.slice(at + '#code='.length);
  try {
    return at < 0 ? trimmed : decodeURIComponent(code);
  } catch {
    // Typed wrongly: the bridge will say so.
    return code;
  }
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
  closePage();
  bedside.close();
  ward = new Ward(document.documentElement.dataset.mode);
  state.ward = ward;
  state.hasSnapshot = false;
  waitingTiles.clear();
  clearInterval(limitsTimer);
  for (const list of ['tiles', 'bridge-alerts', 'spoken']) byId(list).replaceChildren();
  hide(byId('delivery-notice'), true);
}

/** Somebody leaves, or never came in. @param {string} [problem] */
function signOut(problem) {
  sessionStorage.removeItem(TOKEN_KEY);
  bridge?.close();
  bridge = undefined;
  Object.assign(state, { client: undefined, token: '', role: '', user: '' });
  isWatched = false;
  hide(byId('no-alarms'), true);
  heard = '';
  sound(heard);
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
    4009: 'An administrator ended this session.',
  });
  return known[code] ?? (message || `The bridge ended this session (${code}).`);
}

// ---- connection

/** @param {string} token */
function start(token) {
  bridge?.close();
  clearWard();
  const url = new URL('/ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  // Commands are not queued: whoever acknowledges an alert has to see at once that the bridge did not hear it, and must not
  // be taken to have seen what stands when the connection is back.
  const current = new VitalBridge({ url: url.href, token, annunciator: true, queueCommands: false });
  bridge = current;
  Object.assign(state, { client: current, token });
  hide(byId('sign-in'), true);
  hide(byId('app'), false);
  listen(current, token);
  current.connect();
  showView();
}

/**
 * Asks for the limits in force of these patients, one after the other.
 * @param {VitalBridge} current
 * @param {string} token
 * @param {string[]} ids
 */
async function askLimits(current, token, ids) {
  const isOver = () => current !== bridge || current.state === 'stopped';
  for (const id of ids) {
    if (isOver()) return;
    const asked = (limitsAsked.get(id) ?? 0) + 1;
    limitsAsked.set(id, asked);
    const answer = await fetch(`/api/v1/patients/${encodeURIComponent(id)}/limits`, { headers: { Authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(ASK_TIMEOUT_MS) })
      .then((response) => (response.ok ? response.json() : undefined)).catch(() => undefined);
    // Without an answer the last one stands.
    if (answer && asked === limitsAsked.get(id) && !isOver() && !ward.inForce(id, answer.limits ?? [])) current.refresh();
    drawSoon();
  }
}

/** @param {VitalBridge} current @param {string} token */
function listen(current, token) {
  /** @param {string} name @param {(detail: any) => void} act */
  const on = (name, act) => current.addEventListener(name, (event) => {
    if (current !== bridge) return;
    act(/** @type {CustomEvent} */ (event).detail);
    if (name === 'waveform') return;
    drawSoon();
    // A page that nobody sees is not drawn, and has to be heard all the same.
    if (name !== 'health_update' && current === bridge) soundNow(current);
  });
  on('welcome', ({ data }) => {
    bridgeName = data.bridge_id ?? 'vitalbridge';
    write(byId('site'), data.site ?? '');
  });
  on('authenticated', ({ data }) => {
    state.mayAcknowledge = !['viewer', 'service'].includes(data?.role);
    Object.assign(state, { role: data?.role ?? '', user: String(data?.user_id ?? '') });
  });
  on('snapshot', ({ data }) => {
    ward.begin(data ?? {}, current.now);
    // For the sign-in page: it may be another bridge than the one that sent this page.
    document.documentElement.dataset.mode = data?.mode;
    confirmed.clear();
    current.receipt('delivered', ward.present());
    // Who opens the page hears what is alarming already, once.
    if (!state.hasSnapshot) for (const alert of (data?.alerts ?? []).slice(0, MAX_SPOKEN)) say(ward.spoken(alert));
    state.hasSnapshot = true;
    isWatched = true;
    const ids = (data?.patients ?? []).map((/** @type {{id: string}} */ { id }) => id);
    clearInterval(limitsTimer);
    // What the rule file changes is told by no message.
    let isAsking = false;
    const round = async () => {
      if (isAsking) return;
      isAsking = true;
      await askLimits(current, token, ids);
      isAsking = false;
    };
    limitsTimer = setInterval(round, LIMITS_MS);
    round();
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
    if (replayed) return;
    askLimits(current, token, [data.patient_id]);
    // Limits and ALARM OFF of one rule end each for itself: what holds then is in the snapshot, and so is from when numbers are gone.
    if (!ward.limit(data)) current.refresh();
  });
  on('system', ({ data, replayed }) => replayed || data.kind !== 'config_reloaded' || current.refresh());
  on('device_status', ({ data, replayed }) => replayed || ward.device(data));
  on('heartbeat', ({ data }) => ward.ages(data?.ages ?? {}, current.now));
  on('waveform', (wave) => bedside.wave(wave));
  on('token_expiring', () => toast('Your session ends soon. Sign in again to go on watching.'));
  on('state', ({ retryInMs }) => {
    retryAt = performance.now() + (retryInMs ?? 0);
  });
  on('stopped', stopped);
}

/**
 * Gives one command about each of these alerts, and says what was refused.
 * @param {ShownAlert[]} alerts
 * @param {(alert: ShownAlert) => Promise<import('./vitalbridge.js').Result>} send
 * @param {string} failed
 */
async function each(alerts, send, failed) {
  const fresh = alerts.filter(({ alertId }) => !state.acknowledging.has(alertId));
  for (const { alertId } of fresh) state.acknowledging.add(alertId);
  draw();
  const results = await Promise.all(fresh.map(send));
  for (const { alertId } of fresh) state.acknowledging.delete(alertId);
  const refused = results.find(({ ok }) => !ok);
  if (refused) toast(`${failed}: ${refused.message ?? refused.code ?? 'the bridge refused it'}`);
  draw();
}

/** @param {ShownAlert[]} alerts */
function acknowledge(alerts) {
  const current = bridge;
  if (current) each(alerts, ({ alertId, seq }) => current.acknowledge(alertId, seq), 'Not acknowledged');
}

/** @param {ShownAlert[]} alerts @param {number} seconds */
function pauseAudio(alerts, seconds) {
  const current = bridge;
  const command = (/** @type {ShownAlert} */ { alertId, seq }) => /** @type {VitalBridge} */ (current).command({ name: 'alert.pause_audio', alert_id: alertId, expected_seq: seq, seconds: Math.min(seconds, MAX_PAUSE_S) });
  if (current) each(alerts, command, 'Audio not paused');
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

// ---- drawing

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
  if (!bridge || hasFailed) return;
  drawNoAlarms(bridge);
  if (bridge.state === 'stopped') return;
  const { now } = bridge;
  drawBar(bridge);
  drawn = { texts: [], counts: [], tiles: [] };
  drawBridgeAlerts(now);
  drawElsewhere(now);
  if (view.name === '') drawWard(now);
  if (view.name === 'patient') drawBedside(now);
  drawTitle();
  drawAway();
  if (confirms) return;
  confirms = true;
  // After the next frame: what was drawn has then been on the screen. A page that nobody sees has no frames.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    confirms = false;
    confirmShown();
  }));
}

/** @param {number} now */
function drawWard(now) {
  const tiles = ward.tiles(now, state.link !== 'lost', bridge?.wall);
  hide(byId('empty'), tiles.length > 0 || state.hasSnapshot);
  hide(byId('no-patients'), tiles.length > 0 || !state.hasSnapshot);
  drawTiles(tiles);
  drawn.tiles = tiles;
  const nodes = new Map([...byId('tiles').children].map((node) => [/** @type {HTMLElement} */ (node).dataset.patient, node]));
  for (const tile of tiles) {
    const node = nodes.get(tile.id);
    if (!node) continue;
    if (tile.alert && isDrawn(node, tile.alert)) drawn.texts.push([within(node, '.alarm-title'), tile.alert]);
    if (tile.counted.length > 0) drawn.counts.push([within(node, '.more'), tile.counted]);
  }
}

/** @param {number} now */
function drawBedside(now) {
  const { tile, texts, counts } = bedside.draw(now);
  write(byId('title'), tile ? tile.name : view.patient);
  write(byId('place'), tile?.bed ?? '');
  drawn.texts.push(...texts);
  drawn.counts.push(...counts);
}

/** Tells the bridge which alerts a person can read here: those with their text, and those that are counted beside one. */
function confirmShown() {
  if (bridge?.state !== 'live' || !state.hasSnapshot || document.visibilityState !== 'visible') return;
  /** @type {{alertId: string, seq: number}[]} */
  const shown = [];
  unseen.clear();
  for (const [text, alert] of drawn.texts) {
    if (isInSight(text) && !isCut(text)) shown.push(alert);
    else unseen.add(alert.priority);
  }
  for (const [count, alerts] of drawn.counts) if (isInSight(count)) shown.push(...alerts);
  const news = shown.filter(isUnconfirmed);
  if (news.length === 0) return;
  for (const { alertId, seq } of news) confirmed.set(alertId, seq);
  bridge.receipt('shown', news.map(({ alertId, seq }) => ({ alertId, seq })));
}

/** Sounds for what is known now. @param {VitalBridge} current */
function soundNow(current) {
  if (hasFailed) return;
  state.isAlarmless = current.isAlarmless;
  const audible = ward.audible();
  // That no alarm would come is a medium alarm of its own.
  heard = state.isAlarmless && audible !== 'high' ? 'medium' : audible;
  sound(heard);
}

/** @param {VitalBridge} current */
function drawNoAlarms(current) {
  soundNow(current);
  const missing = state.isAlarmless;
  const since = timeText(current.checkedWall, true);
  hide(byId('no-alarms'), !missing);
  hide(byId('audio-blocked'), !isBlocked());
  if (!missing) return;
  write(byId('no-alarms-title'), since ? `NO ALARMS FROM BRIDGE since ${since}` : 'NO ALARMS FROM BRIDGE');
  write(byId('no-alarms-more'), `Watch the patients and their own monitors.${isBlocked() ? ' AUDIO BLOCKED: touch the page.' : ''}`);
}

/** The window's own title, once the view has its name. */
function drawTitle() {
  const what = [ward.mark, view.name === 'patient' && ward.about(view.patient)?.bed, view.name ? byId('title').textContent : bridgeName];
  const title = `${what.filter(Boolean).join(' · ')} – vitalbridge`;
  if (document.title !== title) document.title = title;
}

/** On a panel that shows something else than it was started with: says so, and goes back after a while. */
function drawAway() {
  const isAway = home !== '' && home !== view.route;
  hide(byId('away'), !isAway);
  if (!isAway) return;
  const { name, patient } = routeOf(home);
  const { bed, name: who } = ward.about(patient) ?? { bed: '', name: patient };
  write(byId('away-text'), `This panel belongs to ${name === 'patient' ? (bed ? `bed ${bed}` : who) : (TITLES[name] ?? 'the ward')}`);
  describe(byId('away-back'), 'href', home);
  const hasNumbers = view.name === '' || view.name === 'patient';
  if (performance.now() - touchedAt > (hasNumbers ? AWAY_MS : AWAY_PAGE_MS)) location.hash = home;
}

/** @param {VitalBridge} current */
function drawBar(current) {
  const lost = current.isLost;
  const live = current.state === 'live' && state.hasSnapshot && !lost;
  const link = live ? 'live' : lost ? 'lost' : 'connecting';
  state.link = link;
  state.isConnected = current.state === 'live';
  mark(byId('link'), 'link', link);
  write(byId('link-text'), { live: 'Live', lost: 'No connection', connecting: 'Connecting' }[link]);
  mark(byId('app'), 'link', link);
  write(byId('clock'), timeText(live ? current.wall : undefined, true) || '--:--:--');
  drawMark('mark');
  if (view.name !== 'patient') {
    write(byId('title'), TITLES[view.name] ?? bridgeName);
    write(byId('place'), '');
  }
  drawCounts();
  drawNoConnection(current, lost);
}

/** Says where the numbers are not those of patients. @param {string} id */
function drawMark(id) {
  hide(byId(id), ward.mark === '');
  write(within(byId(id), '.mark-text'), ward.mark);
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
    mark(count, 'active', String(ward.calls(priority)));
    write(count, `${counts[priority]} ${priority}${unseen.has(priority) ? ' ↕' : ''}`);
  }
}

/** The tile of a patient. @param {Tile} tile */
const nodeOf = (tile) => [...byId('tiles').children].find((node) => /** @type {HTMLElement} */ (node).dataset.patient === tile.id);

/** Brings the next bed into sight whose most urgent alert has this priority. @param {string} priority */
function goTo(priority) {
  if (view.name !== '') location.hash = '#/';
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

/** The bridge was not told that it is shown. @param {{alertId: string, seq: number}} alert */
const isUnconfirmed = ({ alertId, seq }) => (confirmed.get(alertId) ?? -1) < seq;

/** @param {number} now */
function drawBridgeAlerts(now) {
  const list = byId('bridge-alerts');
  const alerts = ward.bridgeAlerts();
  const more = bridgeTurns.pick(alerts.slice(MAX_BRIDGE_ALERTS - 1), isUnconfirmed, now);
  const shown = [...alerts.slice(0, MAX_BRIDGE_ALERTS - 1), ...(more ? [more] : [])];
  while (list.children.length > shown.length) list.lastElementChild?.remove();
  shown.forEach((alert, place) => {
    if (!list.children[place]) list.append(document.createElement('li'));
    const node = /** @type {HTMLElement} */ (list.children[place]);
    drawAlarm(node, alert, 'bridge', state);
    drawn.texts.push([within(node, '.alarm-title'), alert]);
  });
}

/**
 * Where not the whole ward is shown: the alarms of the other beds, one after the other, each leading to its bed, and how many more
 * there are. A number beside it tells nobody which bed that is: only what has its turn was shown.
 * @param {number} now
 */
function drawElsewhere(now) {
  const place = byId('elsewhere');
  // At a bed it shares the banner's row: the digits keep their size, whoever else alarms.
  const row = view.name === 'patient' ? within(byId('bedside'), '.banner') : within(document, '.other-alerts');
  if (place.parentElement !== row) row.prepend(place);
  const alerts = view.name === '' ? [] : ward.alertsElsewhere(view.name === 'patient' ? view.patient : '');
  const top = elsewhereTurns.pick(alerts, isUnconfirmed, now);
  const [rest] = alerts.filter((alert) => alert !== top);
  hide(place, top === undefined);
  mark(byId('app'), 'elsewhere', top && 'true');
  if (!top) return;
  const { bed, name } = ward.about(top.patient) ?? { bed: '', name: top.patient };
  mark(place, 'priority', top.priority);
  mark(place, 'active', String(top.active));
  describe(place, 'href', `#/patient/${encodeURIComponent(top.patient)}`);
  describe(within(place, 'use'), 'href', `#icon-${top.unknown ? 'unknown' : top.priority}`);
  const text = within(place, '.elsewhere-text');
  write(within(place, '.elsewhere-name'), bed || name);
  write(text, `${top.stars} ${top.title}${state.link === 'lost' ? ' · LAST KNOWN' : ''}${top.detail && ` · ${top.detail}`}`);
  const more = within(place, '.elsewhere-more');
  write(more, rest ? `+${alerts.length - 1} ${rest.stars}` : '');
  drawn.texts.push([text, top]);
}

/** @param {Tile[]} tiles */
function drawTiles(tiles) {
  const list = byId('tiles');
  const known = new Map([.../** @type {HTMLCollectionOf<HTMLElement>} */ (list.children)].map((node) => [node.dataset.patient, node]));
  tiles.forEach((tile, place) => {
    let node = known.get(tile.id);
    known.delete(tile.id);
    if (!node) {
      node = stamp('tile-template');
      node.dataset.patient = tile.id;
      const to = `#/patient/${encodeURIComponent(tile.id)}`;
      within(node, '.open').setAttribute('href', to);
      node.addEventListener('click', ({ target }) => {
        if (!(/** @type {Element} */ (target).closest('button, a'))) location.hash = to;
      });
    }
    if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null);
    const pending = tile.alert !== undefined && state.acknowledging.has(tile.alert.alertId);
    const content = JSON.stringify([tile, state.link, state.isAlarmless, bridge?.state, state.mayAcknowledge, pending]);
    if (drawnTiles.get(node) === content) waitingTiles.delete(node);
    else waitingTiles.set(node, { tile, content });
    const button = within(node, '.acknowledge');
    const alert = button instanceof HTMLElement ? `${button.dataset.alert} ${button.dataset.seq}` : '';
    if (alert !== (tile.alert ? `${tile.alert.alertId} ${tile.alert.seq}` : '') || pending) drawWaiting(node);
  });
  for (const node of known.values()) {
    waitingTiles.delete(node);
    node.remove();
  }
  if (list.dataset.count !== String(tiles.length)) arrange();
  drawSome();
}

/** @param {HTMLElement} node */
function drawWaiting(node) {
  const waiting = waitingTiles.get(node);
  if (!waiting) return;
  waitingTiles.delete(node);
  drawnTiles.set(node, waiting.content);
  drawTile(node, waiting.tile);
}

/** Draws tiles that have waited longest, and the rest before the next frames. */
function drawSome() {
  if (drawsTiles) return;
  for (const node of [...waitingTiles.keys()].slice(0, TILES_A_FRAME)) drawWaiting(node);
  if (waitingTiles.size === 0) return;
  drawsTiles = true;
  requestAnimationFrame(() => {
    drawsTiles = false;
    drawSome();
  });
}

/** @param {HTMLElement} node @param {Tile} tile */
function drawTile(node, tile) {
  write(within(node, '.bed'), tile.bed);
  write(within(node, '.name'), tile.name);
  const tileMark = /** @type {HTMLElement} */ (within(node, '.tile-mark'));
  write(tileMark, tile.mark);
  hide(tileMark, tile.mark === '');
  const { alert } = tile;
  const changed = alert !== undefined && (node.dataset.priority !== alert.priority || node.dataset.active !== String(alert.active));
  mark(node, 'priority', alert?.priority);
  mark(node, 'active', alert && String(alert.active));
  // All tiles flash in step: the start of the document's timeline is the common beginning.
  if (changed) inStep(node);
  const more = /** @type {HTMLElement} */ (within(node, '.more'));
  hide(more, tile.more === 0);
  write(more, `+${tile.more} ${tile.moreStars}`);
  mark(node, 'off', tile.off.length > 0 ? 'true' : '');
  drawOff(within(node, '.off'), tile.off);
  drawScore(within(node, '.news2'), tile.news2);
  drawAlarm(within(node, '.alarm-place'), alert, tile.bed ? `bed ${tile.bed}` : tile.name, state);
  for (const [name, metric] of Object.entries(METRICS)) {
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

/** Chooses the number of columns that makes the tiles largest; below the smallest readable tile the page scrolls instead. */
function arrange() {
  const list = byId('tiles');
  const space = within(document, 'main');
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

/**
 * Something in this page is broken. What stands on it may never change again, under a clock that runs: nothing of it stays. The
 * bridge has to know that nobody is shown anything here, so the connection ends; then the page begins anew.
 */
function fail() {
  if (hasFailed || !bridge) return;
  hasFailed = true;
  for (const id of ['app', 'sign-in', 'no-alarms']) hide(byId(id), true);
  hide(byId('failed'), false);
  document.title = 'PAGE FAILED – vitalbridge';
  setTimeout(() => {
    // Not again to a view that may be what has failed.
    if (openedRoute !== '') history.replaceState(null, '', '#/');
    location.reload();
  }, RELOAD_MS);
  sound(heard === 'high' ? 'high' : 'medium');
  bridge.close();
}

// ---- views

/** Shows the view that the address names. */
function showView() {
  const before = view;
  view = routeOf(location.hash);
  const main = /** @type {HTMLElement} */ (within(document, 'main'));
  const kind = view.name === '' ? 'ward' : view.name === 'patient' ? 'bedside' : 'page';
  mark(byId('app'), 'view', kind);
  hide(main, kind === 'page');
  hide(byId('tiles'), kind !== 'ward');
  for (const id of ['empty', 'no-patients']) hide(byId(id), true);
  hide(byId('bedside'), kind !== 'bedside');
  hide(byId('page'), kind !== 'page');
  hide(byId('back'), kind === 'ward');
  hide(byId('sign-out'), home !== '');
  byId('menu').hidePopover?.();
  if (kind === 'bedside' && bridge) bedside.open(view.patient);
  else bedside.close();
  if (kind === 'page' && bridge) openPage(view.route);
  else closePage();
  if (before.route !== view.route) main.scrollTop = 0;
  for (const link of byId('menu').querySelectorAll('a')) {
    if (link.getAttribute('href') === `#/${view.name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  draw();
  if (kind === 'ward') arrange();
}

/** @param {string} route */
async function openPage(route) {
  if (route === openedRoute) return;
  closePage();
  openedRoute = route;
  try {
    pages ??= await import(PAGES);
    if (route === openedRoute && bridge) await pages?.open(route, { client: bridge, root: byId('page'), state });
  } catch (cause) {
    if (route !== openedRoute) return;
    openedRoute = '';
    byId('page').replaceChildren();
    toast(`This view cannot be opened: ${cause instanceof Error ? cause.message : cause}`);
  }
}

function closePage() {
  if (openedRoute === '') return;
  openedRoute = '';
  pages?.close();
  byId('page').replaceChildren();
}

// ---- start

/** Asks before it acts: the first press says what the second one does. @param {HTMLElement} button @param {string} question @param {() => void} act */
function atSecondPress(button, question, act) {
  const text = button.textContent ?? '';
  let askedAt = -Infinity;
  button.addEventListener('click', () => {
    const waited = performance.now() - askedAt;
    if (waited < READ_MS) return;
    const isAsked = waited < ASK_MS;
    askedAt = isAsked ? -Infinity : performance.now();
    write(button, isAsked ? text : question);
    if (isAsked) act();
    else setTimeout(() => write(button, text), ASK_MS);
  });
}

/** Signs in by the code in the address, which is removed from it, or by the token of this tab. */
function begin() {
  if (hasFailed) return;
  if (location.hash.startsWith('#code=')) {
    // A screen that starts by itself names the view that it opens: `#code=...&view=/patient/P-1`.
    const [secret = '', to] = location.hash.split('&view=');
    history.replaceState(null, '', `${location.pathname}${location.search}${to ? `#${to}` : ''}`);
    home = to ? routeOf(`#${to}`).route : '';
    sessionStorage.setItem(HOME_KEY, home);
    signIn(secretIn(secret));
    return;
  }
  if (bridge && bridge.state !== 'stopped') return showView();
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (!token) return showSignIn();
  // A page that watched before it was loaded again must not become a silent one.
  isWatched = true;
  start(token);
}

// Wherever something is thrown that nobody has caught; without an error it is a notice of the browser's own.
addEventListener('error', ({ error }) => error && fail());
// What the browser refuses (a sound, a copy) is thrown as DOMException, and breaks nothing.
addEventListener('unhandledrejection', ({ reason }) => reason instanceof DOMException || fail());
prepare();
const bedside = new Bedside(state);
byId('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn(secretIn(/** @type {HTMLInputElement} */ (byId('sign-in-secret')).value));
});
for (const id of ['sign-out', 'stop-watching']) atSecondPress(byId(id), 'Sign out: no alarms here', () => signOut());
for (const gesture of ['pointerdown', 'keydown', 'wheel']) addEventListener(gesture, () => {
  touchedAt = performance.now();
  unlock();
}, { passive: true });
addEventListener('keydown', ({ key, defaultPrevented }) => {
  if (key === 'Escape' && !defaultPrevented && view.name === 'patient' && !document.querySelector(':popover-open')) location.hash = '#/';
});
addEventListener('hashchange', begin);
new ResizeObserver(arrange).observe(within(document, 'main'));
document.addEventListener('visibilitychange', draw);
setInterval(draw, DRAW_MS);
// Where the browser lets a page sound without a touch (a kiosk) it can from now on.
unlock(draw);
everySecond(() => {
  if (bridge) soundNow(bridge);
});
begin();
