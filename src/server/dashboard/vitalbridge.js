/**
 * Client of a vitalbridge: opens the WebSocket, signs in, subscribes, resumes after a loss and watches the heartbeat.
 *
 *     const bridge = new VitalBridge({ url: 'wss://bridge.example/ws', token, channels: ['patient/+/+', 'alerts/+'] });
 *     bridge.addEventListener('health_update', ({ detail }) => show(detail.data, bridge.ageOf(detail.born)));
 *     bridge.connect();
 *
 * It needs no other file and runs in any browser of the last years. The age of a reading is measured with the bridge's
 * monotonic clock and `performance.now()`; the wall clock of the machine that runs this is never trusted, but for one thing:
 * where it has run further than the other, the machine has slept, and everything is older by that.
 * @module
 */

/** The shortest and the longest wait before a new connection is tried, in ms. */
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 5000;
/** The bridge has refused too much of this session: a new one is begun, after this, in ms. */
const TOO_MANY_ERRORS = 4005;
const RETRY_ERRORS_MS = 60_000;
/** A busy machine was too slow to sign in. */
const AUTH_TIMEOUT = 4008;
/** A connection that is not subscribed after this is given up, in ms. */
const OPEN_TIMEOUT_MS = 8000;
/** Used until the bridge has told its own, in ms. */
const HEARTBEAT_MS = 5000;
/** So many heartbeats without any frame mean that the connection is lost. */
const HEARTBEATS_MISSED = 2;
/** A heartbeat may come this late, in ms. */
const HEARTBEAT_GRACE_MS = 250;
/** How often the bridge says that its alerts work, until it has told its own, in ms. */
const SELF_CHECK_MS = 5000;
/** So many of these missed mean that no alarm would come. */
const SELF_CHECKS_MISSED = 2;
/** Alerts of one receipt. */
const MAX_RECEIPTS = 256;
/** How often the connection is judged, in ms. */
const WATCH_MS = 250;
/** The wall clock ran this much further than the monotonic one: the machine slept, in ms. */
const SLEPT_MS = 3000;
/** A command without an answer has failed after this, in ms. */
const COMMAND_TIMEOUT_MS = 10000;
/** Commands that may wait for the connection or an answer at the same time; more are refused. */
const MAX_COMMANDS = 32;
/** A client that listens says this often that it is there, in ms; the bridge closes one that is silent for an hour. */
const SAY_EVERY_MS = 60000;
/** Clock comparisons that are kept, one a heartbeat. */
const MAX_OFFSETS = 12;

/**
 * @typedef {{type: string, data?: any, timestamp?: string, correlation_id?: string, channel?: string, seq?: number,
 *   epoch?: string, [member: string]: any}} Frame A message of the bridge, see docs/protocol.md.
 * @typedef {{epoch: string, seq: number}} Position The last event that was seen.
 * @typedef {{data: any, frame: Frame, born: number, replayed: boolean}} Push A `health_update`, `alert` or other event.
 *   `born` is the moment of {@link VitalBridge.now} at which it happened; `replayed` tells that it is older than the snapshot.
 * @typedef {{channel: string, wave: string, patient_id?: string, device_id: string, first: number, n: number, hz: number,
 *   baseline: number, saturated: number, gap: boolean, mode: string, samples: Uint8Array | Int16Array | Int32Array,
 *   [member: string]: any}} Wave A block of samples; `first` is the number of the first one since the source started.
 * @typedef {'idle'|'connecting'|'live'|'waiting'|'stopped'} State
 * @typedef {{state: State, retryInMs?: number}} StateDetail
 * @typedef {{code: number, reason: string, message: string, needsToken: boolean}} Stopped
 * @typedef {{ok: boolean, code?: string, message?: string}} Result The answer to a command.
 * @typedef {object} Options
 * @property {string} url Address of the WebSocket, `ws:` or `wss:`.
 * @property {string | (() => string | Promise<string>)} token The token, or where a fresh one comes from.
 * @property {string[]} [channels] Channels with `+` and `#`; default: every patient, alert, device and the bridge.
 * @property {boolean} [queueCommands] Commands wait for a connection, and are sent again after a loss, until their time is
 *   over; default true. A screen at the bed says at once that there is no connection: false.
 * @property {boolean} [annunciator] This page shows alerts to people and says so by {@link VitalBridge.receipt}.
 * @property {Position} [since] Where an earlier client ended.
 * @property {typeof WebSocket} [WebSocket] Another implementation.
 * @property {() => number} [now] A monotonic clock in ms.
 */

