// What runs in the page: the same pictures by Inkbloom and by onnxruntime-web, in turns. dawn-page.mjs is such a page without a browser.
import { counts } from './count.js';

/**
 * @typedef {object} Task
 * @property {'cpu' | 'gpu'} device
 * @property {number} rounds
 * @property {number} steps
 * @property {string} prompt
 * @property {number[]} ids the prompt's tokens, padded
 * @property {number[]} mask
 * @property {number[]} noise
 * @property {number[]} shape of the noise
 * @property {number[]} sigmas of all steps, and 0
 * @property {{ scale: number[], shift: number[] }} latent between the steps and the decoder, by channel
 * @property {boolean} theirs whether onnxruntime-web takes part
 * @property {number} [warmSeconds] each side draws before its rounds count
 * @property {number} [seconds] no round begins later than that
 */

/**
 * Where things are, and who is told how far it has come.
 *
 * @typedef {object} Host
 * @property {string} ours the package
 * @property {string} worker
 * @property {{ gpu: string, cpu: string }} theirs
 * @property {string | { wasm: string }} theirWasm
 * @property {(what: string, result: any) => void} [tell]
 */

/** As run.mjs serves them. @type {Host} */
const SERVED = {
  ours: '/pkg/index.js',
  worker: '/bench/worker.js',
  theirs: { gpu: '/ort/ort.webgpu.bundle.min.mjs', cpu: '/ort/ort.wasm.bundle.min.mjs' },
  theirWasm: '/ort/',
  tell: (what) => console.info(what),
};

/** @typedef {Record<'text' | 'denoise' | 'decode' | 'total', number>} Times in milliseconds */

/** @param {Task} task @param {Host} [host] */
export async function race(task, host = SERVED) {
  const began = performance.now();
  const ours = await openOurs(task, host);
  /** @type {Record<string, any>} */
  const result = { device: ours.device, isolated: globalThis.crossOriginIsolated };
  const tell = (/** @type {string} */ what) => host.tell?.(what, result);
  tell('Inkbloom is loaded');
  const theirs = task.theirs ? await openTheirs(task, host) : undefined;
  if (theirs) tell('onnxruntime-web is loaded');
  const sides = /** @type {{ name: string, side: typeof ours }[]} */ ([{ name: 'ours', side: ours }, ...(theirs ? [{ name: 'theirs', side: theirs }] : [])]);
  for (const { name, side } of sides) {
    const { times, pixels } = await side.picture();
    result[name] = { load: side.load, first: times, rounds: [], pixels: Array.from(pixels), loadCounts: side.loadCounts };
    tell(`${name}: loaded in ${side.load.toFixed(0)} ms, the first picture in ${times.total.toFixed(0)}`);
  }
  for (const { name, side } of task.warmSeconds ? sides : []) {
    const warmed = performance.now();
    while (performance.now() - warmed < 1000 * (task.warmSeconds ?? 0)) await side.picture();
    tell(`${name}: warm`);
  }
  for (const { name, side } of sides) result[name].counts = await side.count();
  for (let round = 0; round < task.rounds; round += 1) {
    if (round > 0 && task.seconds && performance.now() - began > 1000 * task.seconds) break;
    /** @type {Times[]} */
    const times = [];
    for (const { side } of sides) times.push((await side.picture()).times);
    sides.forEach(({ name }, i) => result[name].rounds.push(times[i]));
    tell(`round ${round + 1}: ${sides.map(({ name }, i) => `${name} ${times[i].total.toFixed(0)} ms`).join(', ')}`);
  }
  if (task.device === 'cpu') result.batch = await ours.batch();
  await ours.close();
  return result;
}

/** @param {Record<string, number>} after @param {Record<string, number>} before */
const difference = (after, before) => Object.fromEntries(Object.entries(after).map(([key, value]) => [key, value - before[key]]));

