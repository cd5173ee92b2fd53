import { InkbloomError, abortedError } from './errors.js';
import { expectTheFile, fetchAndRead } from './download.js';
import { pageAddress, shownAddress } from './model-url.js';

/**
 * @typedef {{ worker: Worker, lock?: string }} StartedWorker
 */

/** How long a script may take to arrive and to say that it runs. */
const START_MS = 30_000;

/**
 * Starts the worker and waits until it says that it runs.
 *
 * @param {string | undefined} workerUrl
 * @param {AbortSignal} [signal]
 * @returns {Promise<StartedWorker>}
 * @throws {InkbloomError} `unsupported`, with the worker's address and the likely cause
 */
export async function startWorker(workerUrl, signal) {
  if (typeof Worker === 'undefined') throw new InkbloomError('unsupported', 'There are no web workers here, and Inkbloom draws in one: use a current browser.');
  if (workerUrl !== undefined) return started(open(workerUrl), workerUrl, signal);
  const { worker, address } = openBeside();
  try {
    return await started(worker, address, signal);
  } catch (error) {
    const elsewhere = besideVitesCopy(address);
    if (elsewhere === undefined || signal?.aborted) throw error;
    // The first error is the one to tell: its address is where the worker was looked for.
    return started(open(elsewhere), elsewhere, signal).catch(() => { throw error; });
  }
}

/**
 * Vite's dev server up to version 7 serves this module from a folder of its own making, without the files beside it;
 * the package itself lies next to that folder.
 *
 * @param {string} address
 */
function besideVitesCopy(address) {
  const modules = /^(.*\/node_modules\/)\..*\/deps\/[^/]*$/.exec(address)?.[1];
  return modules && `${modules}inkbloom/dist/worker.js`;
}

/** @param {string} url */
function open(url) {
  try {
    return new Worker(url, { type: 'module', name: 'inkbloom' });
  } catch (cause) {
    throw refused(url, cause);
  }
}

/** Starts the worker beside this module and notes its address, which bundlers choose and a `Worker` does not tell. */
function openBeside() {
  const Plain = globalThis.Worker;
  let address = 'worker.js';
  try {
    globalThis.Worker = class extends Plain {
      /** @param {string | URL} url @param {WorkerOptions} [options] */
      constructor(url, options) {
        address = new URL(url, pageAddress()).href;
        super(url, options);
      }
    };
    // Bundlers look for exactly this expression to take the worker along; keep it literal.
    return { worker: new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'inkbloom' }), address };
  } catch (cause) {
    throw refused(address, cause);
  } finally {
    globalThis.Worker = Plain;
  }
}

/**
 * @param {string} address
 * @param {unknown} cause
 */
function refused(address, cause) {
  const why = globalThis.origin === 'null'
    ? 'This page is in a sandboxed frame, where browsers start no workers: give the frame allow-same-origin.'
    : "Browsers start workers from the page's own origin only: serve worker.js there and name it with `workerUrl`.";
  return new InkbloomError('unsupported', `The worker ${shownAddress(address)} could not be started (${cause instanceof Error ? cause.message : cause}). ${why}`, { cause });
}

/**
 * @param {Worker} worker
 * @param {string} address
 * @param {AbortSignal} [signal]
 * @returns {Promise<StartedWorker>}
 */
async function started(worker, address, signal) {
  /** Ends what is listened to below. */
  const done = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  try {
    const { lock } = await new Promise((resolve, reject) => {
      const options = { signal: done.signal };
      worker.addEventListener('message', ({ data }) => data.type === 'started' && resolve(data), options);
      worker.addEventListener('error', (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      }, options);
      signal?.addEventListener('abort', () => reject(abortedError()), options);
      timer = setTimeout(() => reject(new Error(`it did not answer within ${START_MS / 1000} seconds`)), START_MS);
    });
    return { worker, lock };
  } catch (error) {
    worker.terminate();
    if (error instanceof InkbloomError) throw error;
    throw new InkbloomError('unsupported', `The worker ${shownAddress(address)} did not start: ${await likelyCause(address, /** @type {Error} */ (error).message)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    done.abort();
  }
}

const COEP = 'cross-origin-embedder-policy';

/** Looking for a cause is no reason to let anybody wait. */
const ONE_LOOK = { patience: { attempts: 1, backoffMs: 0, stallMs: 5000 } };

/**
 * Why a script did not start, found out by asking for it: the browser only says that it did not.
 *
 * @param {string} address
 * @param {string | undefined} said by the browser
 * @returns {Promise<string>}
 */
async function likelyCause(address, said) {
  if (besideVitesCopy(address)) {
    return "Vite's dev server moved the package into its deps folder and left the worker behind. Add `optimizeDeps: { exclude: ['inkbloom'] }` to vite.config.js.";
  }
  try {
    const headers = await expectTheFile(address, ONE_LOOK);
    const type = headers.get('content-type') ?? 'nothing';
    if (!/javascript|ecmascript/i.test(type)) return `it is served as ${type}; serve it as text/javascript.`;
    const page = await fetchAndRead(pageAddress(), async (response) => response.headers, ONE_LOOK);
    if (page.has(COEP) && !headers.has(COEP)) {
      return 'this page is served with Cross-Origin-Embedder-Policy and the worker is not; send the same header with worker.js.';
    }
  } catch (error) {
    if (error instanceof InkbloomError) return error.message;
  }
  return `${said || 'the browser does not say why'}. Check that this is the worker.js of this version of the package, and that the page's Content-Security-Policy has "worker-src 'self'" and "script-src 'self' 'wasm-unsafe-eval'".`;
}