/**
 * For `JSON.parse`: a number whose digits JavaScript would change (37.0) keeps them in a sibling `<name>_text`, in browsers that
 * hand out the source text.
 * @this {any} @param {string} key @param {any} value @param {{source?: string}} [context]
 */
export function keepDigits(key, value, context) {
  const source = context?.source;
  if (typeof value === 'number' && source && source !== String(value) && !Array.isArray(this)) this[`${key}_text`] = source;
  return value;
}

/**
 * Reads one frame, with {@link keepDigits}.
 * @param {string} text
 * @returns {Frame} Throws SyntaxError if it is not JSON, TypeError if it is not a frame.
 */
export function parseFrame(text) {
  const frame = JSON.parse(text, keepDigits);
  if (typeof frame?.type !== 'string') throw new TypeError('a frame without a type');
  return frame;
}

/**
 * Reads a binary message with samples of a wave.
 * @param {ArrayBuffer} message length of the header (2 bytes, least significant first), the header as JSON, the samples
 * @returns {Wave} Throws RangeError, SyntaxError or TypeError if it is not one.
 */
export function parseWave(message) {
  const begin = 2 + new DataView(message).getUint16(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 2, begin - 2)));
  // Browsers run on machines alone that keep the least significant byte first, as the samples have it.
  const Samples = { u8: Uint8Array, i16le: Int16Array, i32le: Int32Array }[/** @type {'u8'} */ (header.format)];
  if (header.type !== 'waveform' || !Samples) throw new TypeError('not a wave');
  return { ...header, samples: new Samples(message.slice(begin), 0, header.n) };
}

/**
 * The wait before attempt `attempt` (0, 1, 2 ...), spread so that many clients do not come back in the same moment.
 * @param {number} attempt
 * @param {number} random 0 <= random < 1
 * @returns {number} ms
 */
export function retryDelay(attempt, random) {
  const longest = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** (attempt + 1));
  return RETRY_MIN_MS + random * (longest - RETRY_MIN_MS);
}

/**
 * What the end of a connection asks for: give up, get a new token, or try again.
 * @param {number} code Close code: 40xx stop (but 4005 and 4008: nobody would look after a screen on a wall), 41xx new token, the rest is
 *   worth another attempt; 1008 and 1009 are 40xx in the standard numbering.
 * @returns {'stop' | 'token' | 'retry'}
 */
export function closeAction(code) {
  if (code >= 4100 && code < 4200) return 'token';
  if (code === TOO_MANY_ERRORS || code === AUTH_TIMEOUT) return 'retry';
  if ((code >= 4000 && code < 4100) || code === 1008 || code === 1009) return 'stop';
  return 'retry';
}

/** Relates the bridge's clocks to the local monotonic one. */
export class ServerClock {
  /** Local minus bridge time of the last heartbeats; the smallest had the least delay on the way. @type {number[]} */
  #offsets = [];
  /** @type {number | undefined} */
  #wallToMono;

  /** Forgets everything: another bridge, or the same after a reboot. */
  reset() {
    this.#offsets = [];
    this.#wallToMono = undefined;
  }

