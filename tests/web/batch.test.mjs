// Several workers at one request: with sessions that only say what they were asked, and with real ones in a browser.
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { drawOnSeveral, mostShares } from '../../pkg/src/batch.js';
import { useLab } from './support/lab.js';

/** A session that draws its seed, once `until` is there. */
const fake = (/** @type {string} */ name, /** @type {string[]} */ log, until = Promise.resolve(), fails = false) => /** @type {any} */ ({
  async draw(/** @type {any} */ { seed, count }, /** @type {(event: any) => void} */ onStep, /** @type {AbortSignal} */ signal) {
    log.push(`${name} ${seed}`);
    assert.equal(count, 1);
    onStep({ image: 0, count: 1, step: 1, steps: 1 });
    await until;
    if (fails) throw new Error(`${name} failed`);
    if (signal.aborted) throw new Error(`${name} stopped`);
    return { images: [seed], seed, seeds: [seed], warnings: ['note'], timings: { text_ms: 1, denoise_ms: 2, decode_ms: 3 }, raw: [`raw ${seed}`] };
  },
});
const never = new AbortController().signal;

describe('a batch on several workers', () => {
  it('comes in order with the seeds that one worker would take, whoever draws', async () => {
    /** @type {string[]} */
    const log = [];
    /** @type {any[]} */
    const steps = [];
    /** @type {() => void} */
    let release = () => {};
    const others = new Promise((resolve) => { release = () => resolve(undefined); });
    const told = (/** @type {any} */ event) => {
      steps.push(event);
      if (steps.length === 4) release();
    };
    const coming = new Promise(() => {});
    const sessions = [fake('slow', log, /** @type {any} */ (others)), Promise.resolve(fake('fast', log)), Promise.resolve(undefined), /** @type {any} */ (coming)];
    const drawing = await drawOnSeveral(sessions, /** @type {any} */ ({ seed: '18446744073709551614', count: 4, raw: true }), told, never);
    const seeds = ['18446744073709551614', '18446744073709551615', '0', '1'];
    assert.deepEqual(drawing.images, seeds);
    assert.deepEqual(drawing.raw, seeds.map((seed) => `raw ${seed}`));
    assert.equal(drawing.seed, seeds[0]);
    assert.deepEqual(drawing.seeds, seeds);
    assert.deepEqual(drawing.warnings, ['note']);
    assert.deepEqual(drawing.timings, { text_ms: 4, denoise_ms: 8, decode_ms: 12 });
    assert.deepEqual(log.filter((line) => line.startsWith('slow')), ['slow 18446744073709551614']);
    assert.deepEqual(steps.map(({ image, count }) => [image, count]).sort(), [[0, 4], [1, 4], [2, 4], [3, 4]]);
  });

  it('fails as one worker fails, once all have stopped', async () => {
    /** @type {string[]} */
    const log = [];
    const sessions = [fake('good', log), Promise.resolve(fake('bad', log, undefined, true))];
    await assert.rejects(drawOnSeveral(sessions, /** @type {any} */ ({ seed: '1', count: 9 }), () => {}, never), { message: 'bad failed' });
    assert.equal(log.filter((line) => line.startsWith('bad')).length, 1);
    assert.ok(log.length < 9);
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const drawing = drawOnSeveral([fake('only', [])], /** @type {any} */ ({ seed: '1', count: 9 }), () => controller.abort(), controller.signal);
    await assert.rejects(drawing, { message: 'only stopped' });
  });
});

