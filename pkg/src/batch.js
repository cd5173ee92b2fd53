import { withAnyOf } from './abort.js';
import { abortedError } from './errors.js';

/**
 * @typedef {import('./session.js').Session} Session
 * @typedef {import('./contract.js').EngineDrawing} EngineDrawing
 */

const SEED_BITS = 64;

/** The core refuses more, and would not hear of them where each session draws a share. */
const MAX_CANDIDATES = 1024;

/**
 * Among how many sessions a request can be shared so that the same comes of it as of one. A wrong request goes to one, for a
 * share of it might be right.
 *
 * @param {import('./contract.js').EngineRequest} request
 * @param {import('./contract.js').EngineInfo['ways']} ways
 */
export function mostShares({ count = 1, candidates, search = 'best', way }, [ownWay]) {
  if (!Number.isInteger(count)) return 1;
  if (candidates === undefined) return count;
  // Beam search compares candidates on the way, and codes of all of them are drawn side by side.
  const apart = search === 'best' && (way ?? ownWay) === 'diffusion';
  const right = Number.isInteger(candidates) && count <= candidates && candidates <= MAX_CANDIDATES;
  return apart && right ? candidates : 1;
}

/**
 * The pictures or candidates of one request on several sessions, each of which takes the next as soon as it is free. What
 * comes is what one session would have drawn, in the same order: the seed of picture i is the request's and i.
 *
 * @param {(Session | Promise<Session | undefined>)[]} sessions the first is there; others may still be coming, or never
 * @param {import('./contract.js').EngineRequest} request
 * @param {(event: import('./contract.js').EngineStep) => void} onStep
 * @param {AbortSignal} signal
 * @returns {Promise<EngineDrawing>}
 */
export async function drawOnSeveral(sessions, request, onStep, signal) {
  const { count: wanted = 1, candidates, keep, seed: first = '0' } = request;
  const count = candidates ?? wanted;
  const kept = keep === 'all' ? count : wanted;
  // What the pictures of a request share is computed once by a session, so where some lose, one chooses from as many as it can have.
  const size = kept < count ? Math.ceil(count / sessions.length) : 1;
  const shares = Math.ceil(count / size);
  const failed = new AbortController();
  /** @type {EngineDrawing[]} */
  const drawings = [];
  let [next, done] = [0, 0];
  await withAnyOf([signal, failed.signal], (stop) => new Promise((resolve, reject) => {
    /** @param {Session | Promise<Session | undefined>} coming */
    async function work(coming) {
      const session = await coming;
      while (session && next < shares) {
        if (stop.aborted) throw abortedError();
        const share = next;
        next += 1;
        const before = share * size;
        const drawn = Math.min(size, count - before);
        const seed = BigInt.asUintN(SEED_BITS, BigInt(first) + BigInt(before)).toString();
        const part = { ...request, seed, count: Math.min(kept, drawn), candidates: candidates && drawn };
        const tell = (/** @type {import('./contract.js').EngineStep} */ event) => onStep({ ...event, image: before + event.image, count });
        drawings[share] = await session.draw(part, tell, stop);
        done += 1;
      }
      // Nobody waits for a session that is still coming.
      if (done === shares) resolve(undefined);
    }
    const working = sessions.map((session) => work(session));
    Promise.all(working).catch(async (error) => {
      failed.abort();
      await Promise.allSettled(working);
      reject(error);
    });
  }));
  const pictures = drawings.flatMap(({ images, animations = [], seeds, scores = [], raw = [] }) => {
    const frames = raw.length / images.length;
    return images.map((image, i) => ({ image, animation: animations[i], seed: seeds[i], score: scores[i], raw: raw.slice(i * frames, (i + 1) * frames) }));
  });
  // As the core sorts: the best first, of equals the earlier.
  if (candidates) pictures.sort((a, b) => b.score - a.score);
  const chosen = pictures.slice(0, kept);
  const sum = (/** @type {'text_ms' | 'denoise_ms' | 'decode_ms'} */ part) => drawings.reduce((total, { timings }) => total + timings[part], 0);
  const [{ warnings, seed }] = drawings;
  return {
    images: chosen.map(({ image }) => image),
    animations: chosen.flatMap(({ animation }) => animation ?? []),
    seed,
    seeds: chosen.map((picture) => picture.seed),
    ...(candidates && { scores: chosen.map(({ score }) => score) }),
    warnings,
    timings: { text_ms: sum('text_ms'), denoise_ms: sum('denoise_ms'), decode_ms: sum('decode_ms') },
    ...(request.raw ? { raw: chosen.flatMap(({ raw }) => raw) } : {}),
  };
}
