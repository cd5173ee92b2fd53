// What needs no browser: the package where there is none, and how a page watches a worker without locks.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { watchSilence } from '../../pkg/src/liveness.js';

const run = promisify(execFile);

/** Runs a module in a process of its own, where nothing stands in for a browser. @param {string} script */
async function inNode(script) {
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script], { cwd: new URL('../../pkg/', import.meta.url) });
  return JSON.parse(stdout);
}

// `inkbloom` names itself, through the `exports` of its package.json: these are the built files.
describe('without a browser', () => {
  it('the package can be imported and does nothing', async () => {
    assert.deepEqual(await inNode("const { InkBloomElement } = await import('inkbloom/element'); console.log(JSON.stringify(typeof InkBloomElement));"), 'function');
    assert.deepEqual(await inNode("import { describeProgress } from 'inkbloom'; console.log(JSON.stringify(describeProgress({ phase: 'ready' }).text));"), 'Ready to draw');
  });

  it('everything that needs one rejects with a code', async () => {
    const codes = await inNode(`import { Inkbloom, InkbloomError } from 'inkbloom';
      const { models } = Inkbloom;
      const work = [Inkbloom.load({ model: '/models/sticker/' }), Inkbloom.load({ model: 'https://host.example/m/' }), models.list(), models.size(), models.delete('/m/'), models.clear()];
      const codes = await Promise.all(work.map((promise) => promise.then(() => 'fine', (error) => error instanceof InkbloomError ? error.code : String(error))));
      console.log(JSON.stringify([...codes, await models.persist()]));`);
    assert.deepEqual(codes, ['unsupported', 'unsupported', 'quota', 'quota', 'quota', 'quota', false]);
  });

  it('what is wrong with the options is told first where there is a page', async () => {
    const codes = await inNode(`globalThis.location = { href: 'https://site.example/' };
      const { Inkbloom } = await import('inkbloom');
      const codeOf = (options) => Inkbloom.load(options).then(() => 'fine', ({ code }) => code);
      console.log(JSON.stringify(await Promise.all([undefined, null, {}, { model: '/m/', device: 'tpu' }, { model: '/m/' }].map(codeOf))));`);
    assert.deepEqual(codes, ['bad-input', 'bad-input', 'bad-input', 'bad-input', 'unsupported']);
  });
});

describe('a worker without locks', () => {
  /** @param {import('node:test').TestContext} context */
  function watched(context) {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const worker = new EventTarget();
    const counts = { pings: 0, gone: 0 };
    const stop = watchSilence(worker, () => (counts.pings += 1), () => {
      counts.gone += 1;
      stop();
    });
    const pass = (/** @type {number} */ seconds) => {
      for (let second = 0; second < seconds; second += 1) context.mock.timers.tick(1000);
    };
    return { worker, counts, stop, pass };
  }

  it('is asked for a sign of life, and gone after minutes without any', (context) => {
    const { counts, pass } = watched(context);
    pass(170);
    assert.deepEqual(counts, { pings: 17, gone: 0 });
    pass(600);
    assert.deepEqual(counts, { pings: 17, gone: 1 });
  });

  it('is alive as long as it says anything', (context) => {
    const { worker, counts, pass } = watched(context);
    for (let minute = 0; minute < 20; minute += 2) {
      pass(120);
      worker.dispatchEvent(new Event('message'));
    }
    assert.equal(counts.gone, 0);
  });

  it('is watched no longer than it works', (context) => {
    const { counts, stop, pass } = watched(context);
    stop();
    pass(1000);
    assert.deepEqual(counts, { pings: 0, gone: 0 });
  });
});
