// The devices page beside a Bluetooth radio: what is configured with its state, battery, signal and when it was heard; what is near, and how
// it is added. `VITALBRIDGE_BIN=target/debug/vitalbridge npm run page`.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startRadio } from './radio.mjs';
import { SIZES, launch, observed, picture, startConfigured, tokenFor, until, violationsIn } from './real.mjs';

const STRAP = { address: 'C4:6D:00:00:00:01', name: 'Strap', rssi: -61, service: 0x180d, characteristic: 0x2a37, battery: 17, payload: [0x06, 72] };
const OTHER = { address: 'C4:6D:00:00:00:02', name: 'Oximeter', rssi: -88, service: 0x1822, characteristic: 0x2a5f, battery: 80, payload: [] };
let browser;
let radio;
let bridge;

before(async () => {
  radio = await startRadio([STRAP, OTHER]);
  process.env.DBUS_SYSTEM_BUS_ADDRESS = radio.address;
  browser = await launch();
  bridge = await startConfigured(`[bridge]\nid = "devices"\n[[patient]]\nid = "P-1"\nbed = "1"\nname = "Ada Winter"\n[[source]]\nid = "strap"\nkind = "ble"\naddress = "${STRAP.address}"\npatient = "P-1"\nmode = "test"\n`);
});

after(async () => {
  await browser?.close();
  await bridge?.stop();
  await radio?.stop();
});

test('a sensor of the radio has its state, battery, signal and last word; a scan lists what is near, with the lines that add it', async () => {
  const context = await browser.newContext({ reducedMotion: 'reduce', viewport: SIZES[1] });
  const page = await context.newPage();
  const { trouble, broken } = await observed(page, bridge.origin, { allowsRefusals: true });
  await page.addInitScript((token) => sessionStorage.setItem('vitalbridge.token', token), await tokenFor(bridge, 'clinician'));
  await page.goto(`${bridge.origin}/#/devices`);
  const row = page.locator('tr[data-device=strap]');
  const cell = async (column) => (await row.locator(`[data-column="${column}"]`).innerText()).replaceAll(/\s+/g, ' ');
  const columns = await until('the table', async () => await row.count() === 1 && row.locator('[data-column]').evaluateAll((cells) => cells.map((one) => one.dataset.column)));
  const [, whose, state, battery, signal, heard] = columns;
  await until('it is live', async () => /^live/.test(await cell(state)));
  await until('its charge, which is low', async () => /^17 % · low/.test(await cell(battery)));
  await until('its signal', async () => /-61/.test(await cell(signal)));
  await until('when it was heard', async () => /^\d+ s ago$/.test(await cell(heard)));
  assert.match(await cell(whose), /Bed 1 · Ada Winter/);
  await page.getByRole('button', { name: 'Scan', exact: true }).click();
  const found = page.locator('table', { hasText: OTHER.address }).locator('tr', { hasText: OTHER.address });
  await until('the oximeter is found', async () => await found.count() === 1 && /Oximeter/.test(await found.innerText()) && /-88/.test(await found.innerText()));
  await found.locator('summary').click();
  const lines = await found.locator('pre').innerText();
  assert.match(lines, new RegExp(`\\[\\[source\\]\\][\\s\\S]*kind = "ble"[\\s\\S]*address = "${OTHER.address}"`));
  for (const size of SIZES) {
    await page.setViewportSize(size);
    await picture(page, `devices-radio-${size.width}x${size.height}`);
    assert.deepEqual(await violationsIn(page), []);
  }
  assert.deepEqual([trouble, broken], [[], []]);
  await context.close();
});
