// Holds every frame that a test sees to the contract. Objects are closed here, though the contract lets members come.

import { readFileSync } from 'node:fs';
import Ajv from 'ajv/dist/2020.js';

const contract = JSON.parse(readFileSync(new URL('../../docs/schema/vitals.v1.json', import.meta.url)));

/** The schema with every object of named members closed. */
function closed(schema) {
  if (Array.isArray(schema)) return schema.map(closed);
  if (schema === null || typeof schema !== 'object') return schema;
  const members = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, closed(value)]));
  if (members.properties && !('additionalProperties' in members)) members.additionalProperties = false;
  return members;
}

const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
ajv.addSchema(closed(contract), 'contract');
const title = (type) => String(type).split('_').map((word) => word.slice(0, 1).toUpperCase() + word.slice(1)).join('');

/** What a named schema says about a message; empty: nothing. */
export function problems(name, message) {
  if (!(name in contract.$defs)) return [`there is no message ${name}`];
  const validate = ajv.getSchema(`contract#/$defs/${name}`);
  return validate(message) ? [] : validate.errors.map(({ instancePath, message: text, params }) => `${instancePath} ${text} ${JSON.stringify(params)}`);
}

/** What is wrong about a message of the server. */
export const ofServer = (message) => problems(Array.isArray(message) ? 'CompactReading' : title(message?.type), message);

/** What is wrong about a message of a client. */
export const ofClient = (message) => problems(`${title(message?.type)}Request`, message);
