// The colours for those who see fewer: distances after a simulation of deutan, protan and tritan sight, and contrasts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const FOLDER = new URL('../../src/server/dashboard/', import.meta.url);
const style = readFileSync(new URL('style.css', FOLDER), 'utf8');
const html = readFileSync(new URL('index.html', FOLDER), 'utf8');
const COLOURS = Object.fromEntries([...style.slice(0, style.indexOf('}')).matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map(([, name, colour]) => [name, colour]));
const NUMBERS = ['hr', 'spo2', 'resp', 'nibp', 'temp', 'etco2'];
const PRIORITIES = ['high', 'medium', 'low'];

/** The least distances: of two numbers, of a number and a stale one, of two priorities. */
const NUMBERS_APART = 21;
const STALE_APART = 23;
const PRIORITIES_APART = 40;

/** Machado, Oliveira and Fernandes 2009, severity 1: what is left of linear RGB. */
const SIGHTS = {
  full: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protan: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deutan: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
  tritan: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
};

const linear = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
const seen = (rgb, sight) => SIGHTS[sight].map((row) => Math.min(1, Math.max(0, row.reduce((sum, part, at) => sum + part * rgb[at], 0))));
const luminance = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;

function lab(rgb) {
  const [r, g, b] = rgb;
  const xyz = [0.4124 * r + 0.3576 * g + 0.1805 * b, luminance(rgb), 0.0193 * r + 0.1192 * g + 0.9505 * b];
  const [x, y, z] = xyz.map((part, at) => part / [0.95047, 1, 1.08883][at]).map((t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** CIE 1976: about 2.3 can just be told apart side by side. */
const distance = (a, b, sight) => Math.hypot(...lab(seen(linear(COLOURS[a]), sight)).map((part, at) => part - lab(seen(linear(COLOURS[b]), sight))[at]));

function contrast(a, b) {
  const [light, dark] = [a, b].map((name) => luminance(linear(COLOURS[name] ?? name))).sort((one, other) => other - one);
  return (light + 0.05) / (dark + 0.05);
}

const pairs = (names) => names.flatMap((a, at) => names.slice(at + 1).map((b) => [a, b]));

/** The hue of a colour in degrees, and how far it is from grey: 0 to 1. */
function hueOf(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  const [most, least] = [Math.max(r, g, b), Math.min(r, g, b)];
  const span = most - least;
  if (span === 0) return { hue: 0, colourful: 0 };
  const sixth = most === r ? (g - b) / span : most === g ? 2 + (b - r) / span : 4 + (r - g) / span;
  return { hue: (60 * sixth + 360) % 360, colourful: span / most };
}

test('each colour is the one by which people know the vital sign', () => {
  const known = { hr: [120, 150], spo2: [185, 200], resp: [45, 56], temp: [260, 285], etco2: [320, 340], high: [340, 360], medium: [45, 56], low: [180, 195] };
  for (const [name, [from, to]] of Object.entries(known)) {
    const { hue, colourful } = hueOf(COLOURS[name]);
    assert.ok(hue >= from && hue <= to && colourful > 0.6, `${name}: ${COLOURS[name]} has the hue ${hue.toFixed(0)}`);
  }
  assert.equal(COLOURS.nibp, '#ffffff');
  assert.ok(hueOf(COLOURS.stale).colourful < 0.2, 'stale is grey');
});

for (const sight of Object.keys(SIGHTS)) {
  test(`numbers and priorities can be told apart with ${sight} sight`, () => {
    const near = [];
    for (const [a, b] of pairs(NUMBERS)) if (distance(a, b, sight) < NUMBERS_APART) near.push(`${a} and ${b}: ${distance(a, b, sight).toFixed(1)}`);
    for (const [a, b] of pairs(PRIORITIES)) if (distance(a, b, sight) < PRIORITIES_APART) near.push(`${a} and ${b}: ${distance(a, b, sight).toFixed(1)}`);
    for (const name of NUMBERS) if (distance(name, 'stale', sight) < STALE_APART) near.push(`${name} and stale: ${distance(name, 'stale', sight).toFixed(1)}`);
    assert.deepEqual(near, []);
  });
}

test('text has the contrast of WCAG 2.2 AA, whatever it stands on', () => {
  const rows = [
    ...['text', 'quiet', 'stale', ...NUMBERS].map((name) => [name, 'background', 4.5]),
    ...['text', 'quiet', 'stale', ...NUMBERS].map((name) => [name, 'surface', 4.5]),
    ...PRIORITIES.map((name) => [`on-${name}`, name, 4.5]),
    // The border of an alarm against the page.
    ...PRIORITIES.map((name) => [name, 'background', 3]),
    ['quiet', 'surface', 4.5], ['text', 'line', 4.5],
  ];
  const low = rows.map(([a, b, least]) => [`${a} on ${b}`, contrast(a, b), least]).filter(([, is, least]) => is < least);
  assert.deepEqual(low, []);
});

test('nothing is said by a colour alone: each number has its name, each priority its icon and asterisks', () => {
  for (const name of ['HR', 'SpO', 'NIBP', 'PR', 'RESP', 'TEMP']) assert.ok(html.split(`<dt>${name}`).length >= 3, `${name} on tile and bedside`);
  const shapes = PRIORITIES.map((name) => new RegExp(`id="icon-${name}"[^>]*>(.*?)</symbol>`).exec(html)[1]);
  assert.equal(new Set(shapes).size, 3);
});

test('what flashes does so at 2.0 and 0.6 Hz for half of the time, and not for those who want no movement', () => {
  const all = style + readFileSync(new URL('bedside.css', FOLDER), 'utf8');
  const rates = [...all.matchAll(/data-priority="(\w+)"\] \{\n  animation: flash ([\d.]+)s step-end infinite/g)].map(([, priority, s]) => [priority, (1 / Number(s)).toFixed(1)]);
  assert.deepEqual(new Set(rates.map(String)), new Set(['high,2.0', 'medium,0.6']));
  assert.match(style, /@keyframes flash \{\n  0% \{\n    border-color: var\(--priority\);\n  \}\n\n  50% \{/);
  for (const sheet of ['style.css', 'bedside.css']) {
    assert.match(readFileSync(new URL(sheet, FOLDER), 'utf8'), /prefers-reduced-motion: reduce\) \{[^}]*border-width: [58]px;[^}]*animation: none/, sheet);
  }
});
