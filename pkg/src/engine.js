import { untilAborted } from './abort.js';
import { drawOnSeveral, mostShares } from './batch.js';
import { InkbloomError, WorkerDied, abortedError } from './errors.js';
import { Session } from './session.js';

/**
 * @typedef {import('./session.js').SessionOptions} EngineOptions
 * @typedef {(event: import('./load.js').Progress) => void} Listener
 */

/**
 * The session of a model, and a new one when the old one broke. All who ask for the same model on the same device share
 * one: a page that asks twice (two elements, a framework that runs its effects twice) downloads and draws with one engine.
 */
export class Engine {
  /** @type {Map<string, Engine>} */
  static #all = new Map();

  #key;
  #options;
  /** Who uses it, by the functions that hear of its progress. @type {Set<Listener>} */
  #users = new Set();
  /** @type {Promise<Session> | undefined} */
  #starting;
  /** The last one that started. @type {Session | undefined} */
  #session;
  /** More of it, for the pictures of a batch. @type {Promise<Session | undefined>[]} */
  #helpers = [];
  /** Drawings wait here for each other: a device draws one picture at a time. @type {Promise<unknown>} */
  #queue = Promise.resolve();
  #closing = new AbortController();

  /**
   * @param {string} key
   * @param {EngineOptions} options
   */
  constructor(key, options) {
    this.#key = key;
    this.#options = options;
  }

  /**
   * @param {EngineOptions} options
   * @param {Listener} user
   */
  static join(options, user) {
    const key = JSON.stringify(options);
    const engine = Engine.#all.get(key) ?? new Engine(key, options);
    Engine.#all.set(key, engine);
    engine.#users.add(user);
    return engine;
  }

  /**
   * Closes the engine when nobody is left. Who comes back within the same task, as an element that is moved or an
   * effect that is run twice, finds it as it was.
   *
   * @param {Listener} user
   */
  async leave(user) {
    this.#users.delete(user);
    await new Promise((resolve) => setTimeout(resolve));
    if (this.#users.size > 0) return;
    if (Engine.#all.get(this.#key) === this) Engine.#all.delete(this.#key);
    this.#closing.abort();
    this.#session?.close(abortedError());
    for (const helper of this.#helpers) helper.then((session) => session?.close(abortedError()));
  }

  /** What the model is; there once `ready` resolved. */
  get loaded() {
    return /** @type {Session} */ (this.#session).loaded;
  }

  /**
   * Starts a session where none is running.
   *
   * @returns {Promise<Session>}
   */
  ready() {
    if (this.#session?.open) return Promise.resolve(this.#session);
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #start() {
    this.#session = await this.#onceMore(() => Session.start(this.#options, (event) => this.#tell(event), this.#closing.signal));
    return this.#session;
  }

  /**
   * @param {import('./contract.js').EngineRequest} request
   * @param {(event: import('./contract.js').EngineStep) => void} onStep
   * @param {AbortSignal} signal
   * @returns {Promise<{ drawing: import('./contract.js').EngineDrawing, ms: number }>}
   */
  draw(request, onStep, signal) {
    const drawing = this.#queue.then(() => this.#onceMore(() => this.#draw(request, onStep, signal)));
    this.#queue = drawing.catch(() => {});
    return untilAborted(drawing, signal);
  }

  /**
   * @param {import('./contract.js').EngineRequest} request
   * @param {(event: import('./contract.js').EngineStep) => void} onStep
   * @param {AbortSignal} signal
   */
  async #draw(request, onStep, signal) {
    if (signal.aborted) throw abortedError();
    const session = await this.ready();
    if (signal.aborted) throw abortedError();
    const began = performance.now();
    const hands = this.#hands(session, request);
    const drawing = hands > 1
      ? await drawOnSeveral([session, ...this.#helpersFor(hands - 1)], request, onStep, signal)
      : await session.draw(request, onStep, signal);
    return { drawing, ms: performance.now() - began };
  }

  /**
   * Work that is no drawing, which waits for its turn all the same.
   *
   * @template T
   * @param {(session: Session) => Promise<T>} job
   * @returns {Promise<T>}
   */
  work(job) {
    const done = this.#queue.then(() => this.#onceMore(async () => job(await this.ready())));
    this.#queue = done.catch(() => {});
    return done;
  }

  /**
   * How many workers draw a request. A GPU computes one picture after the other whoever asks; a processor has cores.
   *
   * @param {Session} session
   * @param {import('./contract.js').EngineRequest} request
   */
  #hands({ loaded: { device, info, storageNote } }, request) {
    // What is not stored would be downloaded for each of them.
    if (device.kind === 'gpu' || storageNote) return 1;
    return Math.min(mostShares(request, info.ways), globalThis.navigator?.hardwareConcurrency ?? 1, info.copies);
  }

  /**
   * Workers with the same model, which is stored by now. One that cannot be started is done without.
   *
   * @param {number} count
   */
  #helpersFor(count) {
    const start = () => Session.start(this.#options, () => {}, this.#closing.signal).catch(() => undefined);
    while (this.#helpers.length < count) this.#helpers.push(start());
    this.#helpers = this.#helpers.map((helper) => helper.then((session) => (session?.open ? session : start())));
    return this.#helpers.slice(0, count);
  }

  /**
   * A worker that died without a word gets one successor; what dies twice would die for ever.
   *
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  async #onceMore(work) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof WorkerDied)) throw error;
      this.#tell({ phase: 'notice', code: 'restart', message: `${error.message} It is started again.` });
    }
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof WorkerDied)) throw error;
      throw new InkbloomError('device-lost', 'The drawing engine stopped without a word, was started again, and stopped again. The browser may have taken its memory: close other tabs, or ask for a smaller or a single picture, and draw again.', { cause: error });
    }
  }

  /** @param {import('./load.js').Progress} event */
  #tell(event) {
    this.#users.forEach((user) => user(event));
  }
}
