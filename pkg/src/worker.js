import init, { Loader, animate, encode_animation } from 'inkbloom-wasm';
import { PATIENCE, expectTheFile, fetchAndRead } from './download.js';
import { toPlainError } from './errors.js';
import { bringMissing, loadBundle } from './load.js';
import { lossyEncoder } from './webp.js';

/**
 * @typedef {import('./protocol.js').FromWorker} FromWorker
 * @typedef {import('./protocol.js').ToWorker} ToWorker
 */

const scope = /** @type {DedicatedWorkerGlobalScope} */ (/** @type {unknown} */ (self));

/** The compiler reads the wasm as it streams in and does not say when bytes arrive: one long wait instead. */
const WASM_PATIENCE = { ...PATIENCE, stallMs: 300_000 };

/** @type {WebAssembly.Memory | undefined} */
let memory;
/** @type {import('./contract.js').Model | undefined} */
let model;
/** Where the model came from. @type {import('./load.js').LoadContext | undefined} */
let source;
let cancelled = false;

/**
 * @param {FromWorker} message
 * @param {Transferable[]} [transfer]
 */
function post(message, transfer = []) {
  scope.postMessage(message, transfer);
}

/** @param {unknown} error */
function fail(error) {
  post({ type: 'failed', error: toPlainError(error, memory?.buffer.byteLength) });
}

/** @param {string} url */
async function startEngine(url) {
  try {
    ({ memory } = await fetchAndRead(url, (response) => init({ module_or_path: response }), { patience: WASM_PATIENCE }));
  } catch (error) {
    // Not the browser's fault if the address has something else than the engine.
    if (error instanceof WebAssembly.CompileError) await expectTheFile(url);
    throw error;
  }
}

/** @param {Extract<ToWorker, { type: 'load' }>} message */
async function load({ address, device, memoryMiB, wasmUrl }) {
  const started = startEngine(wasmUrl ?? new URL('./inkbloom_bg.wasm', import.meta.url).href);
  // Met below, when the manifest is there.
  started.catch(() => {});
  source = {
    address,
    device,
    memoryMiB,
    open: async (...choices) => {
      await started;
      return Loader.open(...choices);
    },
    report: (event) => post({ type: 'progress', event }),
  };
  const { model: loaded, foundAt, storageNote, updateNote } = await loadBundle(source);
  model = loaded;
  Object.assign(source, { foundAt, updateNote });
  post({ type: 'loaded', loaded: { info: model.info(), device: model.device(), storageNote, updateNote } });
}

/** @param {Extract<ToWorker, { type: 'generate' }>} message */
async function generate({ request }) {
  cancelled = false;
  const loaded = /** @type {import('./contract.js').Model} */ (model);
  await bringMissing(/** @type {import('./load.js').LoadContext} */ (source), loaded, request);
  const drawing = await loaded.generate(request, async (event) => {
    post({ type: 'step', event }, event.preview ? [event.preview.data.buffer] : []);
    // On the CPU a step never leaves this thread: only a new task lets a `cancel` in.
    await new Promise((resolve) => setTimeout(resolve));
    return !cancelled;
  });
  const frames = (drawing.animations ?? []).flatMap((animation) => animation.frames);
  const buffers = [...[...drawing.images, ...frames].map(({ data }) => data), ...(drawing.raw ?? [])].map(({ buffer }) => buffer);
  post({ type: 'generated', drawing }, buffers);
}

/** @param {Extract<ToWorker, { type: 'animate' }>} message */
async function move({ image, options }) {
  const animation = animate(image, options);
  post({ type: 'animated', animation }, animation.frames.map(({ data }) => data.buffer));
}

/** @param {Extract<ToWorker, { type: 'encode' }>} message */
async function encode({ animation, save }) {
  /** @type {string[]} */
  const notes = [];
  const still = save.type === 'image/webp' ? await lossyEncoder().catch((error) => {
    notes.push(`The encoder of small WebP files could not be loaded, so this one loses nothing and is larger (${error.message}).`);
    return undefined;
  }) : undefined;
  const file = await encode_animation(animation, save, still);
  post({ type: 'encoded', file: { ...file, notes: [...notes, ...file.notes] } }, [file.bytes.buffer]);
}

/** @param {Exclude<ToWorker, { type: 'cancel' | 'ping' }>} message */
function work(message) {
  switch (message.type) {
    case 'load': return load(message);
    case 'generate': return generate(message);
    case 'animate': return move(message);
    case 'encode': return encode(message);
  }
}

scope.addEventListener('message', ({ data }) => {
  const message = /** @type {ToWorker} */ (data);
  if (message.type === 'cancel') cancelled = true;
  else if (message.type === 'ping') post({ type: 'alive' });
  else work(message).catch(fail);
});

// A panic inside a future of the wasm leaves its promise pending for ever and surfaces only here.
scope.addEventListener('error', (event) => {
  event.preventDefault();
  fail(event.error ?? event.message);
});
scope.addEventListener('unhandledrejection', (event) => {
  event.preventDefault();
  fail(event.reason);
});

/** Says that this worker can be asked, with a lock that goes when it goes (only pages served securely have locks). */
async function start() {
  const lock = `inkbloom ${crypto.randomUUID()}`;
  await navigator.locks.request(lock, () => {
    post({ type: 'started', lock });
    return new Promise(() => {});
  });
}
start().catch(() => post({ type: 'started' }));