/** @param {Task} task @param {Host} host */
async function openOurs({ device, steps, prompt, noise }, host) {
  const { Inkbloom } = await import(host.ours);
  /** @type {Worker | undefined} */
  let worker;
  const Original = globalThis.Worker;
  globalThis.Worker = class extends Original {
    /** @param {ConstructorParameters<typeof Worker>} args */
    constructor(...args) {
      super(...args);
      worker = this;
    }
  };
  const began = performance.now();
  const ink = await Inkbloom.load({ model: '/models/sticker/', device, workerUrl: host.worker });
  const load = performance.now() - began;
  const ask = () => new Promise((resolve) => {
    const listen = (/** @type {MessageEvent} */ event) => {
      if (event.data?.type !== 'counts') return;
      worker?.removeEventListener('message', listen);
      event.stopImmediatePropagation();
      resolve(event.data.counts);
    };
    worker?.addEventListener('message', listen);
    worker?.postMessage('count');
  });
  // A signal that never fires: parts are timed where somebody watches.
  const draw = (/** @type {number} */ count, watched = true) => ink.generate({
    prompt, steps: count, seed: 1, noise: Float32Array.from(noise), preview: false, raw: true,
    ...(watched ? { signal: new AbortController().signal } : {}),
  });
  return {
    load,
    device: ink.device,
    loadCounts: device === 'gpu' ? await ask() : undefined,
    async picture() {
      const started = performance.now();
      const { timings, raw } = await draw(steps, false);
      const total = performance.now() - started;
      // Text and steps only queue up on a GPU where nobody watches.
      const parts = device === 'gpu' ? (await draw(steps)).timings : timings;
      return { times: { text: parts.textMs, denoise: parts.denoiseMs, decode: parts.decodeMs, total }, pixels: raw[0] };
    },
    async count() {
      if (device === 'cpu') return undefined;
      const before = await ask();
      await draw(1, false);
      const one = await ask();
      await draw(2, false);
      const two = await ask();
      const [first, second] = [difference(one, before), difference(two, one)];
      const step = difference(second, first);
      return { step, rest: difference(first, step), all: two };
    },
    /** Four pictures one after the other, and as one request, which several workers share: milliseconds of each round. */
    async batch() {
      const time = async (/** @type {() => Promise<unknown>} */ work) => {
        const started = performance.now();
        await work();
        return performance.now() - started;
      };
      const together = () => ink.generate({ prompt, steps, seed: 1, count: 4, preview: false });
      const apart = async () => {
        for (let seed = 1; seed <= 4; seed += 1) await ink.generate({ prompt, steps, seed, preview: false });
      };
      // The first starts the other workers, which then load the model.
      await together();
      await together();
      const times = { apart: /** @type {number[]} */ ([]), together: /** @type {number[]} */ ([]) };
      for (let round = 0; round < 5; round += 1) {
        times.apart.push(await time(apart));
        times.together.push(await time(together));
      }
      return times;
    },
    close: () => ink.dispose(),
  };
}

/** @param {Task} task @param {Host} host */
async function openTheirs({ device, ids, mask, noise, shape, sigmas, latent }, host) {
  const ort = await import(host.theirs[device]);
  Object.assign(ort.env.wasm, { wasmPaths: host.theirWasm, numThreads: 1 });
  ort.env.logLevel = 'error';
  const before = { ...counts };
  const began = performance.now();
  const options = { executionProviders: [device === 'gpu' ? 'webgpu' : 'wasm'] };
  const open = (/** @type {string} */ name) => ort.InferenceSession.create(`/onnx/${name}.onnx`, options);
  const text = await open('text');
  const transformer = await open('transformer');
  const decoder = await open('decoder');
  const load = performance.now() - began;
  const loadCounts = difference(counts, before);
  const tensor = (/** @type {any} */ data, /** @type {number[]} */ dims, type = 'float32') => new ort.Tensor(type, data, dims);
  const tokens = [1, ids.length];
  const floats = (/** @type {number[]} */ values) => Float32Array.from(values);
  const plane = shape[2] * shape[3];

  const encode = async () => {
    const big = (/** @type {number[]} */ values) => tensor(BigInt64Array.from(values, BigInt), tokens, 'int64');
    const { y } = await text.run({ ids: big(ids), mask: big(mask) });
    await y.getData();
    return y;
  };
  const step = async (/** @type {Float32Array} */ x, /** @type {number} */ i, /** @type {any} */ c) => {
    const t = tensor(Float32Array.of(1000 * sigmas[i]), [1]);
    const { y } = await transformer.run({ x: tensor(x, shape), t, c, mask: tensor(floats(mask), tokens) });
    const velocity = await y.getData();
    return x.map((value, k) => value + (sigmas[i + 1] - sigmas[i]) * velocity[k]);
  };
  const decode = async (/** @type {Float32Array} */ x) => {
    const at = (/** @type {number[]} */ values, /** @type {number} */ k) => values[Math.floor(k / plane) % values.length];
    const z = x.map((value, k) => value * at(latent.scale, k) + at(latent.shift, k));
    return (await decoder.run({ z: tensor(z, shape) })).y.getData();
  };
  return {
    load,
    loadCounts,
    async picture() {
      const marks = [performance.now()];
      const c = await encode();
      marks.push(performance.now());
      let x = floats(noise);
      for (let i = 0; i + 1 < sigmas.length; i += 1) x = await step(x, i, c);
      marks.push(performance.now());
      const pixels = await decode(x);
      marks.push(performance.now());
      const [a, b, d, e] = marks;
      return { times: { text: b - a, denoise: d - b, decode: e - d, total: e - a }, pixels };
    },
    async count() {
      if (device === 'cpu') return undefined;
      const c = await encode();
      const start = { ...counts };
      const x = await step(floats(noise), 0, c);
      const stepped = { ...counts };
      await encode();
      await decode(x);
      return { step: difference(stepped, start), rest: difference(counts, stepped), all: { ...counts } };
    },
    close: async () => {},
  };
}
