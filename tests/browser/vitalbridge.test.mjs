// The client's decisions, driven by a scripted socket and a clock that the test turns.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServerClock, VitalBridge, closeAction, parseFrame, retryDelay } from '../../src/server/dashboard/vitalbridge.js';

const WALL = Date.parse('2026-11-20T22:00:00.000Z');
const wall = (ms) => new Date(WALL + ms).toISOString();

/** A client, the sockets it opened, and a way to let time pass. */
function scripted(t, options = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: WALL });
  const sockets = [];
  let now = 1000;
  class Socket {
    constructor(url) {
      Object.assign(this, { url, sent: [], closed: false });
      sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close() {
      this.closed = true;
    }

    say(frame) {
      this.onmessage({ data: JSON.stringify({ timestamp: wall(now), ...frame }) });
    }

    end(code) {
      this.onclose({ code, reason: '' });
    }
  }
  const bridge = new VitalBridge({ url: 'ws://bridge/ws', token: 'a.b.c', WebSocket: Socket, now: () => now, ...options });
  const heard = [];
  for (const name of ['state', 'stopped', 'health_update', 'alert', 'snapshot', 'error']) {
    bridge.addEventListener(name, ({ detail }) => heard.push([name, detail]));
  }
  const pass = (ms) => {
    for (let left = ms; left > 0; left -= 50) {
      now += Math.min(50, left);
      t.mock.timers.tick(Math.min(50, left));
    }
  };
  /** Signs the newest socket in. */
  const open = async ({ recovered = false, lastSeq = 10, epoch = 'e1' } = {}) => {
    const socket = sockets.at(-1);
    socket.say({ type: 'welcome', data: { mono_ms: now + 500_000, heartbeat_ms: 5000, epoch } });
    await Promise.resolve();
    socket.say({ type: 'authenticated', data: { role: 'nurse' } });
    socket.say({ type: 'subscribed', data: { recovered, first_seq: 1, last_seq: lastSeq, lost: [] } });
    socket.say({ type: 'snapshot', data: { patients: [], readings: [], alerts: [] } });
    return socket;
  };
  t.after(() => bridge.close());
  return { bridge, sockets, heard, pass, open, at: () => now, of: (name) => heard.filter(([kind]) => kind === name).map(([, detail]) => detail) };
}

test('the wait grows to 5 s, never falls below 1 s and differs between clients', () => {
  const rows = [[0, 0, 1000], [0, 1, 2000], [1, 1, 4000], [2, 1, 5000], [50, 1, 5000], [50, 0, 1000]];
  for (const [attempt, random, wait] of rows) assert.equal(retryDelay(attempt, random), wait);
});

test('a close code says whether to stop, to get a new token or to try again', () => {
  const rows = [[4005, 'retry'], [4008, 'retry'], [4001, 'stop'], [4009, 'stop'], [1008, 'stop'], [1009, 'stop'], [4101, 'token'], [4103, 'token'], [4201, 'retry'], [4206, 'retry'],
    [1000, 'retry'], [1001, 'retry'], [1006, 'retry'], [1011, 'retry'], [1013, 'retry']];
  for (const [code, action] of rows) assert.equal(closeAction(code), action, String(code));
});

test('a frame keeps the digits that JavaScript would drop, where the engine tells them', () => {
  const frame = parseFrame('{"type":"health_update","data":{"value":37.0,"components":{"mean":93}}}');
  assert.equal(frame.data.value, 37);
  // JSON.parse of node 20 does not tell the source text; the browser test sees the digits on the page.
  const tells = JSON.parse('1.0', (_, value, context) => context?.source ?? value) === '1.0';
  assert.equal(frame.data.value_text, tells ? '37.0' : undefined);
  assert.throws(() => parseFrame('{"data":1}'), TypeError);
  assert.throws(() => parseFrame('{'), SyntaxError);
});

