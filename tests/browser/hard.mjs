// A ward on a bad day, for tests and pictures: what the demo shows now and then is here at once, and stays.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { begin, startConfigured } from './real.mjs';

/**
 * A ward of eight beds as they are on a bad day: a finger without its clip, a monitor that has fallen still, an alarm, a calm
 * bed, two recordings, and two beds that nobody has connected.
 */
export async function startHardWard() {
  const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-hard-'));
  const scenarios = {
    off: '[[step]]\nat = "2s"\nstatus = ["sensor_off"]\n',
    still: '[[step]]\nat = "8s"\npause = "60min"\n',
    fast: '[[step]]\nset = { heart_rate = 150, temperature = 39.5 }\n',
    calm: '[[step]]\nset = { heart_rate = 72 }\n',
  };
  const files = Object.fromEntries(Object.entries(scenarios).map(([name, text]) => [`${name}.toml`, text]));
  files['bed.csv'] = 't_s,HR,SpO2,RESP,PULSE,NBPSys,NBPDias,NBPMean\n0,72,97,14,72,121,79,93\n3600,72,97,14,72,121,79,93\n';
  const patients = Array.from({ length: 8 }, (_, at) => `[[patient]]\nid = "P-${at + 1}"\nbed = "A${at + 1}"\nname = "Konstantin Hohenfels"\nnews2 = true\n`);
  const serial = Object.keys(scenarios).map((name, at) => `[[source]]\nid = "${name}"\nkind = "serial"\nport = "${join(dir, name)}"\nprofile = "berry-pm6750"\npatient = "P-${at + 1}"\nmode = "test"\n`);
  const recordings = [6, 7].map((bed) => `[[source]]\nid = "bed-${bed}"\nkind = "replay"\nfile = "bed.csv"\npatient = "P-${bed}"\nmode = "test"\n`);
  const ward = await startConfigured(['[bridge]\nid = "hard"\n', ...patients, ...serial, ...recordings].join('\n'), files);
  const emulated = Object.keys(scenarios).map((name, at) => begin('emulate', '--profile', 'berry-pm6750', '--pty', join(dir, name), '--scenario', join(ward.dir, `${name}.toml`), '--seed', String(at)));
  const stop = async () => {
    for (const one of emulated) await one.kill();
    await ward.stop();
    rmSync(dir, { recursive: true, force: true });
  };
  return { ...ward, stop };
}
