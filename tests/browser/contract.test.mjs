// The closed contract, as the tests of the page use it, notices what breaks it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ofClient, ofServer } from './contract.mjs';

const pong = { type: 'pong', data: { mono_ms: 5 }, timestamp: '2026-11-20T22:00:00.123Z', correlation_id: 'c' };

test('a frame that breaks the contract is noticed', () => {
  assert.deepEqual(ofServer(pong), []);
  assert.deepEqual(ofServer([1, 2, 37.0, 3, 4]), []);
  const broken = [{ ...pong, type: 'fly' }, { ...pong, data: {} }, { ...pong, more: 1 }, { ...pong, data: { mono_ms: '5' } },
    { ...pong, timestamp: 'yesterday' }, [1, 2, true, 3, 4], null];
  for (const frame of broken) assert.notDeepEqual(ofServer(frame), [], JSON.stringify(frame));
});

test('a message of a client that breaks the contract is noticed', () => {
  assert.deepEqual(ofClient({ type: 'subscribe', channels: ['alerts/+'], correlation_id: '1' }), []);
  for (const message of [{ type: 'fly' }, { type: 'subscribe', channels: 'alerts/+' }, { type: 'authenticate' }]) {
    assert.notDeepEqual(ofClient(message), [], JSON.stringify(message));
  }
});
