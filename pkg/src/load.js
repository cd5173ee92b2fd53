import { DownloadFailed, PATIENCE, downloadBytes, downloadText } from './download.js';
import { InkbloomError } from './errors.js';
import { resolveShard, shownAddress } from './model-url.js';
import { Store, refused } from './store.js';

/**
 * What `load` tells while it works.
 *
 * - `start`: the engine and the model's manifest are fetched;
 * - `download`: bytes in hand of all bytes; never goes back and ends at `total`; `stored` when they came from
 *   this browser's storage and not over the network;
 * - `verify`: a shard's SHA-256 is checked;
 * - `upload`: shards that are on the device;
 * - `compile`: shaders are compiled that were not while shards came (nothing to do on the CPU);
 * - `notice`: something worth telling, though nothing failed: storage was refused (code `quota`); the stored model is
 *   used for another one is not whole on the server yet (`update`); the engine died and is started anew (`restart`);
 * - `ready`.
 *
 * @typedef {{ phase: 'start' }
 *   | { phase: 'download', loaded: number, total: number, file: string, stored: boolean }
 *   | { phase: 'verify', file: string }
 *   | { phase: 'upload', done: number, count: number }
 *   | { phase: 'compile' }
 *   | { phase: 'notice', code: 'quota' | 'update' | 'restart', message: string }
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
 * @property {string} [foundAt] the address that answered with the manifest, where that is known
 * @property {string} [updateNote] set when the model in use is an older one than the server's
 *
 * @typedef {object} Brought
 * @property {import('./contract.js').Model} model
 * @property {string} [foundAt]
 * @property {string} [storageNote] why the model is not stored
 * @property {string} [updateNote] why the stored model is used though the server has another one
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
  #patienceMs;
  /** Why nothing is stored; undefined while storage works. @type {string | undefined} */
  note;

  /** @param {LoadContext} context */
  constructor({ address, report, patience = PATIENCE }) {
    this.#model = address.id;
    this.#report = report;
    this.#patienceMs = patience.stallMs;
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
   * @param {Shard[]} [all] all shards of this version of the model
   */
  save(shard, bytes, all) {
    return this.#try(async () => {
      const store = this.#store;
      if (!store) return;
      try {
        await store.saveShard(this.#model, shard, bytes);
      } catch (error) {
        if (!all) throw error;
        // An earlier version of this model may be what fills the storage.
        await store.prune(this.#model, all);
        await store.saveShard(this.#model, shard, bytes);
      }
    });
  }

  /**
   * @param {string} manifest
   * @param {Shard[]} shards those without which it is not complete
   * @param {Shard[]} all all that it names
   */
  complete(manifest, shards, all) {
    return this.#try(() => this.#store?.complete(this.#model, manifest, shards, all));
  }

  /**
   * @template T
   * @param {() => Promise<T> | undefined} action
   * @returns {Promise<T | undefined>}
   */
  async #try(action) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    try {
      // A broken profile may leave a request without an answer for ever.
      return await Promise.race([action(), new Promise((_, reject) => {
        timer = setTimeout(() => reject(refused('it did not answer')), this.#patienceMs);
      })]);
    } catch (error) {
      this.#store?.close();
      this.#store = undefined;
      this.note = error instanceof Error ? error.message : String(error);
      this.#report({ phase: 'notice', code: 'quota', message: this.note });
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Adds up bytes in hand so that what is told never goes back, whatever is fetched twice. */
class Meter {
  #report;
  #total;
  /** @type {number[]} */
  #held;
  #best;
  #stopped = false;

  /**
   * @param {Shard[]} shards
   * @param {(event: Progress) => void} report
   * @param {number} [best] what was told already, of another version of the model
   */
  constructor(shards, report, best = 0) {
    this.#report = report;
    this.#total = Math.max(best, shards.reduce((sum, { size }) => sum + size, 0));
    this.#held = shards.map(() => 0);
    this.#best = best;
  }

  get best() {
    return this.#best;
  }

  /** A download that is still under way is not wanted any more. */
  stop() {
    this.#stopped = true;
  }

  /**
   * @param {number} index
   * @param {number} bytes
   * @param {string} file
   * @param {boolean} stored
   */
  set(index, bytes, file, stored) {
    if (this.#stopped) return;
    this.#held[index] = bytes;
    this.#best = Math.max(this.#best, this.#held.reduce((sum, held) => sum + held, 0));
    this.#report({ phase: 'download', loaded: this.#best, total: this.#total, file, stored });
  }
}

/**
 * Brings a bundle from the network or the store onto the device: the server's version where it is whole, else the one
 * that was stored whole. So a new version is seen at the next visit, a visit without a network draws all the same, and so
 * does one while the server has new and old files side by side.
 *
 * @param {LoadContext} context
 * @returns {Promise<Brought>}
 */
export async function loadBundle(context) {
  const { report } = context;
  report({ phase: 'start' });
  const shelf = new Shelf(context);
  await shelf.open();
  try {
    const stored = await shelf.manifest();
    const brought = await bringNewest(context, shelf, stored);
    report({ phase: 'ready' });
    return { ...brought, storageNote: shelf.note };
  } finally {
    shelf.close();
  }
}

/**
 * @param {LoadContext} context
 * @param {Shelf} shelf
 * @param {string | undefined} stored the manifest of the version that is stored whole
 * @returns {Promise<Brought>}
 */
async function bringNewest(context, shelf, stored) {
  /** @type {Meter | undefined} */
  let meter;
  /** @param {Shard[]} shards */
  const startMeter = (shards) => (meter = new Meter(shards, context.report, meter?.best));
  /** @type {string | undefined} */
  let manifest;
  try {
    const { text, foundAt } = await downloadText(context.address.manifestUrl, {
      cache: 'no-cache',
      patience: stored === undefined ? context.patience : WITH_A_MODEL_IN_STORE,
    });
    manifest = text;
    const { model, shards } = await bring({ ...context, foundAt }, shelf, manifest, startMeter);
    await shelf.complete(manifest, shards, shardsNamed(manifest));
    return { model, foundAt };
  } catch (error) {
    if (stored === undefined || manifest === stored || !isAboutFiles(error)) throw error;
    const updateNote = noteOf(error, manifest !== undefined);
    if (updateNote !== undefined) context.report({ phase: 'notice', code: 'update', message: updateNote });
    try {
      return { model: (await bring(context, shelf, stored, startMeter)).model, updateNote };
    } catch {
      throw error;
    }
  }
}

/**
 * @param {InkbloomError} error why the server's version is not used
 * @param {boolean} isNew whether the server has another version
 * @returns {string | undefined} nothing where there is no network: that is what the store is for
 */
function noteOf(error, isNew) {
  if (isNew) return `An update of the model is on its way, but it is not whole on the server yet, so the version that this browser has stored is used. (${error.message})`;
  if (error instanceof DownloadFailed && error.unreachable) return undefined;
  return `Whether there is an update of the model could not be found out, so the version that this browser has stored is used. (${error.message})`;
}

/**
 * @param {LoadContext} context
 * @param {Shelf} shelf
 * @param {string} manifest
 * @param {(shards: Shard[]) => Meter} startMeter
 */
async function bring(context, shelf, manifest, startMeter) {
  const { address, device, memoryMiB, open, report } = context;
  const loader = await named(open(manifest, device, memoryMiB), address.manifestUrl);
  const shards = loader.shards();
  const compiled = loader.compile(pause);
  try {
    await pushShards(context, shelf, loader, startMeter(shards), shardsNamed(manifest));
  } catch (error) {
    // What is on the device already makes room for what comes instead.
    loader.free();
    throw error;
  }
  const model = await loader.finish();
  report({ phase: 'compile' });
  if (!(await compiled)) await model.warm_up();
  return { model, shards };
}

/** Gives whatever came meanwhile its turn. @returns {Promise<void>} */
function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

/**
 * Brings what a request needs and the device lacks: text encoders that left it after the last prompt, and optional
 * components. Without a network, or with an older model than the server's, a drawing goes on without the latter, where the
 * engine can.
 *
 * @param {LoadContext} context the one that the model was loaded with
 * @param {import('./contract.js').Model} model
 * @param {import('./contract.js').EngineRequest} request
 */
export async function bringMissing(context, model, request) {
  await addPart(context, model, model.text_loader());
  try {
    await addPart(context, model, model.optional_loader(request));
  } catch (error) {
    const unreachable = error instanceof DownloadFailed && error.unreachable;
    // A way of drawing that was asked for by name cannot be done without.
    const needed = request.way !== undefined && request.way !== 'diffusion';
    if (needed || (!unreachable && !(context.updateNote && isAboutFiles(error)))) throw error;
  }
}

/**
 * @param {LoadContext} context
 * @param {import('./contract.js').Model} model
 * @param {import('./contract.js').Loader | undefined} loader
 */
async function addPart(context, model, loader) {
  if (!loader) return;
  // The model is loaded already: what this tells is no news.
  const quiet = { ...context, report: () => {} };
  await inTurn(context.address.id, async () => {
    const shelf = new Shelf(quiet);
    await shelf.open();
    try {
      await pushShards(quiet, shelf, loader, new Meter(loader.shards(), quiet.report));
    } finally {
      shelf.close();
    }
  });
  model.add(loader);
}

/**
 * Of all workers that lack a part of a model, the first downloads it and the others find it stored. Without locks (pages that
 * are not served securely) each downloads it.
 *
 * @param {string} model
 * @param {() => Promise<void>} work
 */
function inTurn(model, work) {
  const locks = globalThis.navigator?.locks;
  return locks ? locks.request(`inkbloom part of ${model}`, work) : work();
}

/**
 * Every shard of a manifest that the engine found good, of optional components, too.
 *
 * @param {string} manifest
 * @returns {Shard[]}
 */
function shardsNamed(manifest) {
  return JSON.parse(manifest).shards;
}

/**
 * Shard by shard, the next one on its way while the last is decoded: at most two are in memory.
 *
 * @param {LoadContext} context
 * @param {Shelf} shelf
 * @param {import('./contract.js').Loader} loader
 * @param {Meter} meter
 * @param {Shard[]} [all] all shards of this version of the model: where there is no room, any other goes
 */
async function pushShards(context, shelf, loader, meter, all) {
  const { report } = context;
  const shards = loader.shards();
  /** @param {number} index */
  const obtain = (index) => {
    const found = obtainShard(context, shelf, shards[index], (bytes, stored) => meter.set(index, bytes, shards[index].file, stored));
    // A failure is met when its turn comes; until then it must not count as unhandled.
    found.catch(() => {});
    return found;
  };
  let arriving = shards.length > 0 ? obtain(0) : undefined;
  try {
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
      if (!part.stored) await shelf.save(shard, part.bytes, all);
      report({ phase: 'upload', done: index + 1, count: shards.length });
    }
  } finally {
    meter.stop();
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
function shardUrl({ address, foundAt }, shard) {
  return resolveShard(shard.file, address.manifestUrl, foundAt);
}

/**
 * Whether the server's files are to blame, so that those of the store may do.
 *
 * @param {unknown} error
 * @returns {error is InkbloomError}
 */
function isAboutFiles(error) {
  return error instanceof Error && 'code' in error && ['download-failed', 'corrupt-weights', 'bad-model'].includes(String(error.code));
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
      throw new InkbloomError(error.code, `${error.message} (${shownAddress(url)})`, { cause: error });
    }
    throw error;
  }
}