describe('candidates on several workers', () => {
  /** The scores of the seeds 0 to 4; those of 1 and 3 are equal. */
  const SCORES = [0.1, 0.5, -0.2, 0.5, 0.3];

  /** A session that chooses as the core does. @param {[seed: string, candidates: number, count: number][]} asked */
  const chooser = (asked) => /** @type {any} */ ({
    async draw(/** @type {any} */ { seed, candidates, count, keep }, /** @type {(event: any) => void} */ onStep) {
      asked.push([seed, candidates, count]);
      const seeds = Array.from({ length: candidates }, (_, i) => Number(seed) + i);
      seeds.forEach((seed, image) => onStep({ image, count: candidates, seed: String(seed), score: SCORES[seed] }));
      const kept = seeds.sort((a, b) => SCORES[b] - SCORES[a]).slice(0, keep === 'all' ? candidates : count);
      const of = (/** @type {string} */ what) => kept.map((seed) => `${what} ${seed}`);
      return { images: of('image'), animations: of('animation'), seed, seeds: kept.map(String), scores: kept.map((seed) => SCORES[seed]), warnings: [], timings: {}, raw: kept.flatMap((seed) => [`a ${seed}`, `b ${seed}`]) };
    },
  });

  /** @param {object} options */
  async function choose(options) {
    /** @type {[string, number, number][]} */
    const asked = [];
    /** @type {any[]} */
    const steps = [];
    const request = /** @type {any} */ ({ prompt: 'x', seed: '0', candidates: 5, raw: true, ...options });
    const drawing = await drawOnSeveral([chooser(asked), Promise.resolve(chooser(asked))], request, (event) => steps.push(event), never);
    assert.deepEqual(steps.map(({ image, count, seed, score }) => [image, count, seed, score]).sort(), SCORES.map((score, i) => [i, 5, String(i), score]));
    return { ...drawing, asked };
  }

  it('come back the best first, of equals the earlier, with all that is theirs', async () => {
    const { asked, seed, ...drawing } = await choose({ keep: 'all' });
    assert.equal(asked.length, 5);
    assert.deepEqual([seed, drawing.seeds, drawing.scores], ['0', ['1', '3', '4', '0', '2'], [0.5, 0.5, 0.3, 0.1, -0.2]]);
    assert.deepEqual(drawing.images, drawing.seeds.map((seed) => `image ${seed}`));
    assert.deepEqual(drawing.animations, drawing.seeds.map((seed) => `animation ${seed}`));
    assert.deepEqual(drawing.raw, drawing.seeds.flatMap((seed) => [`a ${seed}`, `b ${seed}`]));
  });

  it('are decoded in full no more than each worker must, where only the best come back', async () => {
    const two = await choose({ count: 2 });
    assert.deepEqual([two.seeds, two.scores], [['1', '3'], [0.5, 0.5]]);
    assert.deepEqual(two.asked, [['0', 3, 2], ['3', 2, 2]]);
    const best = await choose({});
    assert.deepEqual([best.seeds, best.asked], [['1'], [['0', 3, 1], ['3', 2, 1]]]);
  });

  it('stay with one worker where it would draw otherwise, or refuse', () => {
    const shares = (/** @type {object} */ request, ways = ['diffusion', 'tokens']) => mostShares(/** @type {any} */ (request), /** @type {any} */ (ways));
    assert.deepEqual([{}, { count: 3 }, { count: 3, way: 'tokens' }, { candidates: 4 }, { candidates: 4, count: 4, keep: 'all', search: 'best', way: 'diffusion' }].map((request) => shares(request)), [1, 3, 3, 4, 4]);
    for (const wrong of [{ way: 'tokens' }, { way: 'hybrid' }, { search: 'beam' }, { search: 'sample' }, { count: 5 }, { count: '2' }, { candidates: '4' }, { candidates: 2.5 }, { candidates: 1025 }]) {
      assert.equal(shares({ candidates: 4, ...wrong }), 1, JSON.stringify(wrong));
    }
    assert.equal(shares({ candidates: 4 }, ['tokens']), 1);
  });
});

