/**
 * The bridge itself: disk and log and how long they last, broker, clock, radio, connections, versions. What nobody tells is shown as unknown.
 * @module
 */

import { clockOf } from './chart.js';
import { fill, make, priorityMark, table, write } from './elements.js';
import { hear, repeat } from './pages.js';
import { Refused, ask, askText, isAbort } from './rest.js';
import { ageText } from './ward.js';

/** @typedef {import('./pages.js').Context} Context */
/** @typedef {{metrics: Map<string, number> | undefined, system: any, connections: any[] | undefined, alerts: any[] | undefined, isReady: boolean | undefined, ble: any}} Found */

/** How often it is asked for, in ms. */
const LOOK_MS = 5000;
/** The browser's clock may differ by this much before it is said, in ms. */
const CLOCKS_MS = 2000;
/** The disk is looked at once a minute; what is older than this is not known any more, in ms. */
const STORAGE_OLD_MS = 3 * 60_000;
const UNKNOWN = 'unknown';

/** @param {HTMLElement} place @param {Context} context */
export async function show(place, context) {
  const says = make('p', { class: 'quiet-text', role: 'status' });
  const cards = make('div', { class: 'cards' });
  const sockets = make('section', { 'aria-label': 'Connections' });
  place.append(says, cards, sockets);
  let isAsking = false;
  const load = async () => {
    if (isAsking) return;
    isAsking = true;
    const found = await findAll(context);
    isAsking = false;
    if (context.signal.aborted) return;
    draw(context, found, cards);
    drawConnections(found, sockets);
    write(says, `As of ${clockOf(context.client.wall ?? Date.now())}, asked every ${LOOK_MS / 1000} s`);
  };
  await load();
  hear(context, 'snapshot', load);
  repeat(context, LOOK_MS, load);
}

/**
 * Everything that the bridge tells; what it does not tell is undefined.
 * @param {Context} context
 * @returns {Promise<Found>}
 */
async function findAll({ signal, owner }) {
  const maybe = async (/** @type {Promise<any>} */ asked) => asked.catch((cause) => (isAbort(cause) || cause instanceof Refused ? undefined : Promise.reject(cause)));
  const isAdmin = owner.role === 'admin';
  const [text, system, connections, alerts, ready, ble] = await Promise.all([
    maybe(askText('/metrics', signal)),
    maybe(ask('/api/v1/system', { signal })),
    isAdmin ? maybe(ask('/ws/connections', { signal })) : undefined,
    maybe(ask('/api/v1/alerts', { signal })),
    askText('/readyz', signal).then(() => true, (cause) => (cause instanceof Refused && cause.status > 0 ? false : undefined)),
    maybe(ask('/api/v1/ble', { signal })),
  ]);
  return {
    metrics: text === undefined ? undefined : metricsOf(text), system, connections: connections?.connections, alerts: alerts?.alerts, isReady: ready, ble,
  };
}

/** The numbers of Prometheus' text form that have no labels. @param {string} text */
export function metricsOf(text) {
  /** @type {Map<string, number>} */
  const metrics = new Map();
  for (const line of text.split('\n')) {
    const [, name, value] = /^vitalbridge_(\w+) (\S+)$/.exec(line) ?? [];
    if (name && Number.isFinite(Number(value))) metrics.set(name, Number(value));
  }
  return metrics;
}

/**
 * One thing about the bridge.
 * @param {string} name
 * @param {string | number | undefined | null} value undefined: nobody tells
 * @param {'good' | 'bad' | ''} [judged]
 * @param {string | null} [more]
 */
function fact(name, value, judged = '', more = '') {
  const isUnknown = value === undefined || value === null || value === '' || (typeof value === 'number' && !Number.isFinite(value));
  return make('div', { class: 'fact' }, make('dt', {}, name),
    make('dd', { 'data-judged': isUnknown ? 'unknown' : judged }, isUnknown ? UNKNOWN : String(value), more && make('span', { class: 'under' }, more)));
}

/** @param {string} title @param {...(Node | false | undefined)} facts */
const card = (title, ...facts) => make('section', { class: 'card-of-facts', 'aria-label': title }, make('h3', {}, title), make('dl', {}, facts.filter((one) => one instanceof Node)));

