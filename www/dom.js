/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page has no ${kind.name} #${id}.`);
  return element;
}

/**
 * The key that ends a word in an input method is not meant for us; Safari gives it away by its code alone.
 *
 * @param {KeyboardEvent} event
 */
function composing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Whether this key asks for what the form is for. @param {KeyboardEvent} event */
export function isEnter(event) {
  return event.key === 'Enter' && !event.shiftKey && !event.repeat && !composing(event);
}

/** Whether this key asks to stop, and nothing else (a list that it closes, a word that it takes back). @param {KeyboardEvent} event */
export function isEscape(event) {
  return event.key === 'Escape' && !event.defaultPrevented && !composing(event);
}

/** Scrolls as little as is needed to see all of an element. @param {HTMLElement} element */
export function reveal(element) {
  const { top, bottom, height } = element.getBoundingClientRect();
  // What a keyboard covers is not in sight, though the layout does not know.
  const seen = window.visualViewport ?? { offsetTop: 0, height: window.innerHeight };
  if (top >= seen.offsetTop && bottom <= seen.offsetTop + seen.height) return;
  element.scrollIntoView({ block: top < seen.offsetTop || height > seen.height ? 'start' : 'end' });
}
