/**
 * Reads and changes the document, and only where something changed.
 *
 * Every text enters the document through `textContent`; nothing that the bridge sends is ever read as markup.
 * @module
 */

/** This share of a text has to be in sight before anybody can be said to read it. */
const READABLE = 0.75;

/** @template {HTMLElement} T @param {string} id @returns {T} */
export const byId = (id) => /** @type {T} */ (document.getElementById(id));
/** @template {Element} T @param {ParentNode} parent @param {string} selector @returns {T} */
export const within = (parent, selector) => /** @type {T} */ (parent.querySelector(selector));

/** @param {Element} element @param {string} text */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} element @param {string} name @param {string | undefined} value */
export function mark(element, name, value) {
  if (value === undefined || value === '') delete element.dataset[name];
  else if (element.dataset[name] !== value) element.dataset[name] = value;
}

/** @param {HTMLElement} element @param {boolean} hidden */
export function hide(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** @param {Element} element @param {string} name @param {string} value */
export function describe(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Takes an address such as `#/trends/P-1?nibp` apart; without a view it is the ward's.
 * @param {string} hash
 */
export function routeOf(hash) {
  const route = hash.startsWith('#/') ? hash : '#/';
  const [path = '', query = ''] = route.split('?', 2);
  const [, name = '', id = ''] = path.split('/');
  let patient = id;
  try {
    patient = decodeURIComponent(id);
  } catch {
    // An address that somebody typed: as it stands, it names nobody.
  }
  return { name, patient, route, query: new URLSearchParams(query) };
}

/** @param {string} templateId @returns {HTMLElement} */
export function stamp(templateId) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(templateId));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}

/**
 * True if a person who looks at the page can read this: most of it is inside the window and every box that cuts it off,
 * the scrolled list among them, and nothing lies over its middle.
 * @param {Element | null} node
 */
export function isInSight(node) {
  if (!node?.checkVisibility({ visibilityProperty: true, opacityProperty: true })) return false;
  const whole = node.getBoundingClientRect();
  let { top, bottom, left, right } = whole;
  const cut = (/** @type {{top: number, bottom: number, left: number, right: number}} */ box) => {
    [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
    [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
  };
  cut({ top: 0, left: 0, bottom: innerHeight, right: innerWidth });
  for (let box = node.parentElement; box; box = box.parentElement) {
    if (getComputedStyle(box).overflow !== 'visible') cut(box.getBoundingClientRect());
  }
  const area = whole.width * whole.height;
  if (!(area > 0) || bottom <= top || right <= left || (bottom - top) * (right - left) < READABLE * area) return false;
  const front = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
  return front !== null && (node.contains(front) || front.contains(node));
}

/** True if more of a line is cut off at its end than a person can do without. @param {Element} node */
export const isCut = (node) => getComputedStyle(node).whiteSpace === 'nowrap' && node.scrollWidth * READABLE > node.clientWidth + 1;
