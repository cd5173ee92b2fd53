import { openDB } from 'idb';
import { InkbloomError } from './errors.js';

const DATABASE = 'inkbloom';
const VERSION = 1;

/** Some browsers never answer when storage is refused (private windows, broken profiles). */
const OPEN_TIMEOUT_MS = 5000;

/**
 * A shard's key: model, SHA-256, size. The size stands in the key so that models can be listed and
 * measured from keys alone, without reading megabytes of weights.
 *
 * @typedef {[model: string, sha256: string, size: number]} ShardKey
 *
 * @typedef {{ manifest: string, shards: ShardKey[] }} ModelRecord
 *
 * @typedef {object} Schema
 * @property {{ key: string, value: ModelRecord }} models a record here means: every shard was stored but those of optional components
 * @property {{ key: ShardKey, value: Uint8Array }} shards
 */

/** All shards of one model: arrays sort after strings and numbers in IndexedDB's order. @param {string} model */
const shardsOf = (model) => IDBKeyRange.bound([model], [model, []]);

/** Weights in IndexedDB: one record per shard, so that a download resumes at the last whole shard. */
export class Store {
  /** @type {import('idb').IDBPDatabase<Schema>} */
  #db;

  /** @param {import('idb').IDBPDatabase<Schema>} db */
  constructor(db) {
    this.#db = db;
  }

  /** Rejects with the code `quota` where the browser refuses storage. */
  static async open() {
    const opening = openDatabase();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    /** @type {Promise<never>} */
    const timeout = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('it did not answer')), OPEN_TIMEOUT_MS);
    });
    try {
      return new Store(await Promise.race([opening, timeout]));
    } catch (error) {
      // If it opens after all, nobody will use that connection.
      opening.then((db) => db.close(), () => {});
      throw refused(reasonOf(error), error);
    } finally {
      clearTimeout(timer);
    }
  }

  close() {
    this.#db.close();
  }

  /**
   * @param {string} model
   * @returns {Promise<string | undefined>} the manifest, once every shard of it was stored
   */
  async manifest(model) {
    const record = await this.#db.get('models', model);
    return record && isComplete(record, await this.#shardKeys(model)) ? record.manifest : undefined;
  }

  /**
   * Marks a model as complete and drops the shards that an earlier version of it left.
   *
   * @param {string} model
   * @param {string} manifest
   * @param {import('./contract.js').Shard[]} shards those without which it is not complete
   * @param {import('./contract.js').Shard[]} all all that it names
   */
  async complete(model, manifest, shards, all) {
    await this.prune(model, all);
    await this.#db.put('models', { manifest, shards: shards.map((shard) => shardKey(model, shard)) }, model);
  }

  /**
   * Deletes every stored shard of the model but these.
   *
   * @param {string} model
   * @param {import('./contract.js').Shard[]} keep
   */
  async prune(model, keep) {
    const kept = new Set(keep.map((shard) => String(shardKey(model, shard))));
    const stale = (await this.#shardKeys(model)).filter((key) => !kept.has(String(key)));
    await Promise.all(stale.map((key) => this.#db.delete('shards', key)));
  }

  /**
   * @param {string} model
   * @param {import('./contract.js').Shard} shard
   * @returns {Promise<Uint8Array | undefined>}
   */
  shard(model, shard) {
    return this.#db.get('shards', shardKey(model, shard));
  }

  /**
   * Rejects with the code `quota` when the browser has no room for it.
   *
   * @param {string} model
   * @param {import('./contract.js').Shard} shard
   * @param {Uint8Array} bytes
   */
  async saveShard(model, shard, bytes) {
    try {
      await this.#db.put('shards', bytes, shardKey(model, shard));
    } catch (error) {
      throw refused(reasonOf(error), error);
    }
  }

  /**
   * @param {string} model
   * @param {import('./contract.js').Shard} shard
   */
  async deleteShard(model, shard) {
    await this.#db.delete('shards', shardKey(model, shard));
  }

  /** @returns {Promise<import('./models.js').StoredModel[]>} */
  async list() {
    const keys = /** @type {ShardKey[]} */ (await this.#db.getAllKeys('shards'));
    const ids = [...new Set(keys.map(([model]) => model))];
    return Promise.all(ids.map(async (id) => {
      const own = keys.filter(([model]) => model === id);
      const record = await this.#db.get('models', id);
      return {
        id,
        bytes: own.reduce((sum, [, , size]) => sum + size, 0),
        complete: record !== undefined && isComplete(record, own),
      };
    }));
  }

  /** @param {string} model */
  async delete(model) {
    const both = this.#db.transaction(['models', 'shards'], 'readwrite');
    await Promise.all([
      both.objectStore('models').delete(model),
      both.objectStore('shards').delete(shardsOf(model)),
      both.done,
    ]);
  }

  /** Deletes every model. */
  async clear() {
    const both = this.#db.transaction(['models', 'shards'], 'readwrite');
    await Promise.all([both.objectStore('models').clear(), both.objectStore('shards').clear(), both.done]);
  }

  /** @param {string} model */
  async #shardKeys(model) {
    return /** @type {ShardKey[]} */ (await this.#db.getAllKeys('shards', shardsOf(model)));
  }
}

/**
 * Opens the store for one action.
 *
 * @template T
 * @param {(store: Store) => Promise<T>} action
 * @returns {Promise<T>}
 */
export async function withStore(action) {
  const store = await Store.open();
  try {
    return await action(store);
  } finally {
    store.close();
  }
}

/**
 * `async` because a browser may also refuse by throwing at once, even at the mention of `indexedDB`.
 *
 * @returns {Promise<import('idb').IDBPDatabase<Schema>>}
 */
async function openDatabase() {
  if (typeof indexedDB === 'undefined') throw new Error('it has no IndexedDB here');
  return openDB(DATABASE, VERSION, {
    upgrade(db) {
      db.createObjectStore('models');
      db.createObjectStore('shards');
    },
    // Another tab wants to delete or upgrade the database: let it.
    blocking: (_current, _next, event) => /** @type {IDBDatabase} */ (event.target).close(),
  });
}

/**
 * @param {ModelRecord} record
 * @param {ShardKey[]} held
 */
function isComplete(record, held) {
  const keys = new Set(held.map(String));
  return record.shards.every((key) => keys.has(String(key)));
}

/**
 * @param {string} model
 * @param {import('./contract.js').Shard} shard
 * @returns {ShardKey}
 */
function shardKey(model, { sha256, size }) {
  return [model, sha256, size];
}

/** @param {unknown} error */
function reasonOf(error) {
  if (error instanceof DOMException && error.name === 'QuotaExceededError') return 'there is no room left';
  return error instanceof Error ? error.message : String(error);
}

/**
 * @param {string} reason
 * @param {unknown} [cause]
 */
export function refused(reason, cause) {
  return new InkbloomError('quota', `This browser refuses to store the model (${reason}), so it is kept in memory for this visit only and will be downloaded again next time.`, { cause });
}
