// One picture a size of all states, from those that `node shots.mjs` has written: `node sheet.mjs` writes docs/images/states-*.jpg.

import { existsSync, readFileSync } from 'node:fs';
import { SIZES, launch } from './real.mjs';

const SHOTS = new URL('shots/', import.meta.url).pathname;
const IMAGES = new URL('../../docs/images/', import.meta.url).pathname;
/** How wide one of them is drawn, and how many stand beside each other. */
const WIDTHS = [[400, 4], [400, 4], [175, 9]];
const BOTH = ['normal', 'medium', 'high', 'latched', 'acknowledged', 'paused', 'stale', 'no-connection', 'sensor-off'].flatMap((state) => [`${state}-ward`, `${state}-bedside`]);
const NAMES = [...BOTH, 'two-beds-bedside', 'empty-ward', '64-beds-ward', ...['trends', 'alarms', 'limits', 'devices', 'system'].map((page) => `pages-${page}`), 'sign-in'];

const browser = await launch();
for (const [at, { width, height }] of SIZES.entries()) {
  const [wide, columns] = WIDTHS[at];
  const figures = NAMES.map((name) => [name, `${SHOTS}${name}-${width}x${height}.png`]).filter(([name, file]) => existsSync(file) || console.error(`${name} at ${width}x${height} is missing`))
    .map(([name, file]) => `<figure><img width="${wide}" src="data:image/png;base64,${readFileSync(file).toString('base64')}"><figcaption>${name.replace(/^pages-/, '').replaceAll('-', ' ')}</figcaption></figure>`);
  const page = await browser.newPage({ viewport: { width: columns * (wide + 10) + 10, height: 600 } });
  await page.setContent(`<style>body{margin:0;padding:5px;background:#30363d;display:flex;flex-wrap:wrap}figure{margin:5px}img{display:block}figcaption{font:15px Arial,sans-serif;color:#fff;padding:3px 0}</style>${figures.join('')}`);
  await page.screenshot({ path: `${IMAGES}states-${width}x${height}.jpg`, type: 'jpeg', quality: 72, fullPage: true });
  await page.close();
}
await browser.close();