test('a moment of the bridge is found on the local clock, whatever the delays and the steps of its wall clock', () => {
  const clock = new ServerClock();
  assert.equal(clock.localOf(wall(0), 700), 700, 'nothing known: it happened now');
  clock.sync(100_000, wall(0), 1000); // without delay
  clock.sync(105_000, wall(5000), 9000); // three seconds late
  assert.equal(clock.localOf(wall(5000), 9000), 6000);
  assert.equal(clock.localOf(wall(99_000), 9000), 9000, 'never in the future');
  clock.sync(110_000, wall(3_610_000), 11_000); // the bridge's wall clock was set an hour forward
  assert.equal(clock.localOf(wall(3_609_000), 11_000), 10_000);
  assert.equal(clock.wallAt(11_000), WALL + 3_610_000);
});

test('a reading is of now although the bridge\'s clock was set back and no heartbeat has said so', async (t) => {
  const { bridge, at, open, of } = scripted(t);
  bridge.connect();
  const socket = await open({ lastSeq: 10 });
  const back = wall(at() - 3_600_000);
  socket.say({ type: 'system', channel: 'system', seq: 11, epoch: 'e1', data: { kind: 'clock_stepped', message: '' }, timestamp: back });
  socket.say({ type: 'health_update', channel: 'patient/P-1/spo2', seq: 12, epoch: 'e1', data: { value: 97, received: back } });
  assert.deepEqual(of('health_update').map(({ born }) => bridge.ageOf(born)), [0]);
});

test('a client that only listens says once a minute that it is there, and only once it is signed in', async (t) => {
  const { bridge, sockets, pass, open, at } = scripted(t);
  bridge.connect();
  const beats = (count) => {
    for (let beat = 0; beat < count; beat += 1) {
      pass(5000);
      sockets.at(-1).say({ type: 'heartbeat', data: { mono_ms: at() + 500_000 } });
    }
  };
  beats(1);
  assert.deepEqual(sockets.at(-1).sent, []);
  const socket = await open();
  beats(11);
  assert.equal(socket.sent.filter(({ type }) => type === 'heartbeat').length, 0);
  beats(25);
  assert.equal(socket.sent.filter(({ type }) => type === 'heartbeat').length, 3);
});

test('it signs in, subscribes and then is live', async (t) => {
  const { bridge, sockets, open, of } = scripted(t);
  bridge.connect();
  bridge.connect();
  assert.equal(sockets.length, 1);
  const socket = await open();
  assert.deepEqual(socket.sent.map(({ type }) => type), ['authenticate', 'subscribe']);
  assert.equal(socket.sent[0].token, 'a.b.c');
  assert.equal('since' in socket.sent[1], false);
  assert.deepEqual(of('state').map(({ state }) => state), ['connecting', 'live']);
});

test('a late reading is as old as the bridge says, and one from before the snapshot is history', async (t) => {
  const { bridge, open, of, at } = scripted(t);
  bridge.connect();
  const socket = await open({ lastSeq: 10 });
  const reading = (seq, ageMs) => socket.say({ type: 'health_update', channel: 'patient/P-1/spo2', seq, epoch: 'e1', data: { value: 97, received: wall(at() - ageMs) } });
  reading(9, 60_000);
  reading(11, 4000);
  assert.deepEqual(of('health_update').map(({ replayed, born }) => [replayed, bridge.ageOf(born)]), [[true, 60_000], [false, 4000]]);
  assert.deepEqual(bridge.position, { epoch: 'e1', seq: 11 });
});

test('after a loss it comes back and asks for what it missed', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  bridge.connect();
  const socket = await open({ lastSeq: 10 });
  socket.say({ type: 'alert', channel: 'alerts/P-1', seq: 12, epoch: 'e1', data: {} });
  socket.end(1006);
  assert.equal(bridge.state, 'waiting');
  pass(2000);
  assert.equal(sockets.length, 2);
  const second = await open({ recovered: true, lastSeq: 20 });
  assert.deepEqual(second.sent[1].since, { epoch: 'e1', seq: 12 });
  assert.deepEqual(bridge.position, { epoch: 'e1', seq: 20 }, 'the snapshot comes after everything that was missed');
});

