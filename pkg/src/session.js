import { WorkerDied, abortedError, fromPlainError, isFatal, toPlainError } from './errors.js';
import { watchLock, watchSilence } from './liveness.js';
import { startWorker } from './start-worker.js';

/**
 * @typedef {import('./protocol.js').FromWorker} FromWorker
 * @typedef {import('./protocol.js').ToWorker} ToWorker
 *
 * @typedef {object} SessionOptions
 * @property {import('./model-url.js').ModelAddress} address
 * @property {import('./contract.js').DeviceChoice} device
 * @property {number} [memoryMiB]
 * @property {string} [workerUrl]
 * @property {string} [wasmUrl]
 */

/**
 * What is being waited for.
 *
 * @typedef {object} Job
 * @property {(message: FromWorker) => void} settle gets the final message
 * @property {(error: Error) => void} reject
 * @property {(message: FromWorker) => void} tell gets every message before the final one
 */

/** Messages that end a job well. */
const ANSWERS = ['loaded', 'generated', 'animated', 'encoded'];

/** One worker with one model on a device. It is never repaired: after a crash or an abort a new one takes its place. */
export class Session {
  #worker;
  #hasLock;
  #unwatch = () => {};
  /** @type {Job | undefined} */
  #job;
  #open = true;
  /** @type {import('./protocol.js').Loaded | undefined} */
  #loaded;

  /** @param {import('./start-worker.js').StartedWorker} started */
  constructor({ worker, lock }) {
    this.#worker = worker;
    this.#hasLock = lock !== undefined;
    if (lock !== undefined) this.#unwatch = watchLock(lock, () => this.close(new WorkerDied()));
    worker.addEventListener('message', ({ data }) => this.#receive(data));
    // The worker reports its own crashes; this is for one that broke before it could.
    worker.addEventListener('error', (event) => {
      event.preventDefault();
      this.close(fromPlainError(toPlainError(event.message)));
    });
  }

  /**
   * @param {SessionOptions} options
   * @param {(event: import('./load.js').Progress) => void} onProgress
   * @param {AbortSignal} signal
   * @returns {Promise<Session>}
   */
  static async start({ address, device, memoryMiB, workerUrl, wasmUrl }, onProgress, signal) {
    if (signal.aborted) throw abortedError();
    const session = new Session(await startWorker(workerUrl, signal));
    // Whole shards are already stored, so stopping the worker at once loses little and frees everything.
    const abort = () => session.close(abortedError());
    signal.addEventListener('abort', abort, { once: true });
    try {
      const answer = await session.#ask({ type: 'load', address, device, memoryMiB, wasmUrl }, (message) => {
        if (message.type === 'progress') onProgress(message.event);
      });
      if (answer.type === 'loaded') session.#loaded = answer.loaded;
      return session;
    } catch (error) {
      session.close(abortedError());
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  get open() {
    return this.#open;
  }

  get loaded() {
    return /** @type {import('./protocol.js').Loaded} */ (this.#loaded);
  }

  /**
   * @param {import('./contract.js').EngineRequest} request
   * @param {(event: import('./contract.js').EngineStep) => void} onStep
   * @returns {Promise<import('./contract.js').EngineDrawing>}
   */
  async generate(request, onStep) {
    const answer = await this.#ask({ type: 'generate', request }, (message) => {
      if (message.type === 'step') onStep(message.event);
    });
    return /** @type {Extract<FromWorker, { type: 'generated' }>} */ (answer).drawing;
  }

  /**
   * As `generate`, until it is aborted.
   *
   * @param {import('./contract.js').EngineRequest} request
   * @param {(event: import('./contract.js').EngineStep) => void} onStep
   * @param {AbortSignal} signal
   */
  async draw(request, onStep, signal) {
    const cancel = () => this.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await this.generate(request, onStep);
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  /**
   * Moves a finished picture.
   *
   * @param {import('./contract.js').Pixels} image
   * @param {Partial<import('./options.js').Options>} options
   */
  async animate(image, options) {
    const answer = await this.#ask({ type: 'animate', image, options }, () => {});
    return /** @type {Extract<FromWorker, { type: 'animated' }>} */ (answer).animation;
  }

  /**
   * Makes a file of an animation.
   *
   * @param {import('./contract.js').EngineAnimation} animation
   * @param {import('./contract.js').EngineSave} save
   */
  async encode(animation, save) {
    const answer = await this.#ask({ type: 'encode', animation, save }, () => {});
    return /** @type {Extract<FromWorker, { type: 'encoded' }>} */ (answer).file;
  }

  /** Stops the drawing after the step at hand; its promise then rejects with `aborted`. */
  cancel() {
    this.#send({ type: 'cancel' });
  }

  /** @param {Error} error what a pending job is rejected with */
  close(error) {
    this.#open = false;
    this.#unwatch();
    this.#worker.terminate();
    const job = this.#job;
    this.#job = undefined;
    job?.reject(error);
  }

  /**
   * @param {ToWorker} message
   * @param {(message: FromWorker) => void} tell
   * @returns {Promise<FromWorker>}
   */
  async #ask(message, tell) {
    if (!this.#open) throw new WorkerDied();
    if (!this.#hasLock) this.#unwatch = watchSilence(this.#worker, () => this.#send({ type: 'ping' }), () => this.close(new WorkerDied()));
    try {
      return await new Promise((settle, reject) => {
        this.#job = { settle, reject, tell };
        this.#send(message);
      });
    } finally {
      if (!this.#hasLock) this.#unwatch();
    }
  }

  /** @param {ToWorker} message */
  #send(message) {
    this.#worker.postMessage(message);
  }

  /** @param {FromWorker} message */
  #receive(message) {
    const job = this.#job;
    if (message.type === 'failed') {
      const error = fromPlainError(message.error);
      if (isFatal(message.error)) this.close(error);
      else {
        this.#job = undefined;
        job?.reject(error);
      }
    } else if (ANSWERS.includes(message.type)) {
      this.#job = undefined;
      job?.settle(message);
    } else job?.tell(message);
  }
}
