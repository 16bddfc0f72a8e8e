/**
 * Draws one alert as a filled box: icon, asterisks, text, since when, and the button that acknowledges it.
 * @module
 */

import { describe, hide, mark, stamp, within, write } from './dom.js';

/** @typedef {import('./ward.js').ShownAlert} ShownAlert @typedef {import('./app.js').State} State */

/** A longer text of an alert is drawn smaller, in characters. */
const LONG_TITLE = 34;

/** The alert that a button stands for, as it was drawn: what the person saw counts. @type {WeakMap<Element, ShownAlert>} */
const drawnOn = new WeakMap();

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
      const shown = drawnOn.get(button);
      if (shown) state.acknowledge([shown]);
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
  drawnOn.set(button, alert);
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
