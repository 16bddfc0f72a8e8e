/**
 * All pages but the ward and the bedside: finds the page of an address, frames it, and closes it again.
 *
 * app.js imports this when it is first needed and calls {@link open} with the address, and {@link close} when the ward or a bedside is
 * shown again. The bar above, the alarms and the connection stay app.js's.
 * @module
 */

import { routeOf } from './dom.js';
import { fill, hide, make, write } from './elements.js';
import { ask, isAbort, ownerOf, token, wordsOf } from './rest.js';

/** How often the frame looks at the connection, in ms. */
const WATCH_MS = 500;

/**
 * @typedef {import('./vitalbridge.js').VitalBridge} VitalBridge
 * @typedef {{id: string, name: string, bed: string, ward: string, mode: string}} Patient
 * @typedef {{client: VitalBridge, root: HTMLElement, state: import('./app.js').State}} Given What app.js hands over.
 * @typedef {{client: VitalBridge, owner: import('./rest.js').Owner, patients: Patient[], patient: Patient | undefined,
 *   query: URLSearchParams, signal: AbortSignal, title: (text: string) => void, lostAfterMs: (metric: string, patient?: string) => number, says: (alert: any) => string}} Context What a page gets: `signal` is aborted
 *   when it is left, `lostAfterMs` is the age from which a continuous number of a patient is no number any more.
 * @typedef {{show: (place: HTMLElement, context: Context) => Promise<void> | void}} Page
 * @typedef {{title: string, ofPatient: boolean, load: () => Promise<Page>}} Route
 */

/** @type {Record<string, Route>} */
const ROUTES = {
  trends: { title: 'Trends', ofPatient: true, load: () => import('./trends.js') },
  limits: { title: 'Alarm limits', ofPatient: true, load: () => import('./limits.js') },
  alarms: { title: 'Alarms', ofPatient: false, load: () => import('./alarms.js') },
  devices: { title: 'Devices', ofPatient: false, load: () => import('./devices.js') },
  system: { title: 'System', ofPatient: false, load: () => import('./system.js') },
};

/** Pages that a person finds from everywhere. */
const MENU = [['#/', 'Ward'], ['#/alarms', 'Alarms'], ['#/devices', 'Devices'], ['#/system', 'System']];

/** The page that is open: aborted when it is left. @type {AbortController | undefined} */
let current;
/** @type {HTMLElement | undefined} */
let place;
/** @type {Promise<void> | undefined} */
let styled;

/** Loads what the pages look like, once. */
function style() {
  styled ??= new Promise((resolve) => {
    const sheets = ['vendor/uPlot.min.css', 'pages.css'].map((href) => make('link', { rel: 'stylesheet', href }));
    let left = sheets.length;
    // A page without its look is still a page.
    const done = () => {
      left -= 1;
      if (left === 0) resolve();
    };
    for (const sheet of sheets) {
      sheet.addEventListener('load', done);
      sheet.addEventListener('error', done);
    }
    document.head.append(...sheets);
  });
  return styled;
}

/**
 * Opens the page of an address in the place of the one before.
 * @param {string} route
 * @param {Given} given
 */
export async function open(route, given) {
  const { client, root, state } = given;
  close();
  const mine = new AbortController();
  current = mine;
  place = root;
  const { name, patient: id, query } = routeOf(route);
  const known = Object.hasOwn(ROUTES, name) ? ROUTES[name] : undefined;
  await style();
  if (mine.signal.aborted) return;
  const frame = frameOf(known?.title ?? 'No such page', name);
  root.replaceChildren(frame.element);
  watch(client, frame, mine.signal);
  frame.heading.focus();
  if (!known) {
    fill(frame.body, make('p', { class: 'say' }, 'There is no page of this address. ', make('a', { href: '#/' }, 'Back to the ward')));
    return;
  }
  fill(frame.body, make('p', { class: 'say', role: 'status' }, 'Loading …'));
  try {
    const [page, { patients }] = await Promise.all([known.load(), ask('/api/v1/patients', { signal: mine.signal })]);
    if (mine.signal.aborted) return;
    const patient = patients.find((/** @type {Patient} */ one) => one.id === id);
    if (known.ofPatient && !patient) {
      fill(frame.body, make('p', { class: 'say' }, 'There is no such patient, or your token does not show one. ', make('a', { href: '#/' }, 'Back to the ward')));
      return;
    }
    frame.about(known.ofPatient ? patient : undefined);
    frame.body.replaceChildren();
    const lostAfterMs = (/** @type {string} */ metric, whose = id) => state.ward.timesOf(whose, metric).lostAfterMs;
    const title = (/** @type {string} */ text) => write(frame.heading, text);
    await page.show(frame.body, { client, owner: ownerOf(token()), patients, patient, query, signal: mine.signal, title, lostAfterMs, says: (alert) => state.ward.says(alert) });
  } catch (cause) {
    if (mine.signal.aborted || isAbort(cause)) return;
    const again = () => open(route, given);
    fill(frame.body, make('div', { class: 'say', role: 'alert' }, make('p', {}, wordsOf(cause)), make('button', { type: 'button', class: 'press', on: { click: again } }, 'Try again')));
  }
}

