// What the daemon ships to a browser, in bytes: a page that grows by the way is noticed.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import ts from 'typescript';

const FOLDER = new URL('../../src/server/dashboard/', import.meta.url);
/** Everything together and any one file, as gzip has it. */
const MAX_ALL_BYTES = 144 * 1024;
const MAX_FILE_BYTES = 24 * 1024;
/** What the ward and the bedside need before the first number can be drawn. */
const FIRST = ['index.html', 'style.css', 'bedside.css', 'app.js', 'alarm.js', 'bedside.js', 'dom.js', 'number.js', 'sound.js', 'vitalbridge.js', 'ward.js', 'waves.js', 'icon.svg'];
const MAX_FIRST_BYTES = 62 * 1024;
/** The client module as others embed it. */
const MAX_CLIENT_BYTES = 8 * 1024;

const files = readdirSync(FOLDER, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  .map(({ name, parentPath, path }) => ({ name, bytes: readFileSync(`${parentPath ?? path}/${name}`) }));
const sizes = new Map(files.map(({ name, bytes }) => [name, { raw: bytes.length, gzip: gzipSync(bytes).length }]));
const sum = (names) => names.reduce((total, name) => total + sizes.get(name).gzip, 0);

test('the files of the page are as small as they should be', () => {
  const rows = [...sizes].sort(([, a], [, b]) => b.gzip - a.gzip).map(([name, { raw, gzip }]) => `${String(raw).padStart(7)} ${String(gzip).padStart(6)} ${name}`);
  console.log(`  bytes   gzip\n${rows.join('\n')}\nall: ${sum([...sizes.keys()])} bytes of gzip, first view: ${sum(FIRST)}`);
  for (const [name, { gzip }] of sizes) assert.ok(gzip > 0 && gzip <= MAX_FILE_BYTES, `${name}: ${gzip} bytes`);
  assert.ok(sum([...sizes.keys()]) <= MAX_ALL_BYTES);
  assert.ok(sum(FIRST) <= MAX_FIRST_BYTES);
});

test('the client module is small enough for anybody\'s page', () => {
  const source = readFileSync(new URL('vitalbridge.js', FOLDER), 'utf8');
  const bare = ts.transpileModule(source, { compilerOptions: { removeComments: true, target: 'esnext', module: 'esnext' } }).outputText.replace(/^\s+/gm, '');
  const bytes = gzipSync(bare).length;
  console.log(`vitalbridge.js: ${bytes} bytes of gzip without comments and indentation`);
  assert.ok(bytes > 1000 && bytes <= MAX_CLIENT_BYTES, `${bytes} bytes`);
});