test('an alert that overtakes missed events does not move the position past them', async (t) => {
  const { bridge, sockets, pass, open, of } = scripted(t);
  bridge.connect();
  (await open({ lastSeq: 10 })).end(1006);
  pass(2000);
  const second = sockets.at(-1);
  second.say({ type: 'welcome', data: { mono_ms: 0, heartbeat_ms: 5000, epoch: 'e1' } });
  await Promise.resolve();
  second.say({ type: 'authenticated', data: { role: 'nurse' } });
  second.say({ type: 'subscribed', data: { recovered: true, first_seq: 11, last_seq: 20, lost: [] } });
  second.say({ type: 'health_update', channel: 'patient/P-1/spo2', seq: 11, epoch: 'e1', data: {} });
  assert.equal(of('health_update').at(-1).replayed, true, 'what was missed is not told as new');
  second.say({ type: 'alert', channel: 'alerts/P-1', seq: 21, epoch: 'e1', data: {} });
  assert.equal(of('alert').at(-1).replayed, false);
  assert.deepEqual(bridge.position, { epoch: 'e1', seq: 11 });
});

test('with zero events received it resumes from the beginning of its subscription', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  bridge.connect();
  (await open({ lastSeq: 10 })).end(4206);
  pass(2000);
  await open({ recovered: true, lastSeq: 15 });
  assert.deepEqual(sockets[1].sent[1].since, { epoch: 'e1', seq: 10 });
});

test('two missed heartbeats are a lost connection, one is not', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  bridge.connect();
  const socket = await open();
  pass(9900);
  assert.deepEqual([bridge.state, bridge.isLost], ['live', false]);
  pass(700);
  assert.deepEqual([bridge.state, bridge.isLost, socket.closed], ['waiting', true, true]);
  pass(2000);
  assert.equal(sockets.length, 2);
  socket.say({ type: 'heartbeat', data: {} });
  assert.equal(bridge.isLost, true, 'a socket that was given up is not heard');
  await open({ recovered: true });
  assert.deepEqual([bridge.state, bridge.isLost], ['live', false]);
});

test('a connection that never opens is given up and tried again', (t) => {
  const { bridge, sockets, pass } = scripted(t);
  bridge.connect();
  pass(8500);
  assert.equal(sockets[0].closed, true);
  pass(2000);
  assert.equal(sockets.length, 2);
  pass(8500);
  assert.equal(bridge.isLost, true);
});

test('a machine that slept does not trust its connection', async (t) => {
  const { bridge, pass, open } = scripted(t);
  bridge.connect();
  const socket = await open();
  pass(1000);
  t.mock.timers.setTime(Date.now() + 60_000);
  pass(500);
  assert.deepEqual([bridge.state, socket.closed], ['waiting', true]);
});

test('what the page knows is as old as the time that the machine has slept, at once and without any timer', async (t) => {
  const { bridge, pass, open, of, at } = scripted(t);
  bridge.connect();
  const socket = await open();
  socket.say({ type: 'alert_system', data: { self_check: 1, every_ms: 5000, epoch: 'e1', through: 10, alerts: [] } });
  socket.say({ type: 'health_update', channel: 'patient/P-1/spo2', seq: 11, epoch: 'e1', data: { value: 97, received: wall(at()) } });
  const [{ born }] = of('health_update');
  pass(300);
  const heard = WALL + at() - 300;
  // Two hours, in which the monotonic clock of the browser stood still.
  const HOURS_MS = 7_200_000;
  t.mock.timers.setTime(Date.now() + HOURS_MS);
  assert.equal(bridge.ageOf(born), HOURS_MS + 300);
  assert.deepEqual([bridge.isLost, bridge.isAlarmless], [true, true]);
  assert.equal(bridge.wall - heard, HOURS_MS + 300, 'the bridge\'s clock went on');
  assert.equal(bridge.contactWall, heard, 'when it was heard last');
  pass(10_000);
  assert.equal(bridge.ageOf(born), HOURS_MS + 10_300, 'once');
});

