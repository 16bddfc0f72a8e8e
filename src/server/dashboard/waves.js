/**
 * Waves on a sweeping screen: samples are placed by their number, drawn at a steady pace behind an erase bar, and what is
 * missing stays empty.
 *
 * {@link Track} is pure; {@link Sweep} draws tracks on canvases. Times are of one monotonic clock in ms.
 * @module
 */

/** @typedef {import('./vitalbridge.js').Wave} Wave */
/** @typedef {{at: number, value: number, joins: boolean}} Point When a sample is drawn, and whether a line leads to it. */

/** Paper speeds that can be chosen, in mm/s; the usual one stands in the middle. */
export const SPEEDS = [12.5, 25, 50];
/** A CSS millimetre in CSS pixels; a panel whose real one is known says so. */
const PX_PER_MM = 96 / 25.4;
/** A wave is drawn this much behind its newest sample, so that blocks of a quarter of a second join without a stop, in ms. */
const DELAY_MS = 600;
/** The pace follows the device's clock: so much faster or slower for each ms that the delay is off, and at most. */
const PACE_PER_MS = 0.0001;
const MAX_PACE = 0.05;
/** Samples that come later than they are drawn begin anew: there is a gap. A device that is ahead by more does so too, in ms. */
const MAX_AHEAD_MS = 2500;
/** A hole of unknown length is drawn this long, in ms. */
const HOLE_MS = 120;
/** The empty bar in front of the beam, in CSS pixels. */
const ERASE_PX = 18;
/** Nothing was drawn for so long (a hidden page): the screen begins empty, in ms. */
const MAX_STEP_MS = 500;
/** How much of a lane a wave takes, and what part of its range it keeps from sweep to sweep. */
const FILL = 0.82;
const KEEP = 0.8;
/** So many points that have left the screen are kept before they are thrown away together. */
const MAX_OLD = 64;
/** Blocks that may wait; more are a device that sends faster than it says. */
const MAX_BLOCKS = 64;

/** The samples of one wave on their way to the screen. */
export class Track {
  /** @type {{at: number, each: number, samples: Wave['samples'], joins: boolean}[]} */ #blocks = [];
  #hz = 0;
  /** The number of the sample that is expected next, and when it is due. */
  #next = NaN;
  #due = 0;
  /** So many samples of the first block were taken. */
  #taken = 0;

