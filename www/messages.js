import { InkbloomError } from './pkg/index.js';
import { byId, reveal } from './dom.js';

/** What is said beside the button that draws. */
export class Messages {
  /** With the box and the button that the messages are about. */
  #asking = byId('asking', HTMLDivElement);
  #trouble = byId('trouble', HTMLDivElement);
  #troubleText = byId('trouble-text', HTMLParagraphElement);
  #status = byId('status', HTMLParagraphElement);
  #hint = byId('hint', HTMLParagraphElement);

  /** @param {() => void} onRetry */
  constructor(onRetry) {
    const retry = byId('retry', HTMLButtonElement);
    retry.textContent = 'Try again';
    retry.addEventListener('click', () => {
      this.clear();
      onRetry();
    });
  }

  /** @param {string} text */
  say(text) {
    this.#status.textContent = text;
  }

  /** What is said because of what was just pressed, so it has to be seen. @param {string} text */
  answer(text) {
    this.say(text);
    reveal(this.#asking);
  }

  /** What there is to know about the words of the prompt. @param {string[]} notes */
  hint(notes) {
    this.#hint.textContent = notes.join(' ');
  }

  /** @param {unknown} error */
  error(error) {
    // The package writes for programmers, who know `names` by their ticks.
    this.#troubleText.textContent = (error instanceof Error ? error.message : String(error)).replace(/`([^`]+)`/g, '“$1”');
    this.#trouble.dataset.code = error instanceof InkbloomError ? error.code : 'unknown';
    this.#trouble.hidden = false;
    reveal(this.#asking);
  }

  clear() {
    this.#trouble.hidden = true;
    this.say('');
  }
}
