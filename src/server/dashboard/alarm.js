/**
 * Draws one alert as a filled box: icon, asterisks, text, since when, and the button that acknowledges it.
 * @module
 */

import { describe, hide, mark, stamp, within, write } from './dom.js';

/** @typedef {import('./ward.js').ShownAlert} ShownAlert @typedef {import('./app.js').State} State */

/** A longer text of an alert is drawn smaller, in characters. */
const LONG_TITLE = 34;

/** Nobody reads and presses sooner: a press was meant for what stood there before, in ms. */
export const READ_MS = 700;
/** What is said to who was too early. */
export const TOO_EARLY = 'The alarms have just changed. Read them, then press again.';
/** So long an alert stands in a place that several share, and while one waits that nobody was shown yet, in ms. */
const TURN_MS = 4000;
const SHORT_TURN_MS = 1500;

/** The alert that a button stands for, as it was drawn, and since when: what the person saw counts. @type {WeakMap<Element, {alert: ShownAlert, since: number}>} */
const drawnOn = new WeakMap();

/** What there is to read of an alert: whoever has paused or acknowledged it has read that. @param {ShownAlert} alert */
export const toRead = (alert) => [alert.alertId, alert.priority, alert.title, alert.action].join('|');

/**
 * Gives several alerts their turn in one place: each is shown once, the most urgent first, then those stay that are as urgent as
 * the first.
 */
export class Turns {
  #shown = '';
  #since = -Infinity;

  /**
   * @param {ShownAlert[]} alerts the most urgent first
   * @param {(alert: ShownAlert) => boolean} isNew nobody was shown it
   * @param {number} now
   * @returns {ShownAlert | undefined}
   */
  pick(alerts, isNew, now) {
    const shown = alerts.find(({ alertId }) => alertId === this.#shown);
    const waiting = alerts.find((alert) => alert !== shown && (alert.active || alert.audible) && isNew(alert));
    const isOver = now - this.#since >= (waiting ? SHORT_TURN_MS : TURN_MS);
    const isUrgent = shown !== undefined && waiting !== undefined && waiting.stars.length > shown.stars.length;
    if (shown && !isOver && !isUrgent) return shown;
    const [first] = alerts;
    const equal = alerts.filter(({ priority, active }) => priority === first?.priority && active === first.active);
    const next = waiting ?? equal[(shown ? equal.indexOf(shown) + 1 : 0) % equal.length];
    this.#shown = next?.alertId ?? '';
    this.#since = now;
    return next;
  }
}

/**
 * @param {HTMLElement} place where the box stands; it says so if there is no alert
 * @param {ShownAlert | undefined} alert
 * @param {string} whose for people who cannot see where it stands
 * @param {State} state
 */
export function drawAlarm(place, alert, whose, state) {
  let node = /** @type {HTMLElement | null} */ (place.querySelector('.alarm'));
  if (!alert) {
    write(place, state.link === 'live' && !state.isAlarmless ? 'no alert' : 'alert state unknown');
    return;
  }
  const detail = [state.link === 'lost' && 'LAST KNOWN', alert.detail].filter(Boolean).join(' · ');
  if (!node) {
    node = stamp('alarm-template');
    place.replaceChildren(node);
    const button = within(node, '.acknowledge');
    button.addEventListener('click', () => {
      const drawn = drawnOn.get(button);
      if (!drawn) return;
      if (performance.now() - drawn.since < READ_MS) state.toast(TOO_EARLY);
      else state.acknowledge([drawn.alert]);
    });
  }
  const changed = node.dataset.priority !== alert.priority || node.dataset.active !== String(alert.active);
  mark(node, 'priority', alert.priority);
  mark(node, 'active', String(alert.active));
  mark(node, 'unknown', alert.unknown ? 'true' : '');
  if (changed) inStep(node);
  describe(within(node, 'use'), 'href', `#icon-${alert.unknown ? 'unknown' : alert.priority}`);
  write(within(node, '.alarm-title'), `${alert.stars} ${alert.title}`);
  mark(node, 'special', detail && 'true');
  mark(node, 'long', alert.title.length > LONG_TITLE ? 'true' : '');
  write(within(node, '.alarm-detail'), detail);
  write(within(node, '.alarm-since'), detail ? `· ${alert.since}` : alert.since);
  const button = /** @type {HTMLButtonElement} */ (within(node, '.acknowledge'));
  const known = drawnOn.get(button);
  drawnOn.set(button, { alert, since: known && toRead(known.alert) === toRead(alert) ? known.since : performance.now() });
  hide(button, alert.action === '' || !state.mayAcknowledge);
  button.disabled = state.acknowledging.has(alert.alertId) || !state.isConnected;
  mark(button, 'alert', alert.alertId);
  mark(button, 'seq', String(alert.seq));
  write(button, alert.action === 'Reset' ? 'Reset' : 'Ack');
  describe(button, 'aria-label', `${alert.action}: ${whose}, ${alert.title}`);
}

/** All that flashes does so in step: the start of the document's timeline is the common beginning. @param {Element} node */
export function inStep(node) {
  for (const animation of node.getAnimations()) animation.startTime = 0;
}

/** The alert in the box at a place, if it is drawn there as it is now. @param {Element | null | undefined} place @param {ShownAlert} alert */
export function isDrawn(place, alert) {
  const button = /** @type {HTMLElement | null | undefined} */ (place?.querySelector('.acknowledge'));
  return button?.dataset.alert === alert.alertId && button.dataset.seq === String(alert.seq);
}
