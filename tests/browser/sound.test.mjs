// The alarm sounds against IEC 60601-1-8, tables 3 and 4: how many pulses, how long, how far apart, and which of two is heard.

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { BURSTS, pulsesOf } from '../../src/server/dashboard/sound.js';

/** The standard, in s. `gaps` of high: x, x, 2x + a pulse, x, the middle, and the same again. */
const STANDARD = {
  high: { pulses: 10, pulse: [0.075, 0.2], x: [0.05, 0.125], middle: [0.35, 1.3], rest: [2.5, 15] },
  medium: { pulses: 3, pulse: [0.125, 0.25], x: [0.125, 0.25], rest: [2.5, 30] },
  low: { pulses: 1, pulse: [0.125, 0.25], rest: [15, Infinity] },
};

const within = (value, [low, high], what) => assert.ok(value >= low - 1e-9 && value <= high + 1e-9, `${what}: ${value} s, not ${low} to ${high} s`);

for (const [priority, standard] of Object.entries(STANDARD)) {
  test(`a burst of ${priority} priority has ${standard.pulses} pulses as the standard has them`, () => {
    const { hz, pulse, rest } = BURSTS[priority];
    const { begins, length, every } = pulsesOf(priority);
    assert.equal(begins.length, standard.pulses);
    within(pulse, standard.pulse, 'pulse');
    within(rest, standard.rest, 'rest');
    assert.ok(hz >= 150 && hz <= 1000, 'fundamental');
    assert.ok(Math.abs(every - length - rest) < 1e-9);
    const gaps = begins.slice(1).map((begin, at) => begin - begins[at] - pulse);
    if (priority === 'medium') for (const gap of gaps) within(gap, standard.x, 'y');
    if (priority !== 'high') return;
    assert.equal(pulse, 0.15);
    const [x] = gaps;
    within(x, standard.x, 'x');
    const half = [x, x, 2 * x + pulse, x];
    within(gaps[4], standard.middle, 'middle');
    [...half, gaps[4], ...half].forEach((gap, at) => assert.ok(Math.abs(gap - gaps[at]) < 1e-9, `gap ${at + 1}: ${gaps[at]}`));
  });
}

test('what is more urgent sounds faster', () => {
  const paces = ['high', 'medium', 'low'].map((priority) => pulsesOf(priority).every);
  assert.deepEqual(paces, [...paces].sort((a, b) => a - b));
});

/** One tick of the loudspeaker's time, in s. */
const TICK = 0.01;
let players = 0;

/**
 * The page's sounds on a loudspeaker whose time the test counts: what is heard, as pulses in the order of their beginnings, each
 * ended where its burst was cut off.
 */
async function player(t, { state = 'running' } = {}) {
  mock.timers.enable({ apis: ['setTimeout'] });
  const parameter = { setValueAtTime() {}, linearRampToValueAtTime() {} };
  const pulses = [];
  let now = 0;
  class Part {
    cutAt = Infinity;
    gain = parameter;
    connect(next) {
      this.next = next;
      return next;
    }
    disconnect() {
      this.cutAt = now;
    }
  }
  class Oscillator extends Part {
    constructor(_, { frequency }) {
      super();
      this.hz = frequency;
    }
    start(at) {
      assert.ok(at >= now, 'a pulse of the past');
      this.pulse = { hz: this.hz, begin: at, part: this };
      pulses.push(this.pulse);
    }
    stop(at) {
      this.pulse.end = at;
    }
  }
  const silences = [];
  class Silence extends EventTarget {
    connect() {}
    start() {}
    stop(at) {
      silences.push({ at, silence: this });
    }
  }
  const context = Object.assign(new EventTarget(), { state, destination: {}, resume: () => Promise.resolve() });
  Object.defineProperty(context, 'currentTime', { get: () => now });
  const parts = { AudioContext: function AudioContext() { return context; }, GainNode: Part, OscillatorNode: Oscillator, PeriodicWave: class {}, ConstantSourceNode: Silence };
  Object.assign(globalThis, parts);
  t.after(() => {
    mock.timers.reset();
    for (const name of Object.keys(parts)) delete globalThis[name];
  });
  players += 1;
  const { everySecond, sound, unlock } = await import(`../../src/server/dashboard/sound.js?player=${players}`);
  unlock();
  const cutOf = (part) => (part instanceof Part ? Math.min(part.cutAt, cutOf(part.next)) : Infinity);
  return {
    everySecond,
    sound,
    now: () => now,
    /** `isHeldBack`: no timer of the page comes. */
    play(seconds, isHeldBack = false) {
      for (const end = now + seconds; now < end - TICK / 2;) {
        now += TICK;
        if (!isHeldBack) mock.timers.tick(1000 * TICK);
        for (const { silence } of silences.splice(0).filter((due) => due.at <= now || !silences.push(due))) silence.dispatchEvent(new Event('ended'));
      }
    },
    allow() {
      context.state = 'running';
      context.dispatchEvent(new Event('statechange'));
    },
    heard: () => pulses.map(({ hz, begin, end, part }) => ({ priority: Object.keys(BURSTS).find((name) => BURSTS[name].hz === hz), begin, end: Math.min(end, cutOf(part)) }))
      .filter(({ begin, end }) => end > begin && begin < now),
  };
}

