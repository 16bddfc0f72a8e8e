/**
 * One chart of a trend: lines with their gaps, alerts as bands, limits as dashed lines, drawn by uPlot on a canvas.
 * @module
 */

import { make, write } from './elements.js';
import { columns, isAlone } from './series.js';

/** @typedef {import('./series.js').Stream} Stream @typedef {import('./series.js').Band} Band @typedef {import('./series.js').Line} Line */
/** @typedef {import('uplot')} Plot @typedef {typeof import('uplot')} Plotter */
/**
 * @typedef {{name: string, unit: string, metrics: string[], colours: Record<string, string>, room: [number, number], spot?: boolean,
 *   always?: boolean, sparse?: boolean, words?: Record<string, string>}} Kind What a chart is about: `room` is what its axis shows at least, `spot` that each value stands for
 *   itself, `always` that it is there without data, `sparse` that it is measured now and then.
 * @typedef {{from: number, to: number}} Span
 */

/** Width of the axis of values, so that all charts begin at the same place, in CSS pixels. */
export const AXIS_PX = 46;
/** Room on the right of the charts, in CSS pixels. */
export const RIGHT_PX = 10;
/** Room for the times below a chart, in CSS pixels. */
const TIMES_PX = 24;
const NO_TIMES_PX = 5;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Several devices of one metric differ by their dashes. */
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
const COLOURS = { high: '#ff4d5e', medium: '#ffd400', low: '#00c8e0', off: '#92a2b1', text: '#a9b4c0', grid: '#1a232e', behind: '#0b0f14' };
const PARTS = ['systolic', 'diastolic', 'mean'];
const FONT = '12px "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif';

/** @type {Promise<Plotter> | undefined} */
let plotter;

/** uPlot, loaded when it is first needed. It is a classic script and says its name to the window. @returns {Promise<Plotter>} */
export function loadPlotter() {
  plotter ??= new Promise((resolve, reject) => {
    const script = make('script', { src: 'vendor/uPlot.iife.min.js' });
    script.addEventListener('load', () => resolve(/** @type {any} */ (globalThis).uPlot));
    script.addEventListener('error', () => {
      plotter = undefined;
      script.remove();
      reject(new Error('The bridge does not answer: the charts could not be loaded.'));
    });
    document.head.append(script);
  });
  return plotter;
}

const two = (/** @type {number} */ number) => String(number).padStart(2, '0');

/** A time for people: `13:05:10`, with its day if `withDay`. @param {number} at @param {boolean} [withDay] */
export function clockOf(at, withDay = false) {
  const date = new Date(at);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return withDay ? `${dayOf(at)} ${time}` : time;
}

