import { byId } from './dom.js';

/** The styles that the model draws well, best first, and none. */
export class Styles {
  #root = byId('styles', HTMLFieldSetElement);
  /** What was chosen before there was anything to choose from. @type {string | undefined} */
  #wanted;

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#root.addEventListener('change', onChange);
  }

  /** @param {string[]} styles */
  show(styles) {
    if (this.#root.getAttribute('aria-busy') === 'false') return;
    for (const ghost of this.#root.querySelectorAll('.ghost')) ghost.remove();
    this.#root.append(...styles.map(toChip), toChip(''));
    this.#root.setAttribute('aria-busy', 'false');
    this.chosen = this.#wanted ?? styles[0] ?? '';
  }

  get chosen() {
    return this.#radios().find(({ checked }) => checked)?.value ?? this.#wanted ?? '';
  }

  set chosen(style) {
    const radios = this.#radios();
    if (radios.length === 0) {
      this.#wanted = style;
      return;
    }
    // An older link or picture may have a style that is not offered any more.
    if (!radios.some(({ value }) => value === style)) this.#root.append(toChip(style));
    for (const radio of this.#radios()) radio.checked = radio.value === style;
  }

  #radios() {
    return [...this.#root.querySelectorAll('input')];
  }
}

/** @param {string} style */
function toChip(style) {
  const chip = document.createElement('label');
  chip.className = 'chip';
  const radio = document.createElement('input');
  radio.type = 'radio';
  radio.name = 'style';
  radio.value = style;
  const words = document.createElement('span');
  words.textContent = style || 'just my words';
  chip.append(radio, words);
  return chip;
}
