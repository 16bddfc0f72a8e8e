/**
 * Requests to the bridge's HTTP interface with the token of this tab, and what that token says of its owner.
 * @module
 */

import { keepDigits } from './vitalbridge.js';

/** Key of the token in the tab's own storage, as app.js keeps it. */
const TOKEN_KEY = 'vitalbridge.token';
/** A request without an answer has failed after this, in ms; the bridge itself gives up after 10 s. */
const TIMEOUT_MS = 15_000;

/** The roles that may have a command carried out, and those that may acknowledge. */
const MAY_CHANGE = ['clinician', 'admin'];
const MAY_ACKNOWLEDGE = ['nurse', 'clinician', 'admin'];

/** @typedef {{user: string, role: string, expires: number | undefined, caps: {channels: string[], allow: string[]}[] | undefined}} Owner */

/** A request that was not answered as asked. Its message is for people. */
export class Refused extends Error {
  /** @param {string} message @param {number} [status] 0: no answer came @param {string} [code] */
  constructor(message, status = 0, code = '') {
    super(message);
    this.name = 'Refused';
    this.status = status;
    this.code = code;
  }
}

/** The token of this tab; empty if there is none. */
export const token = () => sessionStorage.getItem(TOKEN_KEY) ?? '';

/**
 * What a token says. It proves nothing here: the bridge decides. It only keeps the page from offering what would be refused.
 * @param {string} jwt
 * @returns {Owner}
 */
export function ownerOf(jwt) {
  try {
    const body = (jwt.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/');
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0))));
    return { user: String(claims.sub ?? ''), role: String(claims.role ?? ''), expires: claims.exp * 1000, caps: claims.caps ?? undefined };
  } catch {
    return { user: '', role: '', expires: undefined, caps: undefined };
  }
}

/** @param {Owner} owner */
export const mayChange = (owner) => MAY_CHANGE.includes(owner.role) && grants(owner, 'cmd');

/** @param {Owner} owner */
export const mayAcknowledge = (owner) => MAY_ACKNOWLEDGE.includes(owner.role) && grants(owner, 'ack');

/** True unless the token's narrower rights leave this one out everywhere. @param {Owner} owner @param {string} right */
const grants = ({ caps }, right) => caps === undefined || caps.some(({ allow }) => allow?.includes(right));

/** True if the token may read the audit trail, as far as it says so itself. @param {Owner} owner */
export function mayAudit({ caps }) {
  const shows = (/** @type {string} */ channel) => channel === '#' || channel === 'audit' || /^ward\/[^/]+\/(#|audit)$/.test(channel);
  return caps === undefined || caps.some(({ channels, allow }) => allow?.includes('hst') && channels?.some(shows));
}

/** @param {Response} response @param {any} answer */
function refusal(response, answer) {
  const wait = response.headers.get('Retry-After');
  const again = wait ? ` Try again in ${wait} s.` : '';
  if (response.status === 401) return new Refused('Your session has ended. Sign in again.', 401, answer.code);
  const message = answer.message ?? `The bridge refused it (HTTP ${response.status}).`;
  return new Refused(`${message}${again}`, response.status, answer.code);
}

/**
 * Asks the bridge.
 * @param {string} path
 * @param {{method?: string, query?: Record<string, string | number | undefined | null>, body?: unknown, signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the answer; throws {@link Refused}, or what `signal` was aborted with
 */
export async function ask(path, { method = 'GET', query = {}, body, signal } = {}) {
  const response = await request(path, { method, query, body, signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])]) }, signal);
  const text = await response.text().catch(() => '');
  let answer;
  try {
    answer = JSON.parse(text, keepDigits);
  } catch {
    answer = response.ok ? undefined : {};
  }
  if (!response.ok) throw refusal(response, answer ?? {});
  if (answer === undefined) throw new Refused('The bridge gave an answer that cannot be read.', response.status);
  return answer;
}

/**
 * A text of the bridge that is not JSON.
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export async function askText(path, signal) {
  const response = await request(path, { method: 'GET', signal }, signal);
  if (!response.ok) throw refusal(response, await response.json().catch(() => ({})));
  return response.text();
}

/**
 * A file of the bridge, read as it comes.
 * @param {string} path
 * @param {Record<string, string | number | undefined | null>} query
 * @param {AbortSignal} signal
 */
export async function askFile(path, query, signal) {
  const response = await request(path, { method: 'GET', query, signal }, signal);
  if (!response.ok || !response.body) throw refusal(response, await response.json().catch(() => ({})));
  return response.body;
}

/**
 * @param {string} path
 * @param {{method: string, query?: Record<string, string | number | undefined | null>, body?: unknown, signal?: AbortSignal}} options
 * @param {AbortSignal} [mine] ended by the page itself
 */
async function request(path, { method, query = {}, body, signal }, mine) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null && value !== '') url.searchParams.set(name, String(value));
  const headers = new Headers({ Authorization: `Bearer ${token()}` });
  if (body !== undefined) headers.set('Content-Type', 'application/json');
  try {
    return await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (cause) {
    if (mine?.aborted) throw cause;
    throw new Refused('The bridge does not answer. What stands here may be old.');
  }
}

/** Why something did not work, in words. @param {unknown} cause */
export const wordsOf = (cause) => (cause instanceof Error ? cause.message : String(cause));

/** True if the page itself gave up, which nobody has to be told. @param {unknown} cause */
export const isAbort = (cause) => cause instanceof DOMException && cause.name === 'AbortError';