/** No two pulses at the same time. */
const oneAtATime = (heard) => heard.slice(1).every(({ begin }, at) => begin >= heard[at].end);

/** What is heard of a script: what alarms, and for how many seconds. */
async function heardOf(t, ...script) {
  const { heard, play, sound } = await player(t);
  for (const [priority, seconds] of script) {
    sound(priority);
    play(seconds);
  }
  const of = (wanted) => heard().filter(({ priority }) => priority === wanted);
  return { all: heard(), high: of('high'), medium: of('medium'), low: of('low') };
}

test('high cuts into a burst of medium: nothing of medium is heard any more, and high begins at once', async (t) => {
  const { all, high, medium } = await heardOf(t, ['medium', 0.3], ['high', 4]);
  assert.deepEqual([medium.length, high.length], [1, 10], 'the second pulse would have begun later');
  assert.ok(high[0].begin - 0.3 < 0.1, `${high[0].begin} s`);
  assert.ok(oneAtATime(all));
});

test('high cuts into a pulse of low, in its middle', async (t) => {
  const { all, low, high } = await heardOf(t, ['low', 0.1], ['high', 1]);
  assert.equal(all[0].priority, 'low');
  assert.ok(low.length === 1 && low[0].end <= 0.11 && high[0].begin >= low[0].end, JSON.stringify(all));
});

test('low waits for the end of a burst of high, which is heard whole', async (t) => {
  const { high, low } = await heardOf(t, ['high', 0.5], ['low', 10]);
  assert.equal(high.length, 10, 'all pulses, and no second burst');
  for (const { begin, end } of high) within(end - begin, [0.15, 0.15], 'pulse');
  assert.ok(low[0].begin >= high.at(-1).end && low[0].begin - high.at(-1).end < 0.2, JSON.stringify(low));
});

test('what is acknowledged is still at once, in the middle of a pulse', async (t) => {
  const { all } = await heardOf(t, ['high', 0.1], ['', 30]);
  assert.equal(all.length, 1);
  within(all[0].end, [0.09, 0.11], 'its end');
});

test('bursts follow each other as the standard has it; a low one is one pulse in more than 15 s', async (t) => {
  for (const [priority, { pulses, rest }] of Object.entries(STANDARD)) {
    const { all } = await heardOf(t, [priority, 120]);
    const bursts = all.filter((_, at) => at % pulses === 0);
    assert.ok(bursts.length >= 3 && bursts.length <= 120 / pulsesOf(priority).every + 1, `${priority}: ${bursts.length}`);
    bursts.slice(1).forEach(({ begin }, at) => within(begin - all[(at + 1) * pulses - 1].end, rest, `${priority}: pause`));
    assert.ok(oneAtATime(all));
    mock.timers.reset();
  }
});

test('timers that the browser holds back in a page that nobody sees hold no burst back: the loudspeaker\'s clock calls', async (t) => {
  const { everySecond, heard, play, sound } = await player(t);
  let calls = 0;
  everySecond(() => {
    calls += 1;
  });
  play(10, true);
  assert.ok(calls >= 9 && calls <= 10, `${calls} calls in 10 s`);
  sound('medium');
  play(60, true);
  const bursts = heard().filter((_, at) => at % 3 === 0);
  assert.ok(bursts.length >= 8, `${bursts.length} bursts in a minute`);
  bursts.slice(1).forEach(({ begin }, at) => within(begin - heard()[3 * at + 2].end, STANDARD.medium.rest, 'pause'));
});

test('while the browser blocks nothing waits in the loudspeaker; once it may it sounds what alarms then', async (t) => {
  const { allow, heard, now, play, sound } = await player(t, { state: 'suspended' });
  sound('high');
  play(20);
  sound('medium');
  play(20);
  assert.deepEqual(heard(), []);
  const allowedAt = now();
  allow();
  play(1.5);
  assert.deepEqual(heard().map(({ priority }) => priority), ['medium', 'medium', 'medium']);
  assert.ok(heard()[0].begin - allowedAt < 0.1);
});

test('whatever comes and goes: never two pulses at once, nothing of what is over, the most urgent within a burst', async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`SEED=${seed}`);
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
  const { heard, now, play, sound } = await player(t);
  let wanted = '';
  const silences = [];
  for (let change = 0; change < 300; change += 1) {
    const before = wanted;
    wanted = ['', 'low', 'medium', 'high'][Math.floor(random() * 4)];
    const from = now();
    sound(wanted);
    play(Math.ceil(random() * 400) * TICK);
    if (wanted === '') silences.push([from, now()]);
    if (wanted === 'high' && before !== 'high') {
      const others = heard().filter(({ priority, end }) => priority !== 'high' && end > from + TICK);
      assert.deepEqual(others, [], `something else while high alarms, after ${from} s, SEED=${seed}`);
    }
  }
  assert.ok(heard().length > 100 && oneAtATime(heard()), `SEED=${seed}`);
  for (const [from, to] of silences) assert.ok(!heard().some(({ begin, end }) => begin < to - TICK && end > from + TICK), `a sound of nothing at ${from} s, SEED=${seed}`);
});