test('a refused token stops it; a session that ended asks for a new token', async (t) => {
  const first = scripted(t);
  first.bridge.connect();
  first.sockets[0].say({ type: 'welcome', data: { mono_ms: 1 } });
  first.sockets[0].say({ type: 'auth_error', data: { code: 'invalid_token', message: 'expired' } });
  first.sockets[0].end(4001);
  first.pass(20_000);
  assert.equal(first.sockets.length, 1);
  assert.deepEqual(first.of('stopped'), [{ code: 4001, reason: '', message: 'expired', needsToken: false }]);
});

test('a session that the bridge ended brings no alarms, at once and until somebody connects or leaves', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  assert.equal(bridge.isAlarmless, false, 'nobody has asked for any');
  bridge.connect();
  const socket = await open();
  socket.say({ type: 'alert_system', data: { self_check: 1, every_ms: 5000, epoch: 'e1', through: 10, alerts: [] } });
  const { checkedWall } = bridge;
  sockets[0].end(4101);
  assert.deepEqual([bridge.state, bridge.isAlarmless, bridge.checkedWall], ['stopped', true, checkedWall]);
  pass(60_000);
  assert.equal(bridge.isAlarmless, true);
  bridge.close();
  assert.equal(bridge.isAlarmless, false);
});

test('with a source of tokens an expired one is renewed', async (t) => {
  let made = 0;
  const { bridge, sockets, pass, open } = scripted(t, { token: async () => `token-${(made += 1)}` });
  bridge.connect();
  sockets[0].say({ type: 'welcome', data: { mono_ms: 1 } });
  await new Promise(setImmediate);
  sockets[0].end(4101);
  pass(2000);
  sockets[1].say({ type: 'welcome', data: { mono_ms: 1 } });
  await new Promise(setImmediate);
  assert.deepEqual([sockets[0].sent[0].token, sockets[1].sent[0].token], ['token-1', 'token-2']);
});

test('it waits as long as a closing bridge asks for', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  bridge.connect();
  const socket = await open();
  socket.say({ type: 'closing', data: { code: 4206, reason: 'server_shutdown', reconnect: true, retry_after_ms: 4800 } });
  socket.end(1001);
  pass(4700);
  assert.equal(sockets.length, 1);
  pass(200);
  assert.equal(sockets.length, 2);
});

test('a session with too many errors is begun anew after a minute: a screen on a wall has nobody to sign it in', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  bridge.connect();
  const socket = await open();
  socket.say({ type: 'closing', data: { code: 4005, reason: 'too_many_errors', reconnect: false } });
  socket.end(1008);
  assert.deepEqual([bridge.state, sockets.length], ['waiting', 1]);
  pass(59_000);
  assert.deepEqual([sockets.length, bridge.isLost, bridge.isAlarmless], [1, true, true]);
  pass(2000);
  assert.equal(sockets.length, 2);
});

test('waves that were refused for a passing reason are asked for again after a minute, and all by a new connection', async (t) => {
  const { bridge, pass, open, at } = scripted(t);
  bridge.connect();
  const socket = await open();
  const asked = (from) => from.sent.filter(({ type, channels }) => type === 'subscribe' && channels[0] === 'waveform/P-1/+');
  const beats = (count) => {
    for (let beat = 0; beat < count; beat += 1) {
      pass(5000);
      socket.say({ type: 'heartbeat', data: { mono_ms: at() + 500_000 } });
    }
  };
  bridge.watchWaves(['waveform/P-1/+']);
  const refuse = (code) => socket.say({ type: 'error', correlation_id: asked(socket).at(-1).correlation_id, data: { code, message: 'no' } });
  refuse('rate_limited');
  beats(11);
  assert.equal(asked(socket).length, 1);
  beats(2);
  assert.equal(asked(socket).length, 2);
  refuse('permission_denied');
  beats(30);
  assert.equal(asked(socket).length, 2);
  socket.end(1006);
  pass(2000);
  assert.equal(asked(await open({ recovered: true })).length, 1);
});