  /**
   * Takes what one heartbeat says.
   * @param {number} monoMs The bridge's monotonic clock.
   * @param {string | undefined} wall The bridge's time of day at the same moment.
   * @param {number} localMs The local monotonic clock on arrival.
   */
  sync(monoMs, wall, localMs) {
    if (!Number.isFinite(monoMs)) return;
    this.#offsets.push(localMs - monoMs);
    if (this.#offsets.length > MAX_OFFSETS) this.#offsets.shift();
    const wallMs = Date.parse(wall ?? '');
    if (Number.isFinite(wallMs)) this.#wallToMono = monoMs - wallMs;
  }

  /**
   * The bridge's time of day was stepped: the next heartbeat would say so too late.
   * @param {string | undefined} wall What it is now.
   * @param {number} localMs The local monotonic clock on arrival.
   */
  stepped(wall, localMs) {
    const wallMs = Date.parse(wall ?? '');
    if (Number.isFinite(wallMs) && this.#offsets.length) this.#wallToMono = localMs - Math.min(...this.#offsets) - wallMs;
  }

  /**
   * The local moment of a time of day that the bridge wrote. Never later than `localMs`, which is also the answer while
   * nothing is known.
   * @param {string | undefined} wall
   * @param {number} localMs
   */
  localOf(wall, localMs) {
    const wallMs = Date.parse(wall ?? '');
    if (this.#wallToMono === undefined || !Number.isFinite(wallMs)) return localMs;
    return Math.min(localMs, wallMs + this.#wallToMono + Math.min(...this.#offsets));
  }

  /**
   * The bridge's time of day, ms since 1970, or undefined while it is unknown.
   * @param {number} localMs
   * @returns {number | undefined}
   */
  wallAt(localMs) {
    if (this.#wallToMono === undefined) return undefined;
    return localMs - Math.min(...this.#offsets) - this.#wallToMono;
  }
}

/**
 * One connection that comes back by itself.
 *
 * Events, each a CustomEvent: `state` {@link StateDetail}; `stopped` {@link Stopped}; `welcome`, `authenticated`,
 * `subscribed`, `snapshot`, `heartbeat`, `gap`, `token_expiring`, `error` with the {@link Frame}; `health_update`, `alert`,
 * `device_status`, `notification`, `system` with a {@link Push}; `waveform` with a {@link Wave}, after
 * {@link VitalBridge.watchWaves}. A frame of any other type is dispatched under its type.
 */
export class VitalBridge extends EventTarget {
  /** @type {Options} */ #options;
  /** @type {WebSocket | undefined} */ #socket;
  /** @type {State} */ #state = 'idle';
  /** @type {Position | undefined} */ #position;
  #epoch = '';
  /** The newest event when the subscription began, and what of it the snapshot has told. */
  #lastSeq = 0;
  #snapshotSeq = 0;
  /** @type {Frame | undefined} */ #closing;
  #clock = new ServerClock();
  /** @type {() => number} */ #monotonic;
  /** By how much the wall clock was ahead of the monotonic one when they were read last, and for how long the machine has slept, in ms. */
  #ahead = NaN;
  #slept = 0;
  #attempt = 0;
  #heartbeatMs = HEARTBEAT_MS;
  #selfCheckMs = SELF_CHECK_MS;
  /** When the bridge last said that its alerts work, or the page began to wait for it. */
  #checkedAt = 0;
  /** @type {number | undefined} */ #checkedWall;
  #openedAt = 0;
  /** @type {number | undefined} */ #contactAt;
  #saidAt = 0;
  /** How much of its sleep the watch has seen. */
  #sleptBefore = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watchTimer;
  /** @type {Map<string, {frame: object, sent: boolean, done: (result: Result) => void}>} */ #commands = new Map();
  #correlation = 0;
  #nonce;
  /** The correlation id of the newest `subscribe`, and whether the token is for some patients alone. */
  #subscribeId = '';
  #isNarrow = false;
  /** Channels of waves that are wished, and those that this connection may not have or has. @type {string[]} */ #waves = [];
  /** @type {Set<string>} */ #waveRefused = new Set();
  /** @type {Set<string>} */ #waveAsked = new Set();
  /** Channels by the correlation id of their `subscribe`. @type {Map<string, string[]>} */ #waveRequests = new Map();
  /** When waves are asked for again that were refused for a passing reason. */
  #wavesAgainAt = Infinity;
  /** The next snapshot belongs to a subscription to waves, and says nothing. */
  #isWaveSnapshot = false;

  /** @param {Options} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#position = options.since;
    this.#monotonic = options.now ?? (() => performance.now());
    // A correlation id makes a command idempotent for a day, so it must not recur on another page.
    this.#nonce = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The last event that was seen, to be given to a later client as `since`. @returns {Position | undefined} */
  get position() {
    return this.#position;
  }

  /** True once two heartbeats are missed, or the connection is gone and did not come back at once. */
  get isLost() {
    if (this.#state === 'live') return this.#silentFor() > this.#silenceLimit();
    return this.#attempt > 1 || this.#silentFor() > this.#silenceLimit();
  }

  /**
   * True once two self-checks are missed: an alarm of the bridge might not come, whatever else comes. True at once, and until
   * {@link VitalBridge.connect} or {@link VitalBridge.close}, after the bridge has ended the session for good.
   */
  get isAlarmless() {
    const { state } = this;
    const waits = SELF_CHECKS_MISSED * this.#selfCheckMs + HEARTBEAT_GRACE_MS;
    return state === 'stopped' || (state !== 'idle' && this.now - this.#checkedAt > waits);
  }

  /** The bridge's time of day at the last self-check, or since when one is awaited; undefined before the first contact. */
  get checkedWall() {
    return this.#checkedWall;
  }

  /**
   * A monotonic clock in ms that goes on while this machine sleeps, as `performance.now()` does not everywhere: by it a number
   * of before is old at once.
   */
  get now() {
    const mono = this.#monotonic();
    const ahead = Date.now() - mono;
    if (ahead - this.#ahead > SLEPT_MS) this.#slept += ahead - this.#ahead;
    this.#ahead = ahead;
    return mono + this.#slept;
  }

  /** The bridge's time of day now, ms since 1970; undefined before the first contact. */
  get wall() {
    return this.#clock.wallAt(this.now);
  }

  /** The bridge's time of day at the last frame; undefined before the first contact. */
  get contactWall() {
    return this.#contactAt === undefined ? undefined : this.#clock.wallAt(this.#contactAt);
  }

  /**
   * Age in ms of something that was born at a local moment.
   * @param {number} born
   */
  ageOf(born) {
    return Math.max(0, this.now - born);
  }

  /** Connects, and from now on comes back after each loss. Does nothing while it is connected. */
  connect() {
    if (this.#state !== 'idle' && this.#state !== 'stopped') return;
    this.#attempt = 0;
    this.#ahead = NaN;
    this.#contactAt = this.now;
    this.#checkedAt = this.now;
    this.#checkedWall = undefined;
    this.#watchTimer = setInterval(() => this.#watch(), WATCH_MS);
    this.#open();
  }

  /** Leaves for good; {@link connect} starts again where it ended. */
  close() {
    this.#drop(1000);
    this.#halt('idle');
  }

  /**
   * Sends a command and waits for its answer. Never rejects: what went wrong is in the result. Sent again after a loss it
   * has the same correlation id, by which the bridge does it once.
   * @param {{name: string, [member: string]: unknown}} data
   * @returns {Promise<Result>}
   */
  command(data) {
    const failed = (/** @type {string} */ code, /** @type {string} */ message) => ({ ok: false, code, message });
    const notConnected = failed('not_connected', 'There is no connection to the bridge.');
    const waits = this.#options.queueCommands !== false && this.#state !== 'idle' && this.#state !== 'stopped';
    if (this.#state !== 'live' && !waits) return Promise.resolve(notConnected);
    if (this.#commands.size >= MAX_COMMANDS) return Promise.resolve(failed('too_many', 'Too many commands are waiting.'));
    return new Promise((resolve) => {
      const id = this.#nextId();
      const frame = { type: 'command', data };
      const done = (/** @type {Result} */ result) => {
        clearTimeout(timer);
        this.#commands.delete(id);
        resolve(result);
      };
      const command = { frame, sent: this.#state === 'live', done };
      const late = () => (command.sent ? failed('timeout', 'The bridge did not answer; it may have done it.') : notConnected);
      const timer = setTimeout(() => done(late()), COMMAND_TIMEOUT_MS);
      this.#commands.set(id, command);
      if (command.sent) this.#send(frame, id);
    });
  }

  /**
   * Acknowledges an alert as it was when its event `expectedSeq` was shown; refused if it has alarmed again since.
   * @param {string} alertId
   * @param {number} expectedSeq
   */
  acknowledge(alertId, expectedSeq) {
    return this.command({ name: 'alert.acknowledge', alert_id: alertId, expected_seq: expectedSeq });
  }

  /**
   * Tells the bridge that alerts have come or, once a person can read them on this screen, that they are shown. Alerts
   * that nobody shows in time call for help at the bridge itself.
   * @param {'delivered' | 'shown'} state
   * @param {{alertId: string, seq: number}[]} alerts each with the newest event of it that was drawn
   */
  receipt(state, alerts) {
    if (this.#state !== 'live') return;
    for (let start = 0; start < alerts.length; start += MAX_RECEIPTS) {
      const part = alerts.slice(start, start + MAX_RECEIPTS).map(({ alertId, seq }) => ({ alert_id: alertId, seq }));
      this.#send({ type: 'alert_receipt', data: { state, epoch: this.#epoch, alerts: part } });
    }
  }

  /** Asks for a new snapshot: what the bridge has is not what this client has. */
  refresh() {
    if (this.#state === 'live') this.#subscribe(true);
  }

  /**
   * Chooses the waves that come, instead of those before; none costs nothing. What the token does not allow does not come.
   * @param {string[]} channels such as `waveform/P-1/+`
   */
  watchWaves(channels) {
    const left = this.#waves.filter((channel) => !channels.includes(channel) && this.#waveAsked.delete(channel));
    this.#waves = [...channels];
    if (this.#state !== 'live') return;
    if (left.length > 0) this.#send({ type: 'unsubscribe', channels: left });
    this.#askWaves();
  }

  /** Asks for waves by a `subscribe` of their own: one that is refused must not take the alerts with it. */
  #askWaves() {
    const channels = this.#waves.filter((channel) => !this.#waveRefused.has(channel) && !this.#waveAsked.has(channel));
    if (channels.length === 0) return;
    for (const channel of channels) this.#waveAsked.add(channel);
    const id = this.#nextId();
    this.#waveRequests.set(id, channels);
    this.#send({ type: 'subscribe', channels, delivery: 'latest' }, id);
  }

  /** True if the frame belongs to a subscription to waves. @param {Frame} frame */
  #isAboutWaves(frame) {
    if (frame.type === 'snapshot' && this.#isWaveSnapshot) {
      this.#isWaveSnapshot = false;
      return true;
    }
    const id = frame.correlation_id ?? '';
    const channels = frame.type === 'subscribed' || frame.type === 'error' ? this.#waveRequests.get(id) : undefined;
    if (!channels) return false;
    this.#waveRequests.delete(id);
    if (frame.type === 'subscribed') this.#isWaveSnapshot = true;
    else if (frame.data?.code === 'permission_denied') for (const channel of channels) this.#waveRefused.add(channel);
    else {
      for (const channel of channels) this.#waveAsked.delete(channel);
      this.#wavesAgainAt = this.now + SAY_EVERY_MS;
    }
    return true;
  }

  #silentFor() {
    return this.#contactAt === undefined ? 0 : this.now - this.#contactAt;
  }

  #silenceLimit() {
    return HEARTBEATS_MISSED * this.#heartbeatMs + HEARTBEAT_GRACE_MS;
  }

  /** @param {string} name @param {unknown} detail */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** @param {State} state @param {number} [retryInMs] */
  #enter(state, retryInMs) {
    this.#state = state;
    this.#tell('state', { state, retryInMs });
  }

  /** @param {'idle' | 'stopped'} state */
  #halt(state) {
    clearInterval(this.#watchTimer);
    clearTimeout(this.#retryTimer);
    this.#giveUp();
    this.#enter(state);
  }

  /** Ends the commands that wait: nobody will answer them. */
  #giveUp() {
    for (const { sent, done } of [...this.#commands.values()]) {
      if (sent) done({ ok: false, code: 'connection_lost', message: 'The connection was lost; the bridge may or may not have done it.' });
      else done({ ok: false, code: 'not_connected', message: 'There is no connection to the bridge.' });
    }
  }

  #open() {
    const Socket = this.#options.WebSocket ?? WebSocket;
    const socket = new Socket(this.#options.url);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#waveAsked.clear();
    this.#waveRefused.clear();
    this.#wavesAgainAt = Infinity;
    this.#waveRequests.clear();
    this.#isWaveSnapshot = false;
    this.#closing = undefined;
    this.#openedAt = this.now;
    this.#enter('connecting');
    // A socket that was given up may still speak; only the current one is heard.
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#hear(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#ended(code, reason);
    };
  }

  /** Gives the current socket up without waiting for its end. @param {number} [code] */
  #drop(code) {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(code);
    if (this.#options.queueCommands === false) this.#giveUp();
  }

  /** @param {number} code @param {string} reason */
  #ended(code, reason) {
    this.#drop();
    const told = this.#closing?.data;
    const why = typeof told?.code === 'number' ? told.code : code;
    const action = closeAction(why);
    if (action === 'retry' || (action === 'token' && typeof this.#options.token === 'function')) {
      this.#retry(why === TOO_MANY_ERRORS ? RETRY_ERRORS_MS : told?.retry_after_ms);
      return;
    }
    this.#halt('stopped');
    this.#tell('stopped', { code: why, reason: reason || told?.reason || '', message: told?.message ?? '', needsToken: action === 'token' });
  }

  /** @param {number} [toldMs] The wait that the bridge asks for. */
  #retry(toldMs) {
    const delay = Math.max(toldMs ?? 0, retryDelay(this.#attempt, Math.random()));
    this.#attempt += 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    this.#enter('waiting', delay);
  }

  /** Judges the connection: silent, never opened, or slept through. */
  #watch() {
    const now = this.now;
    const slept = this.#slept > this.#sleptBefore;
    this.#sleptBefore = this.#slept;
    const silent = this.#state === 'live' && this.#silentFor() > this.#silenceLimit();
    const stuck = this.#state === 'connecting' && now - this.#openedAt > OPEN_TIMEOUT_MS;
    if (silent || stuck || (slept && this.#state === 'live')) {
      this.#drop();
      this.#retry();
    }
  }

  #nextId() {
    this.#correlation += 1;
    this.#saidAt = this.now;
    return `${this.#nonce}-${this.#correlation}`;
  }

  /** @param {object} frame @param {string} [id] its correlation id */
  #send(frame, id = this.#nextId()) {
    this.#socket?.send(JSON.stringify({ ...frame, correlation_id: id }));
  }

  /** @param {'authenticate' | 'refresh'} type A refresh that brings no token is left to the end of the old one. */
  async #authenticate(type) {
    const socket = this.#socket;
    const { token } = this.#options;
    const value = typeof token === 'function' ? await (async () => token())().catch(() => '') : token;
    if (socket === this.#socket && (value || type === 'authenticate')) this.#send({ type, token: value });
  }

  /** @param {unknown} message */
  #hear(message) {
    const now = this.now;
    this.#contactAt = now;
    let frame;
    try {
      if (message instanceof ArrayBuffer) return this.#tell('waveform', parseWave(message));
      frame = parseFrame(String(message));
    } catch (cause) {
      this.#tell('error', { type: 'error', data: { code: 'bad_frame', message: String(cause), scope: 'connection' } });
      return;
    }
    if (typeof frame.seq === 'number' && frame.channel !== undefined) this.#push(frame, now);
    else this.#control(frame, now);
  }

  /** @param {Frame} frame @param {number} now */
  #push(frame, now) {
    const { epoch = '', seq = 0, data = {} } = frame;
    // Until the snapshot, what is newer than the join has overtaken the missed events, which may still be cut off.
    const overtook = this.#snapshotSeq === 0 && epoch === this.#epoch && seq > this.#lastSeq;
    const newer = this.#position?.epoch !== epoch || seq > this.#position.seq;
    if (newer && !overtook) this.#position = { epoch, seq };
    const replayed = epoch !== this.#epoch || seq <= this.#lastSeq;
    if (data.kind === 'clock_stepped' && !replayed) this.#clock.stepped(frame.timestamp, now);
    const born = this.#clock.localOf(data.received ?? frame.timestamp, now);
    this.#tell(frame.type, { data: { ...data, seq, epoch }, frame, born, replayed });
  }

  /** @param {Frame} frame @param {number} now */
  #control(frame, now) {
    if (this.#isAboutWaves(frame)) return;
    const data = frame.data ?? {};
    if (frame.type === 'error' && data.code === 'permission_denied' && frame.correlation_id === this.#subscribeId && !this.#isNarrow) {
      this.#isNarrow = true;
      return this.#subscribe();
    }
    if (frame.type === 'welcome') {
      this.#clock.reset();
      this.#clock.sync(data.mono_ms, frame.timestamp, now);
      this.#checkedWall ??= this.#clock.wallAt(now);
      if (data.heartbeat_ms > 0) this.#heartbeatMs = data.heartbeat_ms;
      this.#epoch = data.epoch ?? '';
      this.#snapshotSeq = 0;
      this.#authenticate('authenticate');
    } else if (frame.type === 'authenticated') {
      // A refreshed token keeps the subscription.
      if (this.#state !== 'live') this.#subscribe();
    } else if (frame.type === 'token_expiring') {
      if (typeof this.#options.token === 'function') this.#authenticate('refresh');
    } else if (frame.type === 'subscribed') {
      this.#attempt = 0;
      this.#lastSeq = data.last_seq ?? 0;
      // A resumed client is sent what it missed and moves on with it; any other begins at the snapshot.
      if (!data.recovered || !this.#position) this.#position = { epoch: this.#epoch, seq: this.#lastSeq };
      this.#enter('live');
      for (const [id, command] of this.#commands) {
        command.sent = true;
        this.#send(command.frame, id);
      }
      this.#askWaves();
    } else if (frame.type === 'snapshot') {
      this.#snapshotSeq = this.#lastSeq;
      // What was missed has come; a replay of other patients' events may have brought nothing for us.
      this.#position = { epoch: this.#epoch, seq: this.#lastSeq };
    } else if (frame.type === 'heartbeat') {
      this.#clock.sync(data.mono_ms, frame.timestamp, now);
      if (this.#state === 'live' && now - this.#saidAt >= SAY_EVERY_MS) this.#send({ type: 'heartbeat' });
      if (this.#state === 'live' && now >= this.#wavesAgainAt) {
        this.#wavesAgainAt = Infinity;
        this.#askWaves();
      }
    } else if (frame.type === 'alert_system') {
      this.#checkedAt = now;
      this.#checkedWall = this.#clock.wallAt(now);
      if (data.every_ms > 0) this.#selfCheckMs = data.every_ms;
    } else if (frame.type === 'closing' || frame.type === 'auth_error') {
      this.#closing ??= frame.type === 'closing' ? frame : { type: 'closing', data: { message: data.message ?? frame.message } };
    } else if (frame.type === 'result') {
      this.#commands.get(frame.correlation_id ?? '')?.done(data);
    } else if (frame.type === 'error') {
      this.#commands.get(frame.correlation_id ?? '')?.done({ ok: false, code: data.code, message: data.message });
    }
    this.#tell(frame.type, frame);
  }

  /** @param {boolean} [again] the same once more, for a snapshot */
  #subscribe(again = false) {
    const { channels = ['patient/+/+', 'alerts/+', 'device/+/status', 'system'], annunciator = false } = this.#options;
    // A token for some patients has what is theirs, and the state of their devices with it.
    const chosen = this.#isNarrow ? channels.filter((channel) => /^(patient|alerts|ward)\//.test(channel)) : channels;
    const since = again ? undefined : this.#position;
    this.#subscribeId = this.#nextId();
    // A screen wants the newest of each stream, also after it has caught up.
    this.#send({ type: 'subscribe', channels: chosen, delivery: 'latest', ...(annunciator && { annunciator }), ...(since && { since }) }, this.#subscribeId);
  }
}
