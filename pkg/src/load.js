import { DownloadFailed, downloadBytes, downloadText } from './download.js';
import { InkbloomError } from './errors.js';
import { Store } from './store.js';

/**
 * What `load` tells while it works.
 *
 * - `start`: the engine and the model's manifest are fetched;
 * - `download`: bytes in hand of all bytes; never goes back and ends at `total`; `stored` when they came from
 *   this browser's storage and not over the network;
 * - `verify`: a shard's SHA-256 is checked;
 * - `upload`: shards that are on the device;
 * - `compile`: shaders are compiled (nothing to do on the CPU);
 * - `notice`: something worth telling, though nothing failed (storage refused: code `quota`);
 * - `ready`.
 *
 * @typedef {{ phase: 'start' }
 *   | { phase: 'download', loaded: number, total: number, file: string, stored: boolean }
 *   | { phase: 'verify', file: string }
 *   | { phase: 'upload', done: number, count: number }
 *   | { phase: 'compile' }
 *   | { phase: 'notice', code: 'quota', message: string }
 *   | { phase: 'ready' }} Progress
 *
 * @typedef {import('./contract.js').Shard} Shard
 *
 * @typedef {object} LoadContext
 * @property {import('./model-url.js').ModelAddress} address
 * @property {import('./contract.js').DeviceChoice} device
 * @property {number} [memoryMiB] how much of the device's memory may be taken; a guess by default
 * @property {(manifest: string, device: import('./contract.js').DeviceChoice, memoryMiB?: number) => Promise<import('./contract.js').Loader>} open
 * @property {(event: Progress) => void} report
 * @property {import('./download.js').Patience} [patience]
 *
 * @typedef {{ bytes: Uint8Array, stored: boolean }} Part one shard's bytes, and whether they came from the store
 */

/** How long to ask for a newer manifest when the stored one would do: a visitor on a bad line is waiting. */
const WITH_A_MODEL_IN_STORE = { attempts: 1, backoffMs: 0, stallMs: 5000 };

/** Storage that may be refused at any time: from then on the load goes on without it. */
class Shelf {
  /** @type {Store | undefined} */
  #store;
  #model;
  #report;
  /** Why nothing is stored; undefined while storage works. @type {string | undefined} */
  note;

  /**
   * @param {string} model
   * @param {(event: Progress) => void} report
   */
  constructor(model, report) {
    this.#model = model;
    this.#report = report;
  }

  async open() {
    await this.#try(async () => { this.#store = await Store.open(); });
  }

  close() {
    this.#store?.close();
  }

  manifest() {
    return this.#try(() => this.#store?.manifest(this.#model));
  }

  /** @param {Shard} shard */
  shard(shard) {
    return this.#try(() => this.#store?.shard(this.#model, shard));
  }

  /** @param {Shard} shard */
  drop(shard) {
    return this.#try(() => this.#store?.deleteShard(this.#model, shard));
  }

  /**
   * @param {Shard} shard
   * @param {Uint8Array} bytes
   * @param {Shard[]} wanted all shards of this version of the model
   */
  save(shard, bytes, wanted) {
    return this.#try(async () => {
      const store = this.#store;
      if (!store) return;
      try {
        await store.saveShard(this.#model, shard, bytes);
      } catch {
        // An earlier version of this model may be what fills the storage.
        await store.prune(this.#model, wanted);
        await store.saveShard(this.#model, shard, bytes);
      }
    });
  }

  /**
   * @param {string} manifest
   * @param {Shard[]} shards
   */
  complete(manifest, shards) {
    return this.#try(() => this.#store?.complete(this.#model, manifest, shards));
  }

  /**
   * @template T
   * @param {() => Promise<T> | undefined} action
   * @returns {Promise<T | undefined>}
   */
  async #try(action) {
    try {
      return await action();
    } catch (error) {
      this.#store?.close();
      this.#store = undefined;
      this.note = error instanceof Error ? error.message : String(error);
      this.#report({ phase: 'notice', code: 'quota', message: this.note });
      return undefined;
    }
  }
}

/** Adds up bytes in hand so that what is told never goes back, whatever is fetched twice. */
class Meter {
  #report;
  #total;
  /** @type {number[]} */
  #held;
  #best = 0;

  /**
   * @param {Shard[]} shards
   * @param {(event: Progress) => void} report
   */
  constructor(shards, report) {
    this.#report = report;
    this.#total = shards.reduce((sum, { size }) => sum + size, 0);
    this.#held = shards.map(() => 0);
  }

  /**
   * @param {number} index
   * @param {number} bytes
   * @param {string} file
   * @param {boolean} stored
   */
  set(index, bytes, file, stored) {
    this.#held[index] = bytes;
    this.#best = Math.max(this.#best, this.#held.reduce((sum, held) => sum + held, 0));
    this.#report({ phase: 'download', loaded: this.#best, total: this.#total, file, stored });
  }
}

/**
 * Brings a bundle from the network or the store onto the device.
 *
 * @param {LoadContext} context
 * @returns {Promise<{ model: import('./contract.js').Model, storageNote: string | undefined }>}
 */