/** @param {Context} context @param {Found} found @param {HTMLElement} place */
function draw(context, found, place) {
  const open = /** @type {HTMLElement | null} */ (document.activeElement)?.closest('.card-of-facts');
  fill(place, bridgeCard(context, found), storeCard(found), brokerCard(found), clockCard(context, found), alertingCard(found), radioCard(found));
  // Nothing in the cards takes the focus, but a reader may stand there.
  if (open) place.focus();
}

/** An alert of the bridge that stands; undefined if nobody knows. @param {Found} found @param {string} rule */
const stands = ({ alerts }, rule) => (alerts === undefined ? undefined : alerts.find((alert) => alert.rule === rule));

/** Seconds as people say them. @param {number | undefined} seconds */
const longOf = (seconds) => (typeof seconds === 'number' && Number.isFinite(seconds) ? ageText(seconds * 1000) : undefined);

/** @param {Context} context @param {Found} found */
function bridgeCard({ client }, { system, isReady }) {
  return card('Bridge',
    fact('State', isReady === undefined ? undefined : isReady ? 'ready' : 'not ready', isReady ? 'good' : 'bad', isReady === false ? 'the pipeline does not answer, or connections are sent away' : ''),
    fact('Version', system?.version),
    fact('Running for', longOf(system?.uptime_seconds)),
    fact('This run', system?.epoch ?? client.position?.epoch));
}

/** What is known of disk and log; nothing if it is too old to be true. @param {Found} found */
function storageOf({ system }) {
  const age = Date.parse(system?.timestamp) - Date.parse(system?.storage?.at);
  return age < STORAGE_OLD_MS ? system.storage : undefined;
}

/** @param {Found} found */
function storeCard(found) {
  const { metrics, system } = found;
  const { disk, log } = storageOf(found) ?? {};
  const degraded = stands(found, 'storage_degraded');
  const full = stands(found, 'disk_full');
  const low = stands(found, 'buffer_low');
  const refused = metrics?.get('store_refused_total');
  return card('Store',
    fact('Disk', disk && `${disk.used_percent} % used`, full ? 'bad' : '', full?.message ?? (disk ? `${sizeOf(disk.available_bytes)} free` : '')),
    fact('Log', log && `${sizeOf(log.used_bytes)} of ${sizeOf(log.max_bytes)}`),
    fact('Log full', leftOf(log?.full_in_seconds), '', log && 'then the oldest readings make room'),
    system?.uplink && fact('Buffer', bufferOf(system.uplink), low ? 'bad' : '', bufferOf(system.uplink) ? 'room for what waits for the broker' : ''),
    fact('Recording', found.alerts === undefined ? undefined : degraded ? degraded.message : 'on disk', degraded ? 'bad' : 'good'),
    fact('On disk through event', metrics?.get('durable_through')),
    fact('Not recorded since the start', refused, refused ? 'bad' : 'good', refused ? 'the disk was too far behind; they were shown live only' : ''));
}

/** Bytes as people say them. @param {number} bytes */
export function sizeOf(bytes) {
  const [size, unit] = bytes < 1e6 ? [bytes / 1e3, 'kB'] : bytes < 1e9 ? [bytes / 1e6, 'MB'] : [bytes / 1e9, 'GB'];
  return `${size < 10 ? size.toFixed(1) : Math.floor(size)} ${unit}`;
}

/** When the log is full; nobody knows it of a run that has just begun. @param {number | null | undefined} seconds */
const leftOf = (seconds) => (typeof seconds !== 'number' ? undefined : seconds === 0 ? 'now' : `in ${ageText(seconds * 1000)}`);

/** For how long there is room for what waits for the broker, at the pace of lately; unknown is no number. @param {{buffer_seconds_left: number | null}} uplink */
export function bufferOf({ buffer_seconds_left: seconds }) {
  const hours = (seconds ?? NaN) / 3600;
  return Number.isFinite(hours) ? `${hours < 100 ? hours.toFixed(1) : Math.floor(hours)} h` : undefined;
}

