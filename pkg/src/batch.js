import { withAnyOf } from './abort.js';
import { abortedError } from './errors.js';

/**
 * @typedef {import('./session.js').Session} Session
 * @typedef {import('./contract.js').EngineDrawing} EngineDrawing
 */

const SEED_BITS = 64;

/**
 * The pictures of one request on several sessions, each of which takes the next as soon as it is free. What comes is what
 * one session would have drawn, in the same order: the seed of picture i is the request's and i.
 *
 * @param {(Session | Promise<Session | undefined>)[]} sessions the first is there; others may still be coming, or never
 * @param {import('./contract.js').EngineRequest} request
 * @param {(event: import('./contract.js').EngineStep) => void} onStep
 * @param {AbortSignal} signal
 * @returns {Promise<EngineDrawing>}
 */
export async function drawOnSeveral(sessions, request, onStep, signal) {
  const count = Number(request.count);
  const first = BigInt(request.seed ?? 0);
  const failed = new AbortController();
  /** @type {EngineDrawing[]} */
  const drawings = [];
  let [next, done] = [0, 0];
  await withAnyOf([signal, failed.signal], (stop) => new Promise((resolve, reject) => {
    /** @param {Session | Promise<Session | undefined>} coming */
    async function work(coming) {
      const session = await coming;
      while (session && next < count) {
        if (stop.aborted) throw abortedError();
        const image = next;
        next += 1;
        const seed = BigInt.asUintN(SEED_BITS, first + BigInt(image)).toString();
        const tell = (/** @type {import('./contract.js').EngineStep} */ event) => onStep({ ...event, image, count });
        drawings[image] = await session.draw({ ...request, count: 1, seed }, tell, stop);
        done += 1;
      }
      // Nobody waits for a session that is still coming.
      if (done === count) resolve(undefined);
    }
    const working = sessions.map((session) => work(session));
    Promise.all(working).catch(async (error) => {
      failed.abort();
      await Promise.allSettled(working);
      reject(error);
    });
  }));
  const sum = (/** @type {'text_ms' | 'denoise_ms' | 'decode_ms'} */ part) => drawings.reduce((total, { timings }) => total + timings[part], 0);
  const [{ warnings, seed }] = drawings;
  return {
    images: drawings.flatMap(({ images }) => images),
    animations: drawings.flatMap(({ animations }) => animations ?? []),
    seed,
    seeds: drawings.flatMap(({ seeds }) => seeds),
    warnings,
    timings: { text_ms: sum('text_ms'), denoise_ms: sum('denoise_ms'), decode_ms: sum('decode_ms') },
    ...(request.raw ? { raw: drawings.flatMap(({ raw }) => raw ?? []) } : {}),
  };
}
