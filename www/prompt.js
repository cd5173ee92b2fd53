import { byId, isEnter } from './dom.js';
import { anIdea } from './ideas.js';

/** How long a pause in typing is: nobody wants to be corrected in the middle of a word. */
const PAUSE_MS = 500;

/** The box for words, the button that draws them, and the ideas. */
export class Prompt {
  #box = byId('prompt', HTMLTextAreaElement);
  #draw = byId('draw', HTMLButtonElement);

  /** @param {{ onDraw: () => void, onPause: () => void }} events `onPause` follows a change of the words */
  constructor({ onDraw, onPause }) {
    this.#box.placeholder = anIdea('');
    this.#draw.addEventListener('click', () => onDraw());
    // No submit button: a form in a sandboxed frame, or before this runs, must not go anywhere.
    byId('form', HTMLFormElement).addEventListener('keydown', (event) => {
      const { target } = event;
      const field = target === this.#box || (target instanceof HTMLInputElement && target.type !== 'file');
      if (!field || !isEnter(event)) return;
      event.preventDefault();
      onDraw();
    });
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let pause;
    const changed = () => {
      clearTimeout(pause);
      pause = setTimeout(onPause, PAUSE_MS);
    };
    this.#box.addEventListener('input', changed);
    byId('idea', HTMLButtonElement).addEventListener('click', () => {
      this.text = anIdea(this.text);
      this.focus();
      changed();
    });
  }

  get text() {
    return this.#box.value;
  }

  set text(text) {
    this.#box.value = text;
  }

  focus() {
    this.#box.focus();
  }

  /** Puts the keyboard of a phone away, which leaves no room for the picture. */
  rest() {
    if (matchMedia('(hover: none)').matches) this.#box.blur();
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    // Not `disabled`: the focus must stay where it is.
    this.#draw.setAttribute('aria-disabled', String(busy));
    this.#draw.textContent = busy ? 'Drawing' : 'Draw';
  }
}