  /**
   * Takes a block.
   * @param {Wave} wave
   * @param {number} now
   */
  push({ first, hz, samples, gap }, now) {
    if (!(hz > 0) || samples.length === 0) return;
    const length = (1000 * samples.length) / hz;
    const missing = first - this.#next;
    const earliest = now + DELAY_MS - length;
    // A source that began anew, or a silence: the place of the new samples is where they arrive.
    const isAnew = !(missing >= 0) || hz !== this.#hz || this.#due < now;
    let at = isAnew ? Math.max(earliest, this.#due) : this.#due + (1000 * missing) / hz + (gap ? HOLE_MS : 0);
    const isAhead = at > now + MAX_AHEAD_MS || this.#blocks.length >= MAX_BLOCKS;
    if (isAhead) {
      this.#blocks = [];
      this.#taken = 0;
      at = earliest;
    }
    const pace = Math.max(-MAX_PACE, Math.min(MAX_PACE, (earliest - at) * PACE_PER_MS));
    const each = (1000 / hz) * (1 + pace);
    this.#blocks.push({ at, each, samples, joins: !isAnew && !isAhead && missing === 0 && !gap });
    this.#hz = hz;
    this.#next = first + samples.length;
    this.#due = at + each * samples.length;
  }

  /** The samples that are due until now, oldest first; each once. @param {number} now @returns {Point[]} */
  take(now) {
    /** @type {Point[]} */
    const points = [];
    for (let block = this.#blocks[0]; block; block = this.#blocks[0]) {
      const { at, each, samples, joins } = block;
      for (; this.#taken < samples.length; this.#taken += 1) {
        const due = at + each * this.#taken;
        if (due > now) return points;
        points.push({ at: due, value: /** @type {number} */ (samples[this.#taken]), joins: joins || this.#taken > 0 });
      }
      this.#blocks.shift();
      this.#taken = 0;
    }
    return points;
  }

  /** True while something waits to be drawn. @param {number} now */
  isLive(now) {
    return this.#due > now;
  }
}

/** The range of a wave, in which it is drawn: wide enough at once, narrower again from sweep to sweep. */
export class Range {
  low = Infinity;
  high = -Infinity;
  #seenLow = Infinity;
  #seenHigh = -Infinity;

  /** @param {number} value @returns {boolean} true if what is on the screen has another place now */
  see(value) {
    const isWider = value < this.low || value > this.high;
    this.low = Math.min(this.low, value);
    this.high = Math.max(this.high, value);
    this.#seenLow = Math.min(this.#seenLow, value);
    this.#seenHigh = Math.max(this.#seenHigh, value);
    return isWider;
  }

  /** A sweep is over. */
  turn() {
    if (this.#seenHigh >= this.#seenLow) {
      this.low = KEEP * this.low + (1 - KEEP) * this.#seenLow;
      this.high = KEEP * this.high + (1 - KEEP) * this.#seenHigh;
    }
    this.#seenLow = Infinity;
    this.#seenHigh = -Infinity;
  }

  /** Where a value stands, 0 at the foot to 1 at the top of the lane. @param {number} value */
  place(value) {
    const span = this.high - this.low;
    return span > 0 ? (1 - FILL) / 2 + (FILL * (value - this.low)) / span : 0.5;
  }
}

/** Which wave stands in which lane. Two devices that send waves of one name are never drawn as one line. */
export class Lanes {
  /** @type {Map<string, {wave: string, device: string}>} */ #held = new Map();
  /** @type {Record<string, RegExp>} */ #patterns;
  /** @type {string[]} */ #best;

  /** @param {Record<string, RegExp>} patterns which waves a lane takes @param {string[]} best waves that are preferred, the best first */
  constructor(patterns, best) {
    [this.#patterns, this.#best] = [patterns, best];
  }

  clear() {
    this.#held.clear();
  }

  /** The name of the wave in a lane. @param {string} lane @returns {string | undefined} */
  waveIn(lane) {
    return this.#held.get(lane)?.wave;
  }

  /**
   * The lane of a wave: its own, or one that is free. Of several the best stays while it lives, of equal ones that of the first
   * device by name, as it is with numbers.
   * @param {{wave: string, device_id: string}} wave
   * @param {(lane: string) => boolean} isLive
   * @returns {{lane: string, isAnew: boolean} | undefined}
   */
  laneOf({ wave, device_id: device }, isLive) {
    for (const [lane, held] of this.#held) if (held.wave === wave && held.device === device) return { lane, isAnew: false };
    const own = Object.entries(this.#patterns).find(([, pattern]) => pattern.test(wave))?.[0];
    const held = own && this.#held.get(own);
    const better = held && (this.#place(wave) - this.#place(held.wave) || Number(device > held.device) - Number(device < held.device));
    if (held && !(Number(better) < 0) && isLive(own)) return undefined;
    const lane = own ?? Object.keys(this.#patterns).find((free) => !this.#held.has(free));
    if (!lane) return undefined;
    this.#held.set(lane, { wave, device });
    return { lane, isAnew: true };
  }

  /** @param {string} wave */
  #place(wave) {
    return this.#best.includes(wave) ? this.#best.indexOf(wave) : this.#best.length;
  }
}

/**
 * The part of a lane that the erase bar has reached: whole pixels, so that nothing of what was there shines through.
 * @param {number} from where the beam was, in px of an endless lane
 * @param {number} to where it is
 * @param {number} width of the lane
 * @returns {[number, number][]} left edges and widths
 */
export function erased(from, to, width) {
  const begin = Math.floor(from) + ERASE_PX;
  const length = Math.ceil(to) + ERASE_PX - begin + 1;
  if (length >= width) return [[0, width]];
  const left = begin % width;
  return left + length <= width ? [[left, length]] : [[left, width - left], [0, left + length - width]];
}

/**
 * One lane on the screen.
 * @typedef {{canvas: HTMLCanvasElement, context: CanvasRenderingContext2D, track: Track, range: Range, colour: string,
 *   width: number, height: number, points: Point[], isRescaled: boolean, last?: {x: number, y: number}}} Lane `points` are
 *   those on the screen.
 */

/** Several lanes whose beams move side by side. */
export class Sweep {
  /** @type {Map<string, Lane>} */ #lanes = new Map();
  #speed = 25;
  #pxPerMm = PX_PER_MM;
  /** @type {number | undefined} */ #frame;
  /** When the beam stood at the left edge for the first time, and when it was drawn last. */
  #origin = 0;
  #drawn = 0;
  #resize = new ResizeObserver(() => this.#fit());
  /** Drawn once a second where somebody wants no movement. */
  #calm = matchMedia('(prefers-reduced-motion: reduce)');

  /** @param {number} speed in mm/s @param {number} [pxPerMm] of the panel */
  setSpeed(speed, pxPerMm = PX_PER_MM) {
    if (speed === this.#speed && pxPerMm === this.#pxPerMm) return;
    [this.#speed, this.#pxPerMm] = [speed, pxPerMm];
    this.#fit();
  }

  /** @param {string} name @param {HTMLCanvasElement} canvas @param {string} colour */
  add(name, canvas, colour) {
    const context = canvas.getContext('2d');
    if (!context) return;
    this.#lanes.set(name, { canvas, context, track: new Track(), range: new Range(), colour, width: 0, height: 0, points: [], isRescaled: false });
    this.#resize.observe(canvas);
  }

  /** Takes a block for a lane. @param {string} name @param {Wave} wave */
  push(name, wave) {
    const lane = this.#lanes.get(name);
    if (!lane) return;
    lane.track.push(wave, performance.now());
    // Before they are drawn: a beat does not grow while it is on the screen.
    for (const value of wave.samples) lane.isRescaled = lane.range.see(value) || lane.isRescaled;
  }

  /** Another source stands in a lane from now on: nothing of the one before is left in it. @param {string} name @param {string} colour */
  begin(name, colour) {
    const lane = this.#lanes.get(name);
    if (!lane) return;
    Object.assign(lane, { track: new Track(), range: new Range(), points: [], last: undefined, colour });
    lane.context.strokeStyle = colour;
    lane.context.clearRect(0, 0, lane.width, lane.height);
  }

  /** True while a lane has something to show. @param {string} name */
  isLive(name) {
    return this.#lanes.get(name)?.track.isLive(performance.now()) ?? false;
  }

  start() {
    if (this.#frame !== undefined) return;
    this.#origin = performance.now();
    this.#drawn = this.#origin;
    const step = () => {
      this.#frame = requestAnimationFrame(step);
      this.#step(performance.now());
    };
    this.#frame = requestAnimationFrame(step);
  }

  /** Ends drawing and forgets what waits. */
  stop() {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    for (const lane of this.#lanes.values()) [lane.track, lane.range] = [new Track(), new Range()];
    this.#fit();
  }

  /** Gives each canvas the pixels that it has on the screen, and empties all of them. */
  #fit() {
    const ratio = devicePixelRatio || 1;
    for (const lane of this.#lanes.values()) {
      const { canvas, context } = lane;
      [lane.width, lane.height] = [canvas.clientWidth, canvas.clientHeight];
      const [width, height] = [Math.round(lane.width * ratio), Math.round(lane.height * ratio)];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, lane.width, lane.height);
      Object.assign(context, { lineWidth: 2, lineJoin: 'round', lineCap: 'round', strokeStyle: lane.colour });
      lane.last = undefined;
      lane.points = [];
    }
    this.#origin = performance.now();
    this.#drawn = this.#origin;
  }

  /** @param {number} now */
  #step(now) {
    if (this.#calm.matches && now - this.#drawn < 1000) return;
    if (now - this.#drawn > MAX_STEP_MS && !this.#calm.matches) this.#fit();
    const perMs = (this.#speed * this.#pxPerMm) / 1000;
    for (const lane of this.#lanes.values()) if (lane.width > 0) this.#draw(lane, now, perMs);
    this.#drawn = now;
  }

  /** @param {Lane} lane @param {number} now @param {number} perMs px that the beam moves in a ms */
  #draw(lane, now, perMs) {
    const { context, track, range, width, height } = lane;
    const [from, to] = [(this.#drawn - this.#origin) * perMs, (now - this.#origin) * perMs];
    for (const [left, length] of erased(from, to, width)) context.clearRect(left, 0, length, height);
    if (Math.floor(from / width) !== Math.floor(to / width)) range.turn();
    const points = track.take(now);
    if (points.length === 0 && !track.isLive(now)) lane.last = undefined;
    // What the bar has reached is not on the screen any more.
    const oldest = now - (width - ERASE_PX) / perMs;
    const kept = lane.points.findIndex(({ at }) => at > oldest);
    if (kept < 0) lane.points = [];
    else if (kept > MAX_OLD) lane.points.splice(0, kept);
    for (const point of points) lane.points.push(point);
    if (!lane.isRescaled) return this.#stroke(lane, points, perMs);
    lane.isRescaled = false;
    // A wave that grows is drawn anew as a whole: on the screen all of it has one scale.
    context.clearRect(0, 0, width, height);
    lane.last = undefined;
    this.#stroke(lane, lane.points.slice(Math.max(0, lane.points.findIndex(({ at }) => at > oldest))), perMs);
  }

  /** Draws a line through these points, from where the last one ended. @param {Lane} lane @param {Point[]} points @param {number} perMs */
  #stroke(lane, points, perMs) {
    const { context, range, width, height } = lane;
    if (points.length === 0) return;
    context.beginPath();
    let { last } = lane;
    let isDown = false;
    for (const { at, value, joins } of points) {
      const x = (((at - this.#origin) * perMs) % width + width) % width;
      const y = height * (1 - range.place(value));
      // A line that would lead back to the left edge is none.
      if (joins && last && x >= last.x) {
        if (!isDown) context.moveTo(last.x, last.y);
        context.lineTo(x, y);
        isDown = true;
      } else isDown = false;
      last = { x, y };
    }
    context.stroke();
    lane.last = last;
  }
}