/** @param {number} at */
export function dayOf(at) {
  const date = new Date(at);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** A time of today without its day. @param {number} at @param {number} now */
export const whenOf = (at, now) => clockOf(at, dayOf(at) !== dayOf(now));

/** What stands at the times below a chart: the day at midnight, else the time. @param {number[]} splits @param {number} step */
function timesOf(splits, step) {
  return splits.map((split) => {
    // The axis computes with fractions.
    const at = Math.round(split / 1000) * 1000;
    const date = new Date(at);
    const isMidnight = date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0;
    if (isMidnight || step >= DAY_MS) return `${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    return step < 60_000 ? clockOf(at) : `${two(date.getHours())}:${two(date.getMinutes())}`;
  });
}

/** A chart on the page. */
export class Chart {
  /** @type {Plot | undefined} */ #plot;
  /** @type {Stream[]} */ #streams = [];
  /** @type {import('./series.js').Columns} */ #drawn = { x: [], y: [], late: [], gaps: [] };
  /** @type {Band[]} */ #bands = [];
  /** @type {Line[]} */ #lines = [];
  #made = '';
  #read = '';
  /** @type {(metric: string) => number} */ #lostAfterMs = () => 10_000;
  #key = make('p', { class: 'chart-key' });
  #box;
  #none = make('p', { class: 'chart-none', hidden: true }, 'No readings in this time');

  /**
   * @param {Kind} kind
   * @param {() => Span} span what is shown
   * @param {{zoom: (span: Span) => void, point: (at: number | undefined) => void, now: () => number}} told `now`: the bridge's time
   */
  constructor(kind, span, told) {
    this.kind = kind;
    this.span = span;
    this.told = told;
    this.#box = make('div', { class: 'chart-box', tabindex: '0', role: 'img' });
    this.element = make('section', { class: 'chart', 'data-chart': kind.name },
      make('h3', { class: 'chart-name' }, kind.name, make('span', { class: 'unit' }, kind.unit)), this.#key, this.#box, this.#none);
    this.#box.addEventListener('keydown', (event) => this.#keyed(event));
  }

  /** What is drawn: times, values, gaps. */
  get drawn() {
    return { name: this.kind.name, streams: this.#streams.map(({ metric, device }) => `${metric}|${device}`), ...this.#drawn, bands: this.#bands, lines: this.#lines, span: this.span() };
  }

  /**
   * Draws.
   * @param {Plotter} Made
   * @param {Stream[]} streams
   * @param {Band[]} bands
   * @param {Line[]} lines
   * @param {{width: number, height: number, lostAfterMs: (metric: string) => number, hasTimes: boolean, isWhole: boolean}} how `hasTimes`: the times stand below this chart;
   *   `isWhole`: everything of the span was read
   */
  draw(Made, streams, bands, lines, { width, height: plotHeight, lostAfterMs, hasTimes, isWhole }) {
    const height = plotHeight + (hasTimes ? TIMES_PX : NO_TIMES_PX);
    this.#streams = streams;
    this.#bands = bands;
    this.#lines = lines;
    this.#lostAfterMs = lostAfterMs;
    this.#drawn = columns(streams, this.kind.spot ? () => 0 : lostAfterMs);
    const { from, to } = this.span();
    this.#none.hidden = !isWhole || streams.some(({ points }) => points.some(({ at, value }) => value !== null && at >= from && at < to));
    const data = /** @type {any} */ ([this.#drawn.x, ...this.#drawn.y]);
    const form = JSON.stringify([hasTimes, ...streams.map(({ metric, device }) => [metric, device])]);
    if (this.#plot && form === this.#made) {
      if (this.#plot.width !== width || this.#plot.height !== height) this.#plot.setSize({ width, height });
      this.#plot.setData(data, true);
    } else {
      this.#plot?.destroy();
      this.#made = form;
      this.#plot = new Made(this.#options({ width, height, hasTimes }), data, this.#box);
    }
    this.#describe();
    this.readout(this.cursorAt);
  }

  /** Shows the values at a moment, or those of now. @param {number | undefined} at */
  readout(at) {
    const { from, to } = this.span();
    const key = this.#streams.map((stream) => {
      const point = at === undefined ? undefined : nearest(stream, at, Math.max(this.#lostAfterMs(stream.metric), (to - from) / 100));
      const { value, note } = at === undefined ? this.#present(stream) : { value: point?.text ?? '---', note: (point?.absent ?? '').replaceAll('_', ' ') };
      return { words: this.#words(stream), value, note: point?.late ? 'measured earlier' : note, colour: this.kind.colours[stream.metric] ?? '#ffffff' };
    });
    const form = JSON.stringify(key);
    if (form === this.#read) return;
    this.#read = form;
    this.#key.replaceChildren(...key.map(({ words, value, note, colour }) => {
      const label = make('span', { class: 'chart-label' }, `${words} `, make('b', {}, value), note && ` ${note}`);
      label.style.setProperty('--colour', colour);
      return label;
    }));
  }

  /** The number of now; an old one is never taken for it. @param {Stream} stream @returns {{value: string, note: string}} */
  #present(stream) {
    const { newest } = stream.summary(-Infinity, Infinity);
    const last = stream.points.at(-1);
    if (!newest) return { value: '---', note: (last?.absent ?? '').replaceAll('_', ' ') };
    if (this.kind.spot || this.kind.sparse) return { value: newest.text ?? '---', note: `at ${clockOf(newest.at, dayOf(newest.at) !== dayOf(this.told.now())).slice(0, -3)}` };
    if (last && last.value === null) return { value: '---', note: (last.absent ?? '').replaceAll('_', ' ') };
    if (this.told.now() - newest.at > this.#lostAfterMs(stream.metric)) return { value: '---', note: `since ${clockOf(newest.at)}` };
    return { value: newest.text ?? '---', note: '' };
  }

  /** Moves the cursor to a moment, or away. @param {number | undefined} at */
  point(at) {
    if (!this.#plot) return;
    this.#plot.setCursor({ left: at === undefined ? -10 : this.#plot.valToPos(at, 'x'), top: at === undefined ? -10 : 0 }, false);
    this.readout(at);
  }

  /** The chart goes. */
  destroy() {
    this.#plot?.destroy();
    this.#plot = undefined;
    this.element.remove();
  }

  /** @param {Stream} stream */
  #words({ metric, device }) {
    const words = this.kind.words?.[metric];
    const several = this.#streams.filter((other) => other.metric === metric).length > 1;
    return [words, (!words || several) && device].filter(Boolean).join(' ');
  }

  /** In words, for who sees no canvas. */
  #describe() {
    const { from, to } = this.span();
    const parts = this.#streams.map((stream, at) => {
      const { count, newest, least, greatest } = stream.summary(from, to);
      const gaps = (this.#drawn.gaps[at] ?? []).filter((gap) => gap.to > from && gap.from < to).length;
      const what = `${stream.metric.replaceAll('_', ' ')} of ${stream.device}`;
      if (!newest) return `${what}: no readings`;
      const missing = this.kind.spot ? '' : `, ${gaps === 1 ? '1 gap' : `${gaps} gaps`}`;
      return `${what}: newest ${newest.text} at ${clockOf(newest.at)}, least ${least?.text}, greatest ${greatest?.text}, ${count} points${missing}`;
    });
    const alerts = this.#bands.length > 0 ? `; ${this.#bands.length} alerts` : '';
    this.#box.setAttribute('aria-label', `${this.kind.name}, ${clockOf(from, true)} to ${clockOf(to, true)}. ${parts.join('; ') || 'No readings'}${alerts}. Arrow keys read single values.`);
  }

  /** @param {KeyboardEvent} event */
  #keyed(event) {
    const { from, to } = this.span();
    const steps = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 });
    const step = steps[event.key];
    const middle = this.cursorAt ?? to;
    if (step !== undefined) this.cursorAt = Math.min(to, Math.max(from, middle + (step * (to - from)) / 100));
    else if (event.key === 'Home') this.cursorAt = from;
    else if (event.key === 'End') this.cursorAt = to;
    else if (event.key === 'Escape') this.cursorAt = undefined;
    else if (event.key === '+' || event.key === '-') {
      const half = ((to - from) * (event.key === '+' ? 0.5 : 2)) / 2;
      this.told.zoom({ from: middle - half, to: middle + half });
    } else return;
    event.preventDefault();
    this.told.point(this.cursorAt);
  }

  /** Where the cursor was moved to by keys. @type {number | undefined} */ cursorAt;

  /** @param {{width: number, height: number, hasTimes: boolean}} how @returns {import('uplot').Options} */
  #options({ width, height, hasTimes }) {
    const axis = { stroke: COLOURS.text, font: FONT, grid: { stroke: COLOURS.grid, width: 1 }, ticks: { stroke: COLOURS.grid, width: 1, size: 4 } };
    return {
      width,
      height,
      ms: 1,
      padding: [6, RIGHT_PX, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 7 } },
      scales: { x: { time: true, range: () => [this.span().from, this.span().to] }, y: { range: (plot, least, greatest) => this.#room(least, greatest) } },
      axes: [
        { ...axis, size: hasTimes ? TIMES_PX : NO_TIMES_PX, gap: 3, space: 64, values: (plot, splits, at, space, step) => (hasTimes ? timesOf(splits, step) : splits.map(() => '')) },
        { ...axis, size: AXIS_PX, gap: 4, space: 26 },
      ],
      series: [{}, ...this.#streams.map((stream, at) => this.#serial(stream, at))],
      hooks: {
        drawAxes: [(plot) => this.#drawBands(plot), (plot) => this.#drawLimits(plot)],
        draw: [(plot) => (this.kind.spot ? this.#drawSpots(plot) : undefined), (plot) => this.#drawLate(plot)],
        setSelect: [(plot) => this.#selected(plot)],
        setCursor: [(plot) => {
          // Only what a pointer does; keys have their own way.
          if (/** @type {any} */ (plot.cursor).event) this.told.point((plot.cursor.left ?? -1) < 0 ? undefined : plot.posToVal(plot.cursor.left ?? 0, 'x'));
        }],
      },
    };
  }

  /** @param {Stream} stream @param {number} at @returns {import('uplot').Series} */
  #serial({ metric }, at) {
    const colour = this.kind.colours[metric] ?? '#ffffff';
    const device = this.#streams.slice(0, at).filter((other) => other.metric === metric).length;
    const alone = (/** @type {Plot} */ plot, /** @type {number} */ series) => {
      const y = /** @type {(number | null | undefined)[]} */ (plot.data[series]);
      return y.flatMap((value, index) => (isAlone(y, index) ? [index] : []));
    };
    return {
      stroke: colour,
      width: 1.5,
      // Where two metrics share a chart (heart and pulse rate lie on each other) the second lets the first be seen.
      dash: DASHES[(device + this.kind.metrics.indexOf(metric)) % DASHES.length],
      spanGaps: false,
      ...(this.kind.spot && { paths: () => null }),
      points: this.kind.spot ? { show: false } : { show: () => false, filter: alone, size: 4, fill: colour, stroke: colour },
    };
  }

  /** What the axis shows: all values and limits, and never a tiny range that makes noise look like news. @param {number} least @param {number} greatest @returns {[number, number]} */
  #room(least, greatest) {
    const [low, high] = this.kind.room;
    const levels = this.#lines.filter(({ off }) => !off).map(({ level }) => level);
    const all = [low, high, least, greatest, ...levels].filter((value) => Number.isFinite(value));
    const [bottom, top] = [Math.min(...all), Math.max(...all)];
    const air = (top - bottom) * 0.04;
    return [bottom - air, top + air];
  }

  /** @param {Plot} plot */
  #drawBands(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    for (const { from, to, priority } of this.#bands) {
      const left = Math.max(bbox.left, plot.valToPos(from, 'x', true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(to ?? this.span().to, 'x', true));
      const width = Math.max(2 * devicePixelRatio, right - left);
      if (left > bbox.left + bbox.width || right < bbox.left) continue;
      ctx.fillStyle = COLOURS[/** @type {'high'} */ (priority)] ?? COLOURS.off;
      ctx.globalAlpha = 0.17;
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.globalAlpha = 1;
      ctx.fillRect(left, bbox.top, width, 4 * devicePixelRatio);
    }
    ctx.restore();
  }

  /** @param {Plot} plot */
  #drawLimits(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.font = `${10.5 * devicePixelRatio}px Arial, "Liberation Sans", sans-serif`;
    ctx.lineWidth = devicePixelRatio;
    ctx.textAlign = 'left';
    ctx.textBaseline = 'middle';
    /** Where labels stand, which come over all lines. @type {{begin: number, end: number, top: number, text: string, colour: string}[]} */
    const labels = [];
    for (const { level, side, priority, off, metric } of this.#lines) {
      const top = Math.round(plot.valToPos(level, 'y', true));
      if (top < bbox.top || top > bbox.top + bbox.height) continue;
      ctx.strokeStyle = off ? COLOURS.off : COLOURS[/** @type {'high'} */ (priority)] ?? COLOURS.text;
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, top);
      ctx.lineTo(bbox.left + bbox.width, top);
      ctx.stroke();
      const part = metric.includes('.') ? metric.split('.')[1] ?? '' : '';
      const text = `${side === 'low' ? '↓' : '↑'}${level}${part && ` ${part}`}${off ? ' OFF' : ''}`;
      // On the side of the oldest readings; each part of a pressure has a place of its own.
      let begin = bbox.left + (Math.max(0, PARTS.indexOf(part)) * 84 + 6) * devicePixelRatio;
      const width = ctx.measureText(text).width;
      // Two limits that lie close together: one label beside the other.
      for (const label of labels) {
        if (Math.abs(label.top - top) < 12 * devicePixelRatio && begin < label.end && begin + width > label.begin) begin = label.end + 9 * devicePixelRatio;
      }
      labels.push({ begin, end: begin + width, top, text, colour: String(ctx.strokeStyle) });
    }
    for (const { begin, end, top, text, colour } of labels) {
      ctx.fillStyle = COLOURS.behind;
      ctx.fillRect(begin - 3 * devicePixelRatio, top - 6 * devicePixelRatio, end - begin + 6 * devicePixelRatio, 12 * devicePixelRatio);
      ctx.fillStyle = colour;
      ctx.fillText(text, begin, top);
    }
    ctx.restore();
  }

  /** Pressures: a bar from the lower to the upper value, a triangle at each end, a dot at the mean. @param {Plot} plot */
  #drawSpots(plot) {
    const { ctx } = plot;
    const size = 5 * devicePixelRatio;
    /** @type {Map<string, Record<string, number>>} */
    const measured = new Map();
    const { from, to } = this.span();
    for (const { metric, device, points } of this.#streams) {
      for (const { at, value } of points) {
        if (value === null || at < from || at > to) continue;
        const one = measured.get(`${at}|${device}`) ?? { at };
        one[metric.split('.')[1] ?? metric] = value;
        measured.set(`${at}|${device}`, one);
      }
    }
    ctx.save();
    ctx.fillStyle = this.kind.colours[this.kind.metrics[0] ?? ''] ?? '#ffffff';
    ctx.strokeStyle = ctx.fillStyle;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const { at = 0, systolic, diastolic, mean } of measured.values()) {
      const left = plot.valToPos(at, 'x', true);
      const place = (/** @type {number} */ value) => plot.valToPos(value, 'y', true);
      if (systolic !== undefined && diastolic !== undefined) {
        ctx.beginPath();
        ctx.moveTo(left, place(systolic));
        ctx.lineTo(left, place(diastolic));
        ctx.stroke();
      }
      if (systolic !== undefined) triangle(ctx, left, place(systolic), -size);
      if (diastolic !== undefined) triangle(ctx, left, place(diastolic), size);
      if (mean !== undefined) {
        ctx.beginPath();
        ctx.arc(left, place(mean), size * 0.6, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
    ctx.restore();
  }

  /** Readings that were kept and came later: a hollow diamond. @param {Plot} plot */
  #drawLate(plot) {
    const { ctx, bbox } = plot;
    const size = 4.5 * devicePixelRatio;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.strokeStyle = '#ff9f43';
    this.#drawn.late.forEach((late, at) => late.forEach((isLate, index) => {
      const value = this.#drawn.y[at]?.[index];
      if (!isLate || typeof value !== 'number') return;
      const left = plot.valToPos(this.#drawn.x[index] ?? 0, 'x', true);
      const top = plot.valToPos(value, 'y', true);
      if (left < bbox.left || left > bbox.left + bbox.width) return;
      ctx.beginPath();
      ctx.moveTo(left, top - size);
      ctx.lineTo(left + size, top);
      ctx.lineTo(left, top + size);
      ctx.lineTo(left - size, top);
      ctx.closePath();
      ctx.stroke();
    }));
    ctx.restore();
  }

  /** @param {Plot} plot */
  #selected(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    this.told.zoom({ from: plot.posToVal(left, 'x'), to: plot.posToVal(left + width, 'x') });
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }
}

/** @param {CanvasRenderingContext2D} ctx @param {number} left @param {number} top where its tip is @param {number} size above the tip if negative */
function triangle(ctx, left, top, size) {
  ctx.beginPath();
  ctx.moveTo(left, top);
  ctx.lineTo(left - Math.abs(size), top + size * 1.5);
  ctx.lineTo(left + Math.abs(size), top + size * 1.5);
  ctx.closePath();
  ctx.fill();
}

/** The point of a stream next to a moment, if there is one. @param {Stream} stream @param {number} at @param {number} withinMs */
function nearest({ points }, at, withinMs) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.at ?? 0) < at) low = middle + 1;
    else high = middle;
  }
  return [points[low - 1], points[low]]
    .filter((point) => point !== undefined && Math.abs(point.at - at) <= withinMs)
    .sort((a, b) => Math.abs((a?.at ?? 0) - at) - Math.abs((b?.at ?? 0) - at))[0];
}

/** A text that is read aloud when it changes. @param {HTMLElement} line @param {number | undefined} at */
export function sayTime(line, at) {
  write(line, at === undefined ? '' : clockOf(at, true));
}
