/**
 * The sound of a page that would get no alarm: three pulses, again and again (IEC 60601-1-8, a burst of medium priority).
 *
 * A browser lets a page sound only after somebody has touched it; until then {@link isBlocked} says so.
 * @module
 */

/** Frequency in Hz, length of a pulse, from one pulse to the next, and from one burst to the next, in s. */
const PULSE = { hz: 660, length: 0.15, every: 0.35, count: 3, rise: 0.02 };
const BURST_EVERY_MS = 5000;
const LOUDNESS = 0.4;

/** @type {AudioContext | undefined} */
let context;
/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;

/** Somebody has touched the page: from now on it may sound. */
function unlock() {
  context ??= new AudioContext();
  context.resume();
}
for (const gesture of ['pointerdown', 'keydown']) addEventListener(gesture, unlock);

/** True while the browser would not let the page sound. */
export const isBlocked = () => context?.state !== 'running';

function burst() {
  if (!context || context.state !== 'running') return;
  for (let pulse = 0; pulse < PULSE.count; pulse += 1) {
    const begin = context.currentTime + pulse * PULSE.every;
    const tone = new OscillatorNode(context, { frequency: PULSE.hz, type: 'triangle' });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.setValueAtTime(0, begin);
    gain.gain.linearRampToValueAtTime(LOUDNESS, begin + PULSE.rise);
    gain.gain.setValueAtTime(LOUDNESS, begin + PULSE.length - PULSE.rise);
    gain.gain.linearRampToValueAtTime(0, begin + PULSE.length);
    tone.connect(gain).connect(context.destination);
    tone.start(begin);
    tone.stop(begin + PULSE.length);
  }
}

/** Sounds, or is still. @param {boolean} on */
export function sound(on) {
  if (on === (timer !== undefined)) return;
  clearInterval(timer);
  timer = undefined;
  if (!on) return;
  timer = setInterval(burst, BURST_EVERY_MS);
  burst();
}