test('a command ends with its own answer, with a refusal, or with the loss of the connection', async (t) => {
  const { bridge, pass, open } = scripted(t, { queueCommands: false });
  assert.equal((await bridge.acknowledge('a1', 5)).code, 'not_connected');
  bridge.connect();
  const socket = await open();
  const answers = [bridge.acknowledge('a1', 5), bridge.acknowledge('a2', 6), bridge.acknowledge('a3', 7), bridge.acknowledge('a4', 8)];
  const sent = socket.sent.slice(-4);
  assert.deepEqual(sent[0].data, { name: 'alert.acknowledge', alert_id: 'a1', expected_seq: 5 });
  assert.equal(new Set(sent.map(({ correlation_id: id }) => id)).size, 4);
  socket.say({ type: 'result', correlation_id: sent[1].correlation_id, data: { ok: true } });
  socket.say({ type: 'error', correlation_id: sent[0].correlation_id, data: { code: 'permission_denied', message: 'no' } });
  assert.deepEqual(await answers[1], { ok: true });
  assert.equal((await answers[0]).code, 'permission_denied');
  socket.say({ type: 'heartbeat', data: {} });
  pass(5000);
  socket.end(1006);
  assert.deepEqual((await Promise.all(answers.slice(2))).map(({ code }) => code), ['connection_lost', 'connection_lost']);
});

test('a command waits for the connection, goes again under the same id after a loss, and has its time', async (t) => {
  const { bridge, sockets, pass, open } = scripted(t);
  assert.equal((await bridge.acknowledge('a1', 5)).code, 'not_connected', 'nobody is connecting');
  bridge.connect();
  const early = bridge.acknowledge('a1', 5);
  const socket = await open();
  const [first] = socket.sent.slice(-1);
  assert.deepEqual([first.type, first.data.alert_id], ['command', 'a1']);
  socket.end(1006);
  pass(2000);
  const again = (await open()).sent.at(-1);
  assert.deepEqual(again, first);
  sockets.at(-1).say({ type: 'result', correlation_id: first.correlation_id, data: { ok: true } });
  assert.deepEqual(await early, { ok: true });

  const sent = bridge.acknowledge('a2', 6);
  sockets.at(-1).end(1006);
  const unsent = bridge.acknowledge('a3', 7);
  pass(10_050);
  assert.deepEqual([(await sent).code, (await unsent).code], ['timeout', 'not_connected']);
  const left = bridge.acknowledge('a4', 8);
  bridge.close();
  assert.equal((await left).code, 'not_connected');
});

test('no more than 32 commands wait', async (t) => {
  const { bridge } = scripted(t);
  bridge.connect();
  const waiting = Array.from({ length: 33 }, (_, number) => bridge.acknowledge(`a${number}`, number));
  assert.equal((await waiting[32]).code, 'too_many');
});

test('a token that ends soon is refreshed in the session, if there is a source of tokens', async (t) => {
  let issued = 0;
  const { bridge, open } = scripted(t, { token: async () => `token-${(issued += 1)}` });
  bridge.connect();
  await new Promise((resolve) => setImmediate(resolve));
  const socket = await open();
  await new Promise((resolve) => setImmediate(resolve));
  const before = socket.sent.length;
  socket.say({ type: 'token_expiring', data: { expires_at: wall(60_000) } });
  await new Promise((resolve) => setImmediate(resolve));
  socket.say({ type: 'authenticated', data: { role: 'nurse' } });
  assert.deepEqual(socket.sent.slice(before).map(({ type, token }) => [type, token]), [['refresh', 'token-2']]);
  assert.equal(bridge.state, 'live');
});

