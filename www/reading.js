import { hasEmoji, nameEmoji, strangeWords } from './words.js';

/** @param {string[]} words */
const quoted = (words) => words.map((word) => `“${word}”`).join(', ');

/** @param {string} typed */
async function named(typed) {
  const text = typed.trim();
  // Most prompts have no emoji: the names are fetched when one does.
  const names = hasEmoji(text) ? await import('./emoji-names.js').then(({ NAMES }) => NAMES, () => ({})) : {};
  return nameEmoji(text, names);
}

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
   * What the model is given: names in place of emoji.
   *
   * @param {string} typed
   */
  async text(typed) {
    return (await named(typed)).text;
  }

  /**
   * What its asker should know about that, in sentences.
   *
   * @param {string} typed
   */
  async notes(typed) {
    const { text, named: names, unknown: nameless } = await named(typed);
    const { foreign, unknown } = strangeWords(text, text === '' ? undefined : await this.#words());
    const notes = [];
    if (names.size > 0) notes.push(`Emoji are read by name: ${[...names].map(([emoji, name]) => `${emoji} “${name}”`).join(', ')}.`);
    if (nameless.length > 0) notes.push(`${nameless.join(' ')} has no name here and is left out.`);
    if (foreign.length > 0) notes.push(`The model reads English only; ${quoted(foreign)} tells it nothing.`);
    if (unknown.length > 0) notes.push(`The model never met ${quoted(unknown)} and has to guess.`);
    if (text !== '' && !/\p{L}/u.test(text)) notes.push('There is no word in this that the model could draw.');
    return notes;
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
