// The yardstick's page without a browser; dawn.mjs forks it, gives it its task, and hears how far it has come.
import { pathToFileURL } from 'node:url';
import { Worker as Thread } from 'node:worker_threads';
import { SITE, fileOf, pretend } from './dawn-browser.mjs';

const send = (/** @type {any} */ message) => new Promise((resolve) => { process.send?.(message, () => resolve(undefined)); });

/** @param {{ browser: import('./dawn-browser.mjs').Browser, task: import('./page.js').Task }} message */
async function run({ browser, task }) {
  await pretend(browser);
  globalThis.Worker = /** @type {any} */ (class extends EventTarget {
    /** @param {string | URL} address */
    constructor(address) {
      super();
      this.thread = new Thread(new URL('./dawn-worker.mjs', import.meta.url), { workerData: { browser, script: fileOf(browser, address) } });
      this.thread.on('message', (data) => this.dispatchEvent(new MessageEvent('message', { data })));
      this.thread.on('error', (error) => this.dispatchEvent(Object.assign(new Event('error', { cancelable: true }), { message: String(error?.stack ?? error) })));
    }

    /** @param {any} message @param {any} [transfer] */
    postMessage(message, transfer) {
      this.thread.postMessage(message, transfer);
    }

    terminate() {
      return this.thread.terminate();
    }
  });
  const { race } = await import('./page.js');
  const module = (/** @type {string} */ address) => pathToFileURL(fileOf(browser, address)).href;
  /** Pixels are told once. */
  const told = { ours: false, theirs: false };
  const result = await race(task, {
    ours: module('/pkg/index.js'),
    worker: `${SITE}/pkg/worker.js`,
    theirs: { gpu: module('/ort/ort.webgpu.bundle.min.mjs'), cpu: module('/ort/ort.wasm.bundle.min.mjs') },
    // Only the module that is named needs no script beside it.
    theirWasm: { wasm: `${SITE}/ort/ort-wasm-simd-threaded.asyncify.wasm` },
    tell(what, { ours, theirs, ...rest }) {
      const news = Object.entries({ ours, theirs }).filter(([, side]) => side).map(([name, { pixels, ...side }]) => {
        const first = !told[/** @type {'ours' | 'theirs'} */ (name)];
        told[/** @type {'ours' | 'theirs'} */ (name)] = true;
        return [name, first ? { ...side, pixels } : side];
      });
      send({ what, result: { ...rest, ...Object.fromEntries(news) } });
    },
  });
  for (const side of [result.ours, result.theirs]) if (side) delete side.pixels;
  await send({ what: 'done', result });
}

const fail = async (/** @type {any} */ error) => {
  await send({ failed: String(error?.stack ?? error).slice(-2000) });
  // Leaving in order would wait until the whole of onnxruntime-web is compiled.
  process.kill(process.pid, 'SIGKILL');
};
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
process.once('message', (message) => run(/** @type {any} */ (message)));