/** Leaves the page that is open: its requests end and its listeners are gone. */
export function close() {
  current?.abort();
  current = undefined;
  place?.replaceChildren();
  place = undefined;
}

/** What stands around each page. @param {string} title @param {string} name */
function frameOf(title, name) {
  const heading = make('h2', { tabindex: '-1', class: 'page-title' }, title);
  const whose = make('p', { class: 'page-whose' });
  const links = make('nav', { class: 'page-links', 'aria-label': 'This patient', hidden: true });
  const menu = make('nav', { class: 'page-menu', 'aria-label': 'Pages' }, MENU.map(([href, text]) =>
    make('a', { href, 'aria-current': href === `#/${name}` ? 'page' : undefined }, text)));
  const old = make('p', { class: 'page-old', role: 'status', hidden: true });
  const head = make('div', { class: 'page-head' }, make('div', { class: 'page-name' }, heading, whose), links, menu);
  const body = make('div', { class: 'page-body', role: 'region', 'aria-label': `${title}: contents`, tabindex: '0' });
  const element = make('main', { class: 'page', 'data-page': name, 'aria-label': title }, head, old, body);
  const about = (/** @type {Patient | undefined} */ patient) => {
    if (!patient) return;
    write(whose, [patient.bed && `Bed ${patient.bed}`, patient.name || patient.id].filter(Boolean).join(' · '));
    const id = encodeURIComponent(patient.id);
    const pages = [[`#/patient/${id}`, 'Bedside', 'patient'], [`#/trends/${id}`, 'Trends', 'trends'], [`#/limits/${id}`, 'Limits', 'limits']];
    fill(links, pages.map(([href, text, page]) => make('a', { href, 'aria-current': page === name ? 'page' : undefined }, text)));
    hide(links, false);
  };
  return { element, heading, body, old, about };
}

/**
 * Says that what stands here may be old while the connection is lost.
 * @param {VitalBridge} client
 * @param {{element: HTMLElement, old: HTMLElement}} frame
 * @param {AbortSignal} signal
 */
function watch(client, { element, old }, signal) {
  const look = () => {
    const lost = client.isLost || client.state === 'stopped';
    const since = new Date(client.contactWall ?? NaN);
    const time = Number.isNaN(since.getTime()) ? '' : ` ${since.toTimeString().slice(0, 8)}`;
    write(old, lost ? `NO CONNECTION: what stands here was last known${time && ` at${time}`}.` : '');
    hide(old, !lost);
    if (element.dataset.lost !== String(lost)) element.dataset.lost = String(lost);
  };
  look();
  const timer = setInterval(look, WATCH_MS);
  signal.addEventListener('abort', () => clearInterval(timer));
}

/**
 * Hears an event of the connection until the page is left.
 * @param {Context} context
 * @param {string} name
 * @param {(detail: any) => void} act
 */
export function hear({ client, signal }, name, act) {
  client.addEventListener(name, (event) => act(/** @type {CustomEvent} */ (event).detail), { signal });
}

/**
 * Does something now and again until the page is left; the next time begins after the one before has ended.
 * @param {Context} context
 * @param {number} everyMs
 * @param {() => Promise<void> | void} act never rejects
 */
export function repeat({ signal }, everyMs, act) {
  const timer = setInterval(async () => {
    if (busy || document.visibilityState !== 'visible') return;
    busy = true;
    await act();
    busy = false;
  }, everyMs);
  let busy = false;
  signal.addEventListener('abort', () => clearInterval(timer));
}