/** @param {Found} found */
function brokerCard(found) {
  const { system } = found;
  const uplink = system?.uplink;
  if (uplink === null) return card('Broker', fact('Connection', 'no broker configured', '', 'what is measured stays on this bridge'));
  const rejected = stands(found, 'uplink_rejected');
  const since = uplink?.since ? `since ${clockOf(Date.parse(uplink.since), true)}` : uplink && 'since the start of the bridge';
  const parked = uplink?.parked;
  return card('Broker',
    fact('Connection', uplink && `${uplink.connected ? 'connected' : 'not reached'} ${since}`, uplink?.connected ? 'good' : 'bad', uplink?.connected ? '' : uplink?.reason),
    fact('Waiting for it', uplink?.waiting, '', 'events that it has not confirmed'),
    fact('Backlog', uplink?.backlog, '', uplink?.backlog_seconds ? `sent in about ${longOf(uplink.backlog_seconds)}` : ''),
    fact('Parked', parked, parked ? 'bad' : '', parked ? 'it refused them; they are kept and not sent' : ''),
    rejected && fact('It says', rejected.message, 'bad'));
}

/** @param {Context} context @param {Found} found */
function clockCard({ client }, found) {
  const { wall } = client;
  const unset = stands(found, 'clock_unsynchronised');
  const differs = wall === undefined ? undefined : Date.now() - wall;
  const isFar = differs !== undefined && Math.abs(differs) > CLOCKS_MS;
  return card('Clock',
    fact('Time of the bridge', wall === undefined ? undefined : clockOf(wall, true)),
    fact('Synchronised', found.alerts === undefined ? undefined : unset ? 'no' : 'no complaint', unset ? 'bad' : '', unset ? unset.message : ''),
    fact('This browser', differs === undefined ? undefined : isFar ? `${ageText(Math.abs(differs))} ${differs > 0 ? 'ahead' : 'behind'}` : 'agrees', isFar ? 'bad' : 'good', isFar ? 'times here are the bridge\'s' : ''));
}

/** @param {Found} found */
function alertingCard(found) {
  const { metrics, alerts } = found;
  const own = alerts?.filter(({ patient_id: patient, priority }) => !patient && priority !== 'info') ?? [];
  const undelivered = metrics?.get('alerts_undelivered');
  return card('Alerting',
    fact('Screens that show alerts', metrics?.get('annunciators'), metrics?.get('annunciators') === 0 ? 'bad' : ''),
    fact('Alerts that nobody has shown', undelivered, undelivered ? 'bad' : 'good'),
    fact('Local fallback failed', metrics?.get('fallback_failed_total'), metrics?.get('fallback_failed_total') ? 'bad' : ''),
    make('div', { class: 'fact wide' }, make('dt', {}, 'Alerts of the bridge'), make('dd', {}, alerts === undefined ? UNKNOWN : own.length === 0 ? 'none'
      : make('ul', {}, own.map(({ priority, message, onset }) => make('li', {}, priorityMark(priority), ` ${message} · since ${clockOf(Date.parse(onset), true)}`))))));
}

/** @param {Found} found */
function radioCard({ ble, metrics }) {
  const radio = ble?.radio;
  return card('Connections and radio',
    fact('Open connections', metrics?.get('connections')),
    fact('Users online', metrics?.get('users_online')),
    fact('Not healthy', metrics?.get('connections_unhealthy'), metrics?.get('connections_unhealthy') ? 'bad' : ''),
    fact('Refused for a limit', metrics?.get('connections_refused_total')),
    fact('Bluetooth', ble === undefined ? undefined : radio === null ? 'not used' : radio.obstacle ? String(radio.reason ?? radio.obstacle) : 'up', radio?.obstacle ? 'bad' : ''));
}

/** Who is connected, for administrators. @param {Found} found @param {HTMLElement} place */
function drawConnections({ connections }, place) {
  if (connections === undefined) {
    fill(place, make('p', { class: 'quiet-text' }, 'Who is connected is shown to the role admin.'));
    return;
  }
  fill(place, make('h3', {}, 'Who is connected'), table('Connections', ['User', 'Role', 'From', 'State', 'Since', 'Round trip', 'Waiting', 'Client'], connections.map(({ connection_id: id, health }) => [
    health.user_id === null || health.user_id === undefined ? 'not signed in' : String(health.user_id), health.role ?? '–', health.address ?? '–', health.is_healthy ? health.state : `${health.state}, not healthy`,
    clockOf(Date.parse(health.connected_at), true), typeof health.rtt_ms === 'number' ? `${health.rtt_ms.toFixed(1)} ms` : UNKNOWN, health.queue_len > 0 ? `${health.queue_len} (${health.queue_bytes} B)` : '0',
    make('span', { title: id }, health.client ?? '–'),
  ])));
}

