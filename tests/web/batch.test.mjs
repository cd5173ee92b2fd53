import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { drawOnSeveral } from '../../pkg/src/batch.js';

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
