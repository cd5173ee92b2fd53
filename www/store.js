import { openDB } from './lib/idb.js';

/**
 * What the page keeps between visits: pictures and the words that were typed. Weights are the package's.
 *
 * @typedef {import('./sticker.js').Sticker} Sticker
 * @typedef {{ prompt: string, style: string }} Draft
 *
 * @typedef {object} Schema
 * @property {{ key: number, value: Sticker }} stickers numbered as they were drawn
 * @property {{ key: string, value: Draft }} drafts
 */

const DATABASE = 'inkbloom-page';
const VERSION = 1;
const DRAFT = 'draft';

/** Some browsers never answer when storage is refused; a busy machine takes seconds. Nothing but what is kept waits for it. */
const PATIENCE_MS = 20_000;

export class Store {
  /** @type {Promise<import('idb').IDBPDatabase<Schema>>} */
  #db;

  constructor() {
    this.#db = open();
    // Whoever asks is told.
    this.#db.catch(() => {});
  }

  /** Numbers of all pictures, oldest first. */
  async list() {
    return (await this.#db).getAllKeys('stickers');
  }

  /** @param {number} key */
  async sticker(key) {
    return (await this.#db).get('stickers', key);
  }

  /** @param {Sticker} sticker @returns {Promise<number>} its number */
  async add(sticker) {
    return (await this.#db).add('stickers', sticker);
  }

  /** @param {number} key */
  async remove(key) {
    await (await this.#db).delete('stickers', key);
  }

  async removeAll() {
    await (await this.#db).clear('stickers');
  }

  async draft() {
    return (await this.#db).get('drafts', DRAFT);
  }

  /** @param {Draft} draft */
  async saveDraft(draft) {
    await (await this.#db).put('drafts', draft, DRAFT);
  }
}

/** @returns {Promise<import('idb').IDBPDatabase<Schema>>} */
async function open() {
  // A browser may refuse by throwing at the very mention of it.
  if (typeof indexedDB === 'undefined') throw new Error('it has no IndexedDB here');
  const opening = openDB(DATABASE, VERSION, {
    /** @param {import('idb').IDBPDatabase<Schema>} db */
    upgrade(db) {
      db.createObjectStore('stickers', { autoIncrement: true });
      db.createObjectStore('drafts');
    },
    /** @param {number} _current @param {number | null} _next @param {IDBVersionChangeEvent} event */
    blocking: (_current, _next, event) => /** @type {IDBDatabase} */ (event.target).close(),
  });
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error('it did not answer')), PATIENCE_MS));
  return Promise.race([opening, late]);
}

/** @param {unknown} error */
export function reasonOf(error) {
  if (error instanceof DOMException && error.name === 'QuotaExceededError') return 'there is no room left';
  return error instanceof Error ? error.message : String(error);
}
