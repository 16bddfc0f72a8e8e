/**
 * The alarm sounds: bursts of pulses after IEC 60601-1-8, one at a time, of the highest priority that asks for attention.
 *
 * Every sound is made from numbers. A browser lets a page sound only after somebody has touched it, or where its start says
 * so (a kiosk); until then {@link isBlocked} says so.
 * @module
 */

/**
 * What a burst is made of, in s. `gaps` are the pauses between the pulses: x and 2x + a pulse for high, y for medium; the
 * pause in the middle of high is 0.35 to 1.3 s. `rest` is the pause between two bursts: 2.5 to 15 s for high, 2.5 to 30 s for
 * medium, above 15 s for low (tables 3 and 4 of the standard).
 * @type {Record<'high' | 'medium' | 'low', {hz: number, pulse: number, gaps: number[], rest: number}>}
 */
export const BURSTS = {
  high: { hz: 784, pulse: 0.15, gaps: [0.1, 0.1, 0.35, 0.1, 0.7, 0.1, 0.1, 0.35, 0.1], rest: 3 },
  medium: { hz: 659, pulse: 0.2, gaps: [0.2, 0.2], rest: 6 },
  low: { hz: 523, pulse: 0.2, gaps: [], rest: 18 },
};
/** @typedef {keyof typeof BURSTS} Priority */
/** Rise and fall of a pulse, as a part of it: 10 to 40 %. */
const RISE = 0.15;
/** Strength of the fundamental and its harmonics: at least four of them are within 15 dB of it, so that it can be located. */
const HARMONICS = [0, 1, 0.8, 0.6, 0.5, 0.4];
const LOUDNESS = 0.5;
/** A sound is told to the machine so long before it begins, in s. */
const AHEAD = 0.02;
/** How often the loudspeaker's own clock calls, in s. */
const TICK = 1;
const RANK = { '': 0, low: 1, medium: 2, high: 3 };

/**
 * When the pulses of a burst begin after its own beginning, and how long it takes, in s.
 * @param {Priority} priority
 */
export function pulsesOf(priority) {
  const { pulse, gaps, rest } = BURSTS[priority];
  const begins = [0];
  for (const gap of gaps) begins.push(/** @type {number} */ (begins.at(-1)) + pulse + gap);
  const length = /** @type {number} */ (begins.at(-1)) + pulse;
  return { begins, length, every: length + rest };
}

/** @type {AudioContext | undefined} */
let context;
/** What asks for attention now. @type {'' | Priority} */
let wanted = '';
/** The burst that sounds or sounded last: how urgent, when it is over and when the next of its kind begins, in s. */
let last = { priority: /** @type {'' | Priority} */ (''), end: 0, next: 0 };
/** The burst that sounds. @type {GainNode | undefined} */
let sounding;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** Called when the browser begins or ends to block. @type {() => void} */
let onChange = () => {};
/** Called by the loudspeaker's clock. @type {() => void} */
let onTick = () => {};
let isTicking = false;

/** Tries to sound, and is told when that becomes possible. @param {() => void} [changed] */
export function unlock(changed) {
  if (changed) onChange = changed;
  if (!context) {
    try {
      context = new AudioContext();
    } catch {
      // A browser that has no sound: the page says AUDIO BLOCKED.
      return;
    }
    context.addEventListener('statechange', () => {
      onChange();
      next();
      tick();
    });
    tick();
  }
  if (context.state !== 'running') context.resume().catch(() => {});
}

/**
 * Calls about once a second for as long as the page may sound. The browser holds the timers of a page that nobody sees back, by up
 * to a minute; the loudspeaker's clock it does not.
 * @param {() => void} act
 */
export function everySecond(act) {
  onTick = act;
}

function tick() {
  if (isTicking || !context || context.state !== 'running') return;
  isTicking = true;
  const silence = new ConstantSourceNode(context, { offset: 0 });
  silence.connect(context.destination);
  silence.addEventListener('ended', () => {
    isTicking = false;
    tick();
    next();
    onTick();
  });
  silence.start();
  silence.stop(context.currentTime + TICK);
}

/** True while the browser would not let the page sound. */
export const isBlocked = () => context?.state !== 'running';

/** @param {AudioContext} audio @param {Priority} priority */
function burst(audio, priority) {
  const { hz, pulse } = BURSTS[priority];
  const { begins, length, every } = pulsesOf(priority);
  const start = audio.currentTime + AHEAD;
  const out = new GainNode(audio);
  out.connect(audio.destination);
  sounding = out;
  const wave = new PeriodicWave(audio, { imag: HARMONICS, real: HARMONICS.map(() => 0) });
  for (const offset of begins) {
    const begin = start + offset;
    const tone = new OscillatorNode(audio, { frequency: hz, type: 'custom', periodicWave: wave });
    const gain = new GainNode(audio, { gain: 0 });
    gain.gain.setValueAtTime(0, begin);
    gain.gain.linearRampToValueAtTime(LOUDNESS, begin + pulse * RISE);
    gain.gain.setValueAtTime(LOUDNESS, begin + pulse * (1 - RISE));
    gain.gain.linearRampToValueAtTime(0, begin + pulse);
    tone.connect(gain).connect(out);
    tone.start(begin);
    tone.stop(begin + pulse);
  }
  last = { priority, end: start + length, next: start + every };
}

/** Ends what sounds. */
function hush() {
  sounding?.disconnect();
  sounding = undefined;
  last = { priority: '', end: 0, next: 0 };
}

/** Sounds the next burst when it is due. */
function next() {
  clearTimeout(timer);
  if (!wanted || !context || context.state !== 'running') return;
  // Another priority need not wait for the next burst of the one before, but for the end of the one that sounds.
  const at = last.priority === wanted ? last.next : last.end;
  const wait = at - context.currentTime;
  if (wait <= 0) burst(context, wanted);
  timer = setTimeout(next, 1000 * Math.max(0.05, wait <= 0 ? last.next - context.currentTime : wait));
}

/** Sounds for this priority from now on, or is still. @param {'' | Priority} priority */
export function sound(priority) {
  // Whoever says it again is a clock as well.
  if (priority === wanted) return next();
  // What is more urgent interrupts; what is less urgent lets the burst end; silence is at once.
  if (priority === '' || RANK[priority] > RANK[last.priority]) hush();
  wanted = priority;
  next();
}
