// A window for each test, in which nothing goes wrong unseen, and nothing is said that the contract does not allow.

import assert from 'node:assert/strict';
import { afterEach, beforeEach } from 'node:test';
import { observed } from './real.mjs';
import { context, daemon, fresh } from './stage.mjs';

export let page;
/** What went wrong in the page without anybody asking. */
export let trouble;
/** What the page and the daemon said to each other and the contract does not allow. */
let broken;

beforeEach(async () => {
  await fresh();
  page = await context.newPage();
  ({ trouble, broken } = await observed(page, daemon.origin));
});

afterEach(() => assert.deepEqual(broken, [], 'not in the contract'));
