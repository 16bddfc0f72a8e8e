// A Bluetooth radio for tests: a bus of its own, on which `org.bluez` has an adapter and sensors that advertise, connect and measure.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serve } from './dbus.mjs';
import { until } from './real.mjs';

const ADAPTER = '/org/bluez/hci0';
const OBJECTS = 'org.freedesktop.DBus.ObjectManager';
/** How often a sensor advertises, and a connected one measures, in ms. */
const TURN_MS = 200;
const uuid = (short) => `0000${short.toString(16).padStart(4, '0')}-0000-1000-8000-00805f9b34fb`;
const ALL = 'a{sa{sv}}';

/**
 * Starts a bus and a radio with these sensors.
 * @param {{address: string, name: string, rssi: number, service: number, characteristic: number, battery?: number, payload: number[]}[]} sensors
 */
export async function startRadio(sensors) {
  const dir = mkdtempSync(join(tmpdir(), 'vitalbridge-radio-'));
  const socket = join(dir, 'bus');
  writeFileSync(join(dir, 'bus.conf'), `<busconfig><type>system</type><listen>unix:path=${socket}</listen><auth>EXTERNAL</auth><policy context='default'><allow user='*'/><allow own='*'/>`
    + "<allow send_type='method_call'/><allow send_type='signal'/><allow send_requested_reply='true' send_type='method_return'/><allow send_requested_reply='true' send_type='error'/>"
    + "<allow receive_type='method_call'/><allow receive_type='signal'/><allow receive_type='method_return'/><allow receive_type='error'/></policy></busconfig>");
  const daemon = spawn('dbus-daemon', [`--config-file=${join(dir, 'bus.conf')}`, '--nofork', '--nopidfile'], { stdio: 'ignore' });
  await until('the bus', () => existsSync(socket));
  let scanning = false;
  const all = sensors.map((sensor) => ({ ...sensor, path: `${ADAPTER}/dev_${sensor.address.replaceAll(':', '_')}`, known: false, connected: false, resolved: false, notifying: false }));
  const characteristicOf = ({ path }) => `${path}/service0010/char0011`;
  const deviceOf = (sensor) => ({
    Address: ['s', sensor.address], AddressType: ['s', 'random'], Alias: ['s', sensor.name], Name: ['s', sensor.name], Paired: ['b', 0], Bonded: ['b', 0], Connected: ['b', sensor.connected],
    ServicesResolved: ['b', sensor.resolved], Trusted: ['b', 0], Blocked: ['b', 0], LegacyPairing: ['b', 0], UUIDs: ['as', [uuid(sensor.service)]], Adapter: ['o', ADAPTER], RSSI: ['n', sensor.rssi],
  });
  /** Everything on the bus: interfaces with their properties, by path. */
  const objects = () => {
    const found = { '/org/bluez': { 'org.bluez.AgentManager1': {} }, [ADAPTER]: { 'org.bluez.Adapter1': {
      Address: ['s', '00:AA:01:00:00:42'], AddressType: ['s', 'public'], Name: ['s', 'test'], Alias: ['s', 'test'], Modalias: ['s', 'usb:v1D6Bp0246d0542'], Powered: ['b', 1], Discovering: ['b', scanning],
    } } };
    for (const sensor of all.filter(({ known }) => known)) {
      found[sensor.path] = { 'org.bluez.Device1': deviceOf(sensor), ...(sensor.resolved && sensor.battery !== undefined && { 'org.bluez.Battery1': { Percentage: ['y', sensor.battery] } }) };
      if (!sensor.resolved) continue;
      const service = `${sensor.path}/service0010`;
      found[service] = { 'org.bluez.GattService1': { UUID: ['s', uuid(sensor.service)], Device: ['o', sensor.path], Primary: ['b', 1] } };
      found[characteristicOf(sensor)] = { 'org.bluez.GattCharacteristic1': {
        UUID: ['s', uuid(sensor.characteristic)], Service: ['o', service], Value: ['ay', []], Flags: ['as', ['notify']], Notifying: ['b', sensor.notifying],
      } };
      found[`${characteristicOf(sensor)}/desc0013`] = { 'org.bluez.GattDescriptor1': { UUID: ['s', uuid(0x2902)] } };
    }
    return found;
  };
  let bus;
  const changed = (path, of, properties) => bus.signal(path, 'org.freedesktop.DBus.Properties', 'PropertiesChanged', 'sa{sv}as', [of, properties, []]);
  const connect = (sensor) => {
    sensor.connected = true;
    changed(sensor.path, 'org.bluez.Device1', { Connected: ['b', 1] });
    setTimeout(() => {
      sensor.resolved = true;
      changed(sensor.path, 'org.bluez.Device1', { ServicesResolved: ['b', 1] });
      if (sensor.battery !== undefined) bus.signal('/', OBJECTS, 'InterfacesAdded', `o${ALL}`, [sensor.path, { 'org.bluez.Battery1': { Percentage: ['y', sensor.battery] } }]);
    }, TURN_MS);
  };
  const drop = (sensor) => {
    Object.assign(sensor, { connected: false, resolved: false, notifying: false });
    changed(sensor.path, 'org.bluez.Device1', { ServicesResolved: ['b', 0], Connected: ['b', 0] });
  };
  const answer = ({ path, member, body }) => {
    const now = objects();
    if (member === 'GetManagedObjects') return [`a{o${ALL}}`, [now]];
    if (member === 'Introspect') {
      const inside = path === '/' ? '/' : `${path}/`;
      const children = new Set(Object.keys(now).filter((one) => one.startsWith(inside)).map((one) => one.slice(inside.length).split('/')[0]));
      return ['s', [`<node>${[...children].map((child) => `<node name="${child}"/>`).join('')}</node>`]];
    }
    if (!now[path]) return undefined;
    const sensor = all.find((one) => path.startsWith(one.path));
    if (member === 'GetAll') return now[path][body[0]] && ['a{sv}', [now[path][body[0]]]];
    if (member === 'Get') return now[path][body[0]]?.[body[1]] && ['v', [now[path][body[0]][body[1]]]];
    if (member === 'ReadValue') return ['ay', [[]]];
    if (member === 'StartDiscovery' || member === 'StopDiscovery') scanning = member === 'StartDiscovery';
    if (member === 'Connect' && !sensor.connected) connect(sensor);
    if (member === 'Disconnect' && sensor.connected) drop(sensor);
    if (member === 'StartNotify' || member === 'StopNotify') sensor.notifying = member === 'StartNotify';
    return ['', []];
  };
  bus = await serve(socket, 'org.bluez', answer);
  const turns = setInterval(() => {
    for (const sensor of all) {
      if (scanning && !sensor.connected) {
        if (sensor.known) changed(sensor.path, 'org.bluez.Device1', { RSSI: ['n', sensor.rssi] });
        else bus.signal('/', OBJECTS, 'InterfacesAdded', `o${ALL}`, [sensor.path, { 'org.bluez.Device1': deviceOf(sensor) }]);
        sensor.known = true;
      }
      if (sensor.notifying) changed(characteristicOf(sensor), 'org.bluez.GattCharacteristic1', { Value: ['ay', sensor.payload] });
    }
  }, TURN_MS);
  const stop = async () => {
    clearInterval(turns);
    bus.close();
    const ended = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill('SIGKILL');
    await ended;
    rmSync(dir, { recursive: true, force: true });
  };
  return { address: `unix:path=${socket}`, stop };
}
