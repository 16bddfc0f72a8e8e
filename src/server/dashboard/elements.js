/**
 * Makes and changes elements of the pages. Every text enters through `textContent`; nothing is ever read as markup.
 * @module
 */

export { hide, write } from './dom.js';
import { hide, write } from './dom.js';

/** @typedef {Node | string | number | false | null | undefined} Child What is false, null or undefined is left out. */

/**
 * An element with attributes and children. A listener is a member `on` of functions by event; `true` sets an attribute without a
 * value, `false` and `undefined` set none.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {{on?: Record<string, (event: any) => void>, [attribute: string]: any}} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  const { on = {}, ...rest } = attributes;
  for (const [attribute, value] of Object.entries(rest)) {
    if (value === true) element.setAttribute(attribute, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(attribute, String(value));
  }
  for (const [event, act] of Object.entries(on)) element.addEventListener(event, act);
  fill(element, ...children);
  return element;
}

/** Puts these children in the place of the ones that are there. @param {Element} element @param {...(Child | Child[])} children */
export function fill(element, ...children) {
  const kept = children.flat().filter((child) => child !== false && child !== null && child !== undefined && child !== '');
  element.replaceChildren(...kept.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
}

/** Names that are unique on the page. */
let named = 0;

/** A name for an element that another one points to. @param {string} stem */
export function nameFor(stem) {
  named += 1;
  return `${stem}-${named}`;
}

/**
 * A button.
 * @param {string} text
 * @param {(event: MouseEvent) => void} act
 * @param {Record<string, any>} [attributes]
 */
export function button(text, act, attributes = {}) {
  return make('button', { type: 'button', class: 'press', on: { click: act }, ...attributes }, text);
}

/**
 * A field with its name above and, where something is wrong with it, the problem below.
 * @param {string} label
 * @param {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} input
 * @param {string} [help]
 * @returns {{element: HTMLElement, input: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement, wrong: (problem: string) => void}}
 */
export function field(label, input, help = '') {
  input.id ||= nameFor('field');
  const problem = make('p', { class: 'field-problem', id: `${input.id}-problem`, hidden: true });
  const hint = help ? make('p', { class: 'field-help', id: `${input.id}-help` }, help) : null;
  const described = [hint?.id, problem.id].filter(Boolean).join(' ');
  input.setAttribute('aria-describedby', described);
  const element = make('div', { class: 'field' }, make('label', { for: input.id }, label), input, hint, problem);
  return {
    element,
    input,
    wrong(text) {
      write(problem, text);
      hide(problem, text === '');
      if (text === '') input.removeAttribute('aria-invalid');
      else input.setAttribute('aria-invalid', 'true');
    },
  };
}

/**
 * A choice of one of several values.
 * @param {[value: string, text: string][]} values
 * @param {string} chosen
 * @param {(value: string) => void} [changed]
 */
export function choice(values, chosen, changed) {
  const options = values.map(([value, text]) => make('option', { value, selected: value === chosen }, text));
  const select = make('select', {}, ...options);
  if (changed) select.addEventListener('change', () => changed(select.value));
  return select;
}

/**
 * A table whose header cells are named; on a narrow screen each row becomes a block whose cells say their column.
 * @param {string} caption read aloud, not drawn
 * @param {string[]} columns
 * @param {Child[][]} rows each with as many cells; the first one names the row
 * @param {(row: HTMLTableRowElement, at: number) => void} [each]
 */
export function table(caption, columns, rows, each) {
  const head = make('tr', {}, columns.map((column) => make('th', { scope: 'col' }, column)));
  const body = rows.map((cells, at) => {
    const row = make('tr', {}, cells.map((cell, column) => make(
      column === 0 ? 'th' : 'td',
      { 'data-column': columns[column], 'data-none': cell === '–', ...(column === 0 && { scope: 'row' }) },
      cell,
    )));
    each?.(row, at);
    return row;
  });
  return make('table', { class: 'rows' }, make('caption', { class: 'spoken' }, caption), make('thead', {}, head), make('tbody', {}, body));
}

/**
 * The symbol of a priority, with its asterisks.
 * @param {string} priority high, medium, low or info
 */
export function priorityMark(priority) {
  const icon = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  use.setAttribute('href', `#icon-${['high', 'medium', 'low'].includes(priority) ? priority : 'unknown'}`);
  icon.setAttribute('aria-hidden', 'true');
  icon.append(use);
  const stars = { high: '*** ', medium: '** ', low: '* ' }[priority] ?? '';
  const box = make('span', { class: 'priority', 'data-priority': priority }, `${stars}${priority}`);
  box.prepend(icon);
  return box;
}
