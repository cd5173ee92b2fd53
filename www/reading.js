import { hasEmoji, nameEmoji, strangeWords } from './words.js';

/**
 * What the model will read, and what its asker should know about that.
 *
 * @typedef {{ text: string, notes: string[] }} Reading
 */

/** @param {string[]} words */
const quoted = (words) => words.map((word) => `“${word}”`).join(', ');

/** Reads prompts for one model. */
export class Reader {
  #list;
  /** @type {Promise<Set<string> | undefined> | undefined} */
  #known;

  /** @param {string} model the folder of the model, which may hold a list of the words it was trained on */
  constructor(model) {
    this.#list = `${model.replace(/\/*$/, '/')}words.txt`;
  }

  /**
   * @param {string} typed
   * @returns {Promise<Reading>}
   */
  async read(typed) {
    let text = typed.trim();
    const notes = [];
    if (hasEmoji(text)) {
      // Most prompts have none: the names are fetched when one does.
      const names = await import('./emoji-names.js').then(({ NAMES }) => NAMES, () => ({}));
      const { text: read, named, unknown } = nameEmoji(text, names);
      text = read;
      if (named.size > 0) notes.push(`Emoji are read by name: ${[...named].map(([emoji, name]) => `${emoji} “${name}”`).join(', ')}.`);
      if (unknown.length > 0) notes.push(`${unknown.join(' ')} has no name here and is left out.`);
    }
    const { foreign, unknown } = strangeWords(text, text === '' ? undefined : await this.#words());
    if (foreign.length > 0) notes.push(`The model reads English only; ${quoted(foreign)} tells it nothing.`);
    if (unknown.length > 0) notes.push(`The model never met ${quoted(unknown)} and has to guess.`);
    if (text !== '' && !/\p{L}/u.test(text)) notes.push('There is no word in this that the model could draw.');
    return { text, notes };
  }

  #words() {
    this.#known ??= fetchWords(this.#list);
    return this.#known;
  }
}

/**
 * @param {string} url
 * @returns {Promise<Set<string> | undefined>} undefined where the model has no list
 */
async function fetchWords(url) {
  try {
    const response = await fetch(url);
    // Some hosts answer with a page of theirs for what is not there.
    if (!response.ok || !response.headers.get('content-type')?.startsWith('text/plain')) return undefined;
    return new Set((await response.text()).split(/\s+/));
  } catch {
    return undefined;
  }
}