export async function loadBundle(context) {
  const { address, device, memoryMiB, open, report } = context;
  report({ phase: 'start' });
  const shelf = new Shelf(address.id, report);
  await shelf.open();
  try {
    const manifest = await findManifest(context, shelf);
    const loader = await named(open(manifest, device, memoryMiB), address.manifestUrl);
    const shards = loader.shards();
    await pushShards(context, shelf, loader, shards);
    const model = await loader.finish();
    await shelf.complete(manifest, shards);
    report({ phase: 'compile' });
    await model.warm_up();
    report({ phase: 'ready' });
    return { model, storageNote: shelf.note };
  } finally {
    shelf.close();
  }
}

/**
 * Brings text encoders back that left the device after the last prompt; does nothing where they are there.
 *
 * @param {LoadContext} context the one that the model was loaded with
 * @param {import('./contract.js').Model} model
 */
export async function restoreText(context, model) {
  const loader = model.text_loader();
  if (!loader) return;
  // The model is loaded already: what this tells is no news.
  const quiet = { ...context, report: () => {} };
  const shelf = new Shelf(context.address.id, quiet.report);
  await shelf.open();
  try {
    await pushShards(quiet, shelf, loader, loader.shards());
    model.restore_text(loader);
  } finally {
    shelf.close();
  }
}

/**
 * The server's manifest where there is a server, else the stored one: so a new version of a model is seen at
 * the next visit, and a visit without a network draws all the same.
 *
 * @param {LoadContext} context
 * @param {Shelf} shelf
 */
async function findManifest({ address, patience }, shelf) {
  const stored = await shelf.manifest();
  try {
    return await downloadText(address.manifestUrl, {
      cache: 'no-cache',
      patience: stored === undefined ? patience : WITH_A_MODEL_IN_STORE,
    });
  } catch (error) {
    if (stored !== undefined && error instanceof DownloadFailed && error.unreachable) return stored;
    throw error;
  }
}

/**
 * Shard by shard, the next one on its way while the last is decoded: at most two are in memory.
 *
 * @param {LoadContext} context
 * @param {Shelf} shelf
 * @param {import('./contract.js').Loader} loader
 * @param {Shard[]} shards
 */
async function pushShards(context, shelf, loader, shards) {
  const { report } = context;
  const meter = new Meter(shards, report);
  /** @param {number} index */
  const obtain = (index) => {
    const found = obtainShard(context, shelf, shards[index], (bytes, stored) => meter.set(index, bytes, shards[index].file, stored));
    // A failure is met when its turn comes; until then it must not count as unhandled.
    found.catch(() => {});
    return found;
  };
  let arriving = shards.length > 0 ? obtain(0) : undefined;
  for (const [index, shard] of shards.entries()) {
    const current = /** @type {NonNullable<typeof arriving>} */ (arriving);
    // A download that failed for good ends the load: nothing more should start behind its back.
    const goesOn = await current.then(() => true, isCorrupt);
    arriving = goesOn && index + 1 < shards.length ? obtain(index + 1) : undefined;

    /** @param {Part} part */
    const place = async (part) => {
      report({ phase: 'verify', file: shard.file });
      await named(loader.push(index, part.bytes), shardUrl(context, shard));
      return part;
    };
    let part;
    try {
      part = await place(await current);
    } catch (error) {
      if (!isCorrupt(error)) throw error;
      await shelf.drop(shard);
      part = await place(await fetchShard(context, shard, (loaded) => meter.set(index, loaded, shard.file, false), 'reload'));
    }
    // Only what was verified is stored, so that a broken download cannot poison the next visit.
    if (!part.stored) await shelf.save(shard, part.bytes, shards);
    report({ phase: 'upload', done: index + 1, count: shards.length });
  }
}

/**
 * @param {LoadContext} context
 * @param {Shelf} shelf
 * @param {Shard} shard
 * @param {(bytes: number, stored: boolean) => void} onBytes
 * @returns {Promise<Part>}
 */
async function obtainShard(context, shelf, shard, onBytes) {
  const bytes = await shelf.shard(shard);
  if (bytes) {
    onBytes(shard.size, true);
    return { bytes, stored: true };
  }
  // What IndexedDB keeps need not lie in the HTTP cache a second time.
  return fetchShard(context, shard, (loaded) => onBytes(loaded, false), shelf.note === undefined ? 'no-store' : 'default');
}

/**
 * @param {LoadContext} context
 * @param {Shard} shard
 * @param {(loaded: number) => void} onBytes
 * @param {RequestCache} cache
 * @returns {Promise<Part>}
 */
async function fetchShard(context, shard, onBytes, cache) {
  const bytes = await downloadBytes(shardUrl(context, shard), shard.size, onBytes, { cache, patience: context.patience });
  return { bytes, stored: false };
}

/**
 * @param {LoadContext} context
 * @param {Shard} shard
 */
function shardUrl({ address }, shard) {
  return new URL(shard.file, address.manifestUrl).href;
}

/** @param {unknown} error */
function isCorrupt(error) {
  return error instanceof Error && 'code' in error && error.code === 'corrupt-weights';
}

/**
 * Adds the address to what the engine finds wrong with a file: it knows contents but not where they came from.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {string} url
 * @returns {Promise<T>}
 */
async function named(work, url) {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'bad-model' || error.code === 'corrupt-weights')) {
      throw new InkbloomError(error.code, `${error.message} (${url})`, { cause: error });
    }
    throw error;
  }
}
