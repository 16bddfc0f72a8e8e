// The ward in a window of the demo, as tests look at it, and a socket beside it that speaks the protocol by hand.

import assert from 'node:assert/strict';
import { until } from './real.mjs';

/** Patients of the demo. */
export const PATIENTS = 8;

/** Every number on the page: whose, which, its digits, its state, and the event it came from. */
export const numbersOf = (from) => from.evaluate(() => [...document.querySelectorAll('.tile')].flatMap((tile) =>
  [...tile.querySelectorAll('.cell')].map((cell) => ({
    patient: tile.dataset.patient,
    cell: cell.dataset.cell,
    text: cell.querySelector('.number').textContent,
    state: cell.dataset.state,
    seq: cell.dataset.seq === undefined ? undefined : Number(cell.dataset.seq),
    note: cell.querySelector('.note').textContent.trim(),
  }))));

export const isNumber = ({ text }) => /\d/.test(text);

/** Waits until each of the patients has a live number. */
export const untilLive = (from) => until('live numbers of every patient', async () => {
  const live = (await numbersOf(from)).filter((number) => isNumber(number) && number.state === 'live');
  return new Set(live.map(({ patient }) => patient)).size === PATIENTS && live;
});

/** Opens the link that the demo printed, and gives the numbers. */
export async function signIn(page, daemon) {
  await page.goto(daemon.link);
  return untilLive(page);
}

/** A second page without the dashboard, whose own socket speaks the protocol by hand and keeps every reading by its number. */
export async function observe(context, daemon) {
  const response = await fetch(`${daemon.origin}/api/v1/sign-in`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ code: daemon.code }),
  });
  assert.equal(response.status, 200, 'a demo\'s code can be used again');
  const { token } = await response.json();
  const observer = await context.newPage();
  await observer.goto(`${daemon.origin}/icon.svg`);
  await observer.evaluate((jwt) => {
    globalThis.readings = {};
    globalThis.jwt = jwt;
    const socket = new WebSocket(`ws://${location.host}/ws`);
    const send = (frame) => socket.send(JSON.stringify(frame));
    const keep = (data) => {
      globalThis.readings[data.seq] = data;
    };
    socket.onmessage = ({ data: text }) => {
      const frame = JSON.parse(text);
      if (frame.type === 'welcome') send({ type: 'authenticate', token: jwt, correlation_id: 'o1' });
      if (frame.type === 'authenticated') send({ type: 'subscribe', channels: ['patient/+/+'], correlation_id: 'o2' });
      if (frame.type === 'snapshot') frame.data.readings.forEach(keep);
      // The digits as they came over the wire, not as JavaScript writes them.
      if (frame.type === 'health_update') keep({ ...frame.data, seq: frame.seq, wire: /"value":([^,}]+)/.exec(text)[1] });
    };
  }, token);
  await until('the observer receives', () => observer.evaluate(() => Object.keys(globalThis.readings).length > 0));
  return observer;
}
