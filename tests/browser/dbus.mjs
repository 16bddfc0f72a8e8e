// A peer on a D-Bus: just enough of the wire format (D-Bus specification 0.43, "Marshaling") for the radio of the tests.

import { connect } from 'node:net';

const CALL = 1;
const RETURN = 2;
const SIGNAL = 4;
const SIZES = { y: 1, b: 4, n: 2, q: 2, i: 4, u: 4, s: 4, o: 4, a: 4, x: 8, t: 8, d: 8, '(': 8, '{': 8, g: 1, v: 1 };
/** Header fields by their names. */
const FIELDS = { path: [1, 'o'], interface: [2, 's'], member: [3, 's'], error: [4, 's'], replyTo: [5, 'u'], destination: [6, 's'], sender: [7, 's'], signature: [8, 'g'] };

/** The first complete type of a signature. */
function first(signature) {
  if (signature[0] === 'a') return `a${first(signature.slice(1))}`;
  const close = { '(': ')', '{': '}' }[signature[0]];
  if (!close) return signature[0];
  let at = 1;
  while (signature[at] !== close) at += first(signature.slice(at)).length;
  return signature.slice(0, at + 1);
}

/** The complete types of a signature. */
function types(signature) {
  const found = [];
  for (let at = 0; at < signature.length; at += found.at(-1).length) found.push(first(signature.slice(at)));
  return found;
}

/** Values in little endian. A variant is `[type, value]`, a dictionary an object. */
class Writer {
  bytes = [];

  align(size) {
    while (this.bytes.length % size !== 0) this.bytes.push(0);
  }

  number(value, size) {
    const buffer = Buffer.alloc(8);
    buffer.writeBigInt64LE(BigInt(value));
    this.bytes.push(...buffer.subarray(0, size));
  }

  write(type, value) {
    this.align(SIZES[type[0]]);
    if ('ybnqiu'.includes(type)) this.number(Number(value), SIZES[type]);
    else if (type === 's' || type === 'o' || type === 'g') {
      const text = Buffer.from(value);
      this.number(text.length, SIZES[type]);
      this.bytes.push(...text, 0);
    } else if (type === 'v') {
      this.write('g', value[0]);
      this.write(value[0], value[1]);
    } else if (type[0] === '(' || type[0] === '{') types(type.slice(1, -1)).forEach((one, at) => this.write(one, value[at]));
    else {
      const inner = type.slice(1);
      const place = this.bytes.length;
      this.number(0, 4);
      this.align(SIZES[inner[0]]);
      const begin = this.bytes.length;
      for (const one of inner[0] === '{' ? Object.entries(value) : value) this.write(inner, one);
      this.bytes.splice(place, 4, ...new Writer().sized(this.bytes.length - begin));
    }
  }

  sized(length) {
    this.number(length, 4);
    return this.bytes;
  }
}

/** Reads what a {@link Writer} wrote. */
class Reader {
  constructor(buffer, at = 0) {
    this.buffer = buffer;
    this.at = at;
  }

  align(size) {
    this.at = Math.ceil(this.at / size) * size;
  }

  read(type) {
    this.align(SIZES[type[0]]);
    const number = (size) => {
      this.at += size;
      return this.buffer.readUIntLE(this.at - size, size);
    };
    if ('ybnqiu'.includes(type)) return number(SIZES[type]);
    if (type === 's' || type === 'o' || type === 'g') {
      const length = number(SIZES[type]);
      this.at += length + 1;
      return this.buffer.toString('utf8', this.at - length - 1, this.at - 1);
    }
    if (type === 'v') return this.read(this.read('g'));
    if (type[0] === '(' || type[0] === '{') return types(type.slice(1, -1)).map((one) => this.read(one));
    const inner = type.slice(1);
    const length = number(4);
    this.align(SIZES[inner[0]]);
    const [end, found] = [this.at + length, []];
    while (this.at < end) found.push(this.read(inner));
    return found;
  }
}

/** One message as bytes. */
function packed(kind, serial, { signature = '', body = [], ...fields }) {
  const content = new Writer();
  types(signature).forEach((type, at) => content.write(type, body[at]));
  const header = new Writer();
  header.bytes.push(0x6c, kind, 0, 1);
  header.number(content.bytes.length, 4);
  header.number(serial, 4);
  const given = Object.entries({ ...fields, ...(signature && { signature }) });
  header.write('a(yv)', given.map(([name, value]) => [FIELDS[name][0], [FIELDS[name][1], value]]));
  header.align(8);
  return Buffer.from([...header.bytes, ...content.bytes]);
}

/** The first message of what has come, and how long it is; undefined while it is not whole. */
function unpacked(buffer) {
  if (buffer.length < 16) return undefined;
  const fieldsEnd = 16 + buffer.readUInt32LE(12);
  const begin = Math.ceil(fieldsEnd / 8) * 8;
  const length = begin + buffer.readUInt32LE(4);
  if (buffer.length < length) return undefined;
  const names = Object.fromEntries(Object.entries(FIELDS).map(([name, [code]]) => [code, name]));
  const fields = Object.fromEntries(new Reader(buffer, 12).read('a(yv)').map(([code, value]) => [names[code], value]));
  const reader = new Reader(buffer.subarray(begin, length));
  return { length, kind: buffer[1], serial: buffer.readUInt32LE(8), ...fields, body: types(fields.signature ?? '').map((type) => reader.read(type)) };
}

/**
 * Takes a name on the bus at this socket and answers what is asked of it.
 * @param {string} socketPath
 * @param {string} name
 * @param {(call: {path: string, interface: string, member: string, body: any[]}) => [string, any[]] | undefined} answer signature and values;
 *   undefined: there is no such thing
 * @returns {Promise<{signal: (path: string, interface: string, member: string, signature: string, body: any[]) => void, close: () => void}>}
 */
export async function serve(socketPath, name, answer) {
  const socket = connect(socketPath);
  let serial = 0;
  const send = (kind, message) => socket.write(packed(kind, serial += 1, message));
  const bus = { destination: 'org.freedesktop.DBus', path: '/org/freedesktop/DBus', interface: 'org.freedesktop.DBus' };
  await new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('data', () => resolve(socket.write('BEGIN\r\n')));
    socket.write(`\0AUTH EXTERNAL ${Buffer.from(String(process.getuid())).toString('hex')}\r\n`);
  });
  let kept = Buffer.alloc(0);
  let joined;
  const named = new Promise((resolve) => {
    joined = resolve;
  });
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    kept = Buffer.concat([kept, chunk]);
    for (let message = unpacked(kept); message; message = unpacked(kept)) {
      kept = kept.subarray(message.length);
      if (message.kind === RETURN && message.replyTo === 2) joined();
      if (message.kind !== CALL) continue;
      const found = answer(message);
      const to = { destination: message.sender, replyTo: message.serial };
      if (found) send(RETURN, { ...to, signature: found[0], body: found[1] });
      else send(3, { ...to, error: 'org.freedesktop.DBus.Error.UnknownObject', signature: 's', body: ['there is no such thing'] });
    }
  });
  send(CALL, { ...bus, member: 'Hello' });
  send(CALL, { ...bus, member: 'RequestName', signature: 'su', body: [name, 0] });
  await named;
  return { signal: (path, of, member, signature, body) => send(SIGNAL, { path, interface: of, member, signature, body }), close: () => socket.destroy() };
}