describe('workers in a browser', () => {
  const lab = useLab();
  const MODEL = '/bundles/tokens_tiny/';

  // What each worker is asked to draw, and how many are ready.
  beforeEach(() => lab.page.evaluate(() => {
    const { postMessage } = Worker.prototype;
    const told = { ready: 0, drawing: /** @type {Set<Worker>} */ (new Set()) };
    Worker.prototype.postMessage = function (/** @type {any} */ message, /** @type {any} */ ...rest) {
      if (message.type === 'load') this.addEventListener('message', ({ data }) => { told.ready += Number(data.type === 'loaded'); });
      if (message.type === 'generate') told.drawing.add(this);
      return postMessage.call(this, message, ...rest);
    };
    Object.assign(globalThis, { told });
  }));

  /**
   * Draws on a processor of so many cores, and tells everything of it and how many workers drew.
   *
   * @param {number} cores
   * @param {Omit<import('../../pkg/src/index.js').GenerateOptions, 'prompt'> & { stop?: boolean }} options `stop`: after the first step
   */
  const drawWith = (cores, options) => lab.page.evaluate(async ([cores, { stop, ...options }, model]) => {
    const entry = '/pkg/index.js';
    /** @type {typeof import('../../pkg/src/index.js')} */
    const { Inkbloom } = await import(entry);
    const { told } = /** @type {{ told: { ready: number, drawing: Set<Worker> } }} */ (/** @type {any} */ (globalThis));
    Object.defineProperty(navigator, 'hardwareConcurrency', { value: cores, configurable: true });
    const page = /** @type {{ ink?: import('../../pkg/src/index.js').Inkbloom }} */ (globalThis);
    const ink = (page.ink ??= await Inkbloom.load({ model, device: 'cpu' }));
    told.drawing.clear();
    /** @type {string[]} */
    const steps = [];
    const controller = new AbortController();
    const plain = (/** @type {ImageData[]} */ pictures) => pictures.map(({ width, height, data }) => [width, height, ...data]);
    const outcome = await ink.generate({
      prompt: '3d emoji of a red apple',
      seed: '8',
      ...options,
      signal: controller.signal,
      onStep({ preview, ...step }) {
        steps.push(JSON.stringify({ ...step, preview: preview && plain([preview]) }));
        if (stop) controller.abort();
      },
    }).then(
      ({ images, animations, raw = [], timings: _, ...rest }) => ({ ...rest, images: plain(images), animations: animations.map(({ frames }) => plain(frames)), raw: raw.map((values) => Array.from(values)) }),
      ({ code, message }) => ({ code, message }),
    );
    return { outcome: /** @type {any} */ (outcome), steps: steps.sort(), workers: told.drawing.size };
  }, /** @type {const} */ ([cores, options, MODEL]));

  /** Draws once, so that `cores` workers are there. @param {number} cores */
  async function ready(cores) {
    await drawWith(cores, { count: cores, steps: 1 });
    await lab.page.waitForFunction((cores) => /** @type {any} */ (globalThis).told.ready === cores, cores);
  }

  it('choose among candidates what one chooses, to the byte, and tell the same', async () => {
    await ready(3);
    for (const [options, kept] of /** @type {const} */ ([[{ count: 2 }, 2], [{ keep: 'all', motion: 'spin', frames: 4 }, 5], [{ count: 3, search: 'best', way: 'diffusion' }, 3]])) {
      const request = { ...options, candidates: 5, steps: 2, raw: true };
      const one = await drawWith(1, request);
      const several = await drawWith(3, request);
      assert.deepEqual([one.workers, several.workers], [1, 3]);
      assert.deepEqual(several.outcome, one.outcome);
      assert.deepEqual(several.steps, one.steps);
      assert.equal(several.steps.length, 5 * 3);
      const { seeds, scores, images } = several.outcome;
      assert.deepEqual([images.length, new Set(images.map(String)).size, new Set(scores).size], [kept, kept, kept]);
      assert.notEqual(seeds[0], '8', 'the best came first by chance');
    }
  });

  it('leave to one what would not come out the same, and wrong requests', async () => {
    await ready(3);
    for (const request of [{ way: 'tokens', search: 'beam' }, { way: 'hybrid' }, { search: 'sample' }, { count: 5 }, { candidates: 1025 }, { keep: 'some' }]) {
      const options = /** @type {any} */ ({ candidates: 4, steps: 1, ...request });
      const one = await drawWith(1, options);
      const several = await drawWith(3, options);
      assert.deepEqual(several.outcome, one.outcome, JSON.stringify(request));
      assert.deepEqual(several.steps, one.steps);
    }
  });

  it('all stop when candidates are cancelled, and draw again', async () => {
    await ready(3);
    const request = { candidates: 9, steps: 40 };
    const stopped = await drawWith(3, { ...request, stop: true });
    assert.deepEqual([stopped.outcome.code, stopped.workers], ['aborted', 3]);
    assert.ok(stopped.steps.length < 9 * 40);
    const next = await drawWith(3, { candidates: 3, steps: 1 });
    assert.deepEqual([next.outcome.images.length, next.workers], [1, 3]);
  });

  it('fetch what candidates need once between them', async () => {
    await ready(3);
    lab.site.asked = [];
    const { workers } = await drawWith(3, { candidates: 6, steps: 1 });
    assert.equal(workers, 3);
    assert.equal(lab.site.asked.filter((path) => path.includes('/scorer-')).length, 1);
  });
});