test('a frame that cannot be read is told and does not end the connection', async (t) => {
  const { bridge, open, of } = scripted(t);
  bridge.connect();
  const socket = await open();
  socket.onmessage({ data: 'not json' });
  assert.equal(of('error')[0].data.code, 'bad_frame');
  assert.equal(bridge.state, 'live');
});

test('waves are asked for apart from the rest, which a refusal of theirs does not touch', async (t) => {
  const { bridge, open, sockets, heard, of } = scripted(t);
  bridge.watchWaves(['waveform/P-1/+']);
  bridge.connect();
  const socket = await open();
  const asked = socket.sent.filter(({ type }) => type === 'subscribe');
  assert.deepEqual(asked.map(({ channels }) => channels.at(-1)), ['system', 'waveform/P-1/+']);
  const before = heard.length;
  socket.say({ type: 'subscribed', correlation_id: asked[1].correlation_id, data: { last_seq: 99, lost: [] } });
  socket.say({ type: 'snapshot', data: { patients: [], readings: [], alerts: [] } });
  assert.equal(heard.length, before, 'the snapshot of a subscription to waves would empty the ward');
  assert.equal(bridge.position.seq, 10);
  bridge.watchWaves(['waveform/P-2/+']);
  assert.deepEqual(socket.sent.slice(-2).map(({ type, channels }) => [type, channels]), [['unsubscribe', ['waveform/P-1/+']], ['subscribe', ['waveform/P-2/+']]]);
  socket.say({ type: 'error', correlation_id: socket.sent.at(-1).correlation_id, data: { code: 'permission_denied', message: 'no' } });
  assert.equal(of('error').length, 0);
  bridge.watchWaves([]);
  bridge.watchWaves(['waveform/P-2/+']);
  assert.notEqual(socket.sent.at(-1).type, 'subscribe', 'what was refused is not asked for again');
  bridge.watchWaves(['waveform/P-1/+']);
  socket.end(1006);
  t.mock.timers.tick(6000);
  const again = await open({ recovered: true });
  assert.equal(sockets.length, 2);
  assert.deepEqual(again.sent.at(-1).channels, ['waveform/P-1/+'], 'a new connection has them too');
});

test('a block of samples is told with its header, and one that cannot be read ends nothing', async (t) => {
  const { bridge, open, of } = scripted(t);
  const waves = [];
  bridge.addEventListener('waveform', ({ detail }) => waves.push(detail));
  bridge.connect();
  const socket = await open();
  const header = new TextEncoder().encode('{"type":"waveform","wave":"pleth","first":7,"n":2,"hz":75.0,"format":"u8"}');
  socket.onmessage({ data: Uint8Array.from([header.length, 0, ...header, 3, 4]).buffer });
  assert.deepEqual([waves[0].first, waves[0].hz, ...waves[0].samples], [7, 75, 3, 4]);
  socket.onmessage({ data: new ArrayBuffer(1) });
  assert.deepEqual(of('error').map(({ data }) => data.code), ['bad_frame']);
  assert.equal(bridge.state, 'live');
});

test('a token for one patient does not leave the page without anything: what it may have is asked for', async (t) => {
  const { bridge, sockets, of } = scripted(t);
  bridge.connect();
  const socket = sockets.at(-1);
  socket.say({ type: 'welcome', data: { mono_ms: 1, heartbeat_ms: 5000, epoch: 'e1' } });
  await Promise.resolve();
  socket.say({ type: 'authenticated', data: { role: 'nurse' } });
  const refuse = () => socket.say({ type: 'error', correlation_id: socket.sent.at(-1).correlation_id, data: { code: 'permission_denied', message: 'not allowed: device/+/status' } });
  refuse();
  assert.deepEqual(socket.sent.at(-1).channels, ['patient/+/+', 'alerts/+']);
  assert.equal(of('error').length, 0);
  refuse();
  assert.equal(of('error').length, 1, 'who may see nothing is told so, once');
  assert.equal(socket.sent.filter(({ type }) => type === 'subscribe').length, 2);
});
