// The package in a real browser: the wasm, the worker, IndexedDB and WebGPU are the real ones; the models are tiny.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { launch } from './support/browser.js';
import { psnr, publish, readBundle, readNative, readOldBundle, readReference, relativeError, splitBundle } from './support/bundles.js';
import { sha256 } from './support/hash.js';
import { assertHonest } from './support/honesty.js';
import { noWorkers, openLab, order, useLab } from './support/lab.js';
import { cutAfter } from './support/site.js';
import { longestTask } from './support/trace.js';

const TINY = '/bundles/sticker_tiny/';
const APPLE = { prompt: '3d emoji of a red apple' };

/** A processor without a graphics card rounds otherwise than native code does; more than this is a mistake. */
const PARITY = 2e-3;

const lab = useLab();

it('draws with the shipped model what Python draws with its weights', async (context) => {
  const { request, noise, image } = readReference('default_model');
  const [report] = await order(lab.page, {
    model: '/models/sticker/',
    drawings: [{ ...request, negativePrompt: request.negative_prompt, noise: Array.from(noise), raw: true }],
  });
  assert.equal(report.error, undefined);
  const likeness = psnr(report.raw[0], image);
  context.diagnostic(`${likeness.toFixed(1)} dB`);
  // The reference has the bundle's weights as floats; pixels are -1 to 1.
  assert.ok(likeness >= 60, `${likeness} dB`);
});

// The tiny models' rows are so short that one of a GPU's threads takes each; these are 144 to 384 values long.
it('draws long rows on the GPU as on the CPU', async (context) => {
  const drawing = { ...APPLE, steps: 1, seed: 7, width: 192, height: 192, raw: true };
  const draw = async (/** @type {'cpu' | 'gpu'} */ device) => {
    const [report] = await order(lab.page, { model: '/models/sticker/', device, drawings: [drawing] });
    assert.equal(report.error, undefined);
    assert.equal(report.device?.kind, device);
    return report.raw[0];
  };
  const error = relativeError(await draw('gpu'), await draw('cpu'));
  context.diagnostic(`relative error ${error.toExponential(1)}`);
  assert.ok(error <= PARITY, `relative error ${error}`);
});

it('draws with a bundle of version 1 what its writer drew', async () => {
  const { bundle, image } = readOldBundle();
  assert.equal(bundle.manifest.version, 1);
  publish(lab.site, '/models/old/', bundle);
  const [report] = await order(lab.page, { model: '/models/old/', drawings: [{ prompt: 'a red apple', seed: 7, steps: 2, raw: true }] });
  assert.equal(report.error, undefined);
  const error = relativeError(report.raw[0], image);
  assert.ok(error <= PARITY, `relative error ${error}`);
});

it('fetches an optional component when a drawing needs it, and keeps it', async () => {
  const model = '/bundles/sd15_preview/';
  const drawing = { prompt: 'a cat', steps: 1, width: 32, height: 32 };
  const optional = () => lab.site.countOf('.bin') > 0 && lab.site.asked.some((path) => path.includes('preview_vae-000-'));
  const [loaded] = await order(lab.page, { model });
  assert.equal(loaded.error, undefined);
  assert.ok(!optional(), 'it was fetched before it was asked for');
  const [first, second] = await order(lab.page, { model, drawings: [drawing, drawing] });
  assert.equal(first.error, undefined);
  // The small decoder makes previews of the whole size; the model's own is asked for a quarter.
  assert.deepEqual([first.steps[0].preview, second.steps[0].preview], [[32, 32], [32, 32]]);
  assert.ok(optional());
  lab.site.asked = [];
  const [again] = await order(lab.page, { model, drawings: [drawing] });
  assert.deepEqual(again.steps[0].preview, [32, 32]);
  assert.equal(lab.site.countOf('.bin'), 0, 'it was fetched again');
});

for (const device of /** @type {const} */ (['cpu', 'gpu'])) {
  describe(`on the ${device}`, () => {
    /** One page for all of them, with the engines that were loaded. @type {import('playwright-core').Page} */
    let own;
    before(async () => {
      own = await openLab(lab.browser, lab.site);
    });
    after(() => own?.context().close());

    /** @param {Omit<import('./support/lab.js').Order, 'device' | 'keep'>} what */
    const draw = (what) => order(own, { ...what, device, keep: true });

    // The last one's motion adapter is fetched when frames are asked for.
    for (const name of ['sticker_tiny', 'sticker_straight', 'sticker_kl_wide', 'sd3_without_t5', 'flux_true_guidance', 'animatediff_euler']) {
      it(`draws ${name} as the reference does`, async (context) => {
        const { request, noise, image } = readReference(`pipeline/${name}`);
        const [report] = await draw({
          model: `/bundles/${name}/`,
          drawings: [{
            prompt: request.prompt,
            negativePrompt: request.negative_prompt,
            steps: request.steps,
            guidance: request.guidance,
            trueGuidance: request.true_guidance,
            width: request.width,
            height: request.height,
            frames: request.frames,
            noise: Array.from(noise),
            raw: true,
          }],
        });
        assert.equal(report.error, undefined);
        assert.equal(report.device?.kind, device);
        // One list for each frame; a still has one.
        const error = relativeError(report.raw.flat(), image);
        context.diagnostic(`relative error ${error.toExponential(1)}`);
        assert.ok(error <= PARITY, `relative error ${error}`);
      });
    }

    it('repaints a picture below a mask as the reference does', async (context) => {
      const { request, noise, image } = readReference('pipeline/sticker_inpaint');
      const at = '/fixtures/sticker_inpaint/';
      const options = { prompt: request.prompt, steps: request.steps, guidance: request.guidance, width: request.width, height: request.height, noise: Array.from(noise), raw: true };
      const [report, wrong] = await draw({
        model: '/bundles/sticker_inpaint/',
        drawings: [
          { ...options, strength: request.strength, init: at + request.init, mask: at + request.mask },
          { ...options, strength: 0, init: at + request.init },
        ],
      });
      assert.equal(report.error, undefined);
      const error = relativeError(report.raw[0], image);
      context.diagnostic(`relative error ${error.toExponential(1)}`);
      assert.ok(error <= PARITY, `relative error ${error}`);
      assert.equal(wrong.error?.code, 'bad-input');
      assert.match(wrong.error?.message ?? '', /strength/);
    });

    it('draws from a seed what native code draws from it', async (context) => {
      const [report] = await draw({ model: TINY, drawings: [{ ...APPLE, steps: 2, seed: 7, raw: true }] });
      assert.equal(report.error, undefined);
      const error = relativeError(report.raw[0], readNative('sticker_tiny'));
      context.diagnostic(`relative error ${error.toExponential(1)}`);
      assert.ok(error <= PARITY, `relative error ${error}`);
    });

    it('makes do with too little memory: the text encoder goes and comes back, and a warning tells', async (context) => {
      const drawing = { ...APPLE, steps: 2, seed: 7, raw: true };
      // A page of its own: `draw` keeps one engine for each model.
      const [first, second] = await order(lab.page, { model: TINY, device, memoryMiB: 0.01, drawings: [drawing, { ...drawing, prompt: 'a dog' }] });
      assert.equal(first.error, undefined);
      assert.equal(second.error, undefined);
      assert.equal(first.info?.releasesText, true);
      assert.match(first.warnings?.join() ?? '', /more memory/);
      assert.notDeepEqual(second.hashes, first.hashes);
      // What comes back comes from the store.
      const asked = lab.site.asked.filter((path) => path.includes('text_encoder'));
      assert.deepEqual(asked, [...new Set(asked)]);
      const likeness = psnr(first.raw[0], readNative('sticker_tiny'));
      context.diagnostic(`weights in ${first.info?.weights}, ${likeness.toFixed(1)} dB`);
      assert.ok(likeness > 45, `${likeness} dB`);
      const [refused] = await order(lab.page, { model: TINY, device, memoryMiB: 0 });
      assert.equal(refused.error?.code, 'bad-input');
    });

    it('draws the same bytes for the same seed and others for another', async () => {
      const [first, again, other, several] = await draw({
        model: TINY,
        drawings: [
          { ...APPLE, steps: 2, seed: 7 },
          { ...APPLE, steps: 2, seed: '7' },
          { ...APPLE, steps: 2, seed: '8' },
          { ...APPLE, steps: 2, seed: 7, count: 2 },
        ],
      });
      assert.deepEqual([first.error, again.error, other.error, several.error], Array(4).fill(undefined));
      assert.equal(first.seed, '7');
      assert.deepEqual(again.hashes, first.hashes);
      assert.notDeepEqual(other.hashes, first.hashes);
      assert.equal(several.hashes[0], first.hashes[0]);
      assert.notEqual(several.hashes[1], first.hashes[0]);
    });

    it('stops between two steps when cancelled, and draws again', async () => {
      const [stopped, next] = await draw({
        model: TINY,
        drawings: [{ ...APPLE, steps: 40, abortAtStep: 2 }, { ...APPLE, steps: 2 }],
      });
      assert.equal(stopped.error?.code, 'aborted');
      assert.ok(stopped.steps.length < 40);
      assert.equal(next.error, undefined);
      assert.equal(next.steps.length, 2);
    });

    it('tells every step, with a preview of it', async () => {
      const [{ steps, error, sizes }] = await draw({ model: TINY, drawings: [{ ...APPLE, steps: 2, count: 2 }] });
      assert.equal(error, undefined);
      // Where two workers draw, which picture comes first is chance; the steps of each come in order.
      const told = steps.map(({ image, count, step, steps: of }) => [image, count, step, of]);
      assert.deepEqual([0, 1].flatMap((image) => told.filter((step) => step[0] === image)), [
        [0, 2, 1, 2], [0, 2, 2, 2], [1, 2, 1, 2], [1, 2, 2, 2],
      ]);
      assert.equal(told.length, 4);
      assert.ok(steps.every(({ preview }) => preview && preview[0] > 0 && preview[1] > 0));
      assert.deepEqual(sizes, [[32, 32], [32, 32]]);
    });

    it('refuses what the model cannot do, in words, and goes on', async () => {
      const [size, prompt, long, fine] = await draw({
        model: TINY,
        drawings: [
          { ...APPLE, width: 33, height: 32 },
          { prompt: '' },
          { prompt: 'a red apple '.repeat(100), steps: 1 },
          { ...APPLE, steps: 1 },
        ],
      });
      assert.equal(size.error?.code, 'bad-input');
      assert.match(size.error?.message ?? '', /33/);
      assert.equal(size.error?.name, 'InkbloomError');
      assert.equal(prompt.error?.code, 'bad-input');
      assert.equal(long.error, undefined);
      assert.equal(long.warnings?.length, 1);
      assert.equal(fine.error, undefined);
      assert.deepEqual(fine.warnings, []);
    });
  });
}

describe('loading', () => {
  it('tells honest progress, stores the model, and lists and deletes it', async () => {
    const [{ progress, stored, error }] = await order(lab.page, { model: TINY });
    assert.equal(error, undefined);
    assertHonest(progress);
    assert.deepEqual(progress.map(({ phase }) => phase).filter((phase, index, all) => phase !== all[index - 1]).at(-2), 'compile');
    assert.equal(stored, true);
    const models = await lab.page.evaluate(async () => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const list = await Inkbloom.models.list();
      const size = await Inkbloom.models.size();
      await Inkbloom.models.delete('/bundles/sticker_tiny/');
      return { list, size, afterDelete: await Inkbloom.models.list() };
    });
    assert.equal(models.list.length, 1);
    assert.equal(models.list[0].id, `${lab.site.url}bundles/sticker_tiny/`);
    assert.equal(models.list[0].complete, true);
    assert.equal(models.size, models.list[0].bytes);
    assert.deepEqual(models.afterDelete, []);
  });

  it('keeps the main thread free', async (context) => {
    const longest = await longestTask(lab.browser, lab.page, async () => {
      const [{ error }] = await order(lab.page, { model: TINY, drawings: [{ ...APPLE, steps: 8 }] });
      assert.equal(error, undefined);
    });
    context.diagnostic(`longest task ${longest.toFixed(0)} ms`);
    assert.ok(longest < 50, `a task of ${longest} ms on the main thread`);
  });

  it('would be caught keeping the main thread busy', async () => {
    const longest = await longestTask(lab.browser, lab.page, () => lab.page.evaluate(() => {
      // Long enough to have 50 ms of a shared processor, whoever else wants it.
      const end = performance.now() + 600;
      while (performance.now() < end);
    }));
    assert.ok(longest > 50, `a busy loop was seen as ${longest} ms`);
  });

  it('compiles for the GPU before the first shard is there, and nothing anew for the first drawing', async (context) => {
    lab.site.files.set('/count.js', readFileSync(new URL('../../tools/bench/count.js', import.meta.url)));
    lab.site.files.set('/counted-worker.js', "import './count.js'; import './pkg/worker.js';");
    const pipelines = async () => {
      const [worker] = lab.page.workers();
      return worker ? worker.evaluate(async () => {
        const counter = '/count.js';
        return /** @type {typeof import('../../tools/bench/count.js')} */ (await import(counter)).counts.pipelines;
      }) : 0;
    };
    /** @type {(() => void)[]} */
    const held = [];
    lab.site.meddle = (request, response) => {
      if (!request.url?.endsWith('.bin')) return false;
      held.push(() => response.writeHead(307, { location: `${request.url}?late` }).end());
      return true;
    };
    const engine = { model: TINY, device: /** @type {const} */ ('gpu'), workerUrl: '/counted-worker.js', keep: true };
    const loading = order(lab.page, engine);
    const end = Date.now() + 60_000;
    while ((await pipelines()) === 0 && Date.now() < end) await lab.page.waitForTimeout(100);
    assert.ok((await pipelines()) > 0, 'nothing was compiled without shards');
    for (const letGo of held) letGo();
    lab.site.meddle = undefined;
    const [loaded] = await loading;
    assert.equal(loaded.error, undefined);
    const compiled = await pipelines();
    // In the model's own steps: of one or two a dense layer has so few rows that its kernel is another.
    const [drawn] = await order(lab.page, { ...engine, drawings: [APPLE] });
    assert.equal(drawn.error, undefined);
    context.diagnostic(`${compiled} pipelines`);
    assert.equal(await pipelines(), compiled, 'the drawing needed more');
  });

  it('resumes at the next visit after a download was cut', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 3);
    publish(lab.site, '/models/split/', bundle);
    lab.site.meddle = (request, response) => {
      if (!request.url?.endsWith('shard-001.bin')) return false;
      cutAfter(response, bundle.shards[1].subarray(0, 1000), bundle.shards[1].length);
      return true;
    };
    const [cut] = await order(lab.page, { model: '/models/split/' });
    assert.equal(cut.error?.code, 'download-failed');
    assert.match(cut.error?.message ?? '', /shard-001\.bin/);
    lab.site.meddle = undefined;
    lab.site.asked = [];
    await lab.page.reload();
    const [resumed] = await order(lab.page, { model: '/models/split/', drawings: [{ ...APPLE, seed: 1 }] });
    assert.equal(resumed.error, undefined);
    assertHonest(resumed.progress);
    assert.equal(lab.site.countOf('shard-000.bin'), 0);
    assert.equal(lab.site.countOf('shard-001.bin'), 1);
    const [whole] = await order(lab.page, { model: TINY, drawings: [{ ...APPLE, seed: 1 }] });
    assert.deepEqual(resumed.hashes, whole.hashes);
  });

  it('stops at once when told to and keeps what was whole', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 2);
    publish(lab.site, '/models/stopped/', bundle);
    lab.site.meddle = (request, response) => {
      if (!request.url?.endsWith('shard-001.bin')) return false;
      response.writeHead(200).write(bundle.shards[1].subarray(0, 1000));
      return true;
    };
    const outcome = await lab.page.evaluate(async () => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const controller = new AbortController();
      const code = await Inkbloom.load({
        model: '/models/stopped/',
        device: 'cpu',
        signal: controller.signal,
        onProgress: (event) => event.phase === 'upload' && controller.abort(),
      }).then(() => 'loaded', (error) => error.code);
      return { code, list: await Inkbloom.models.list() };
    });
    assert.equal(outcome.code, 'aborted');
    assert.deepEqual(outcome.list.map(({ bytes, complete }) => [bytes, complete]), [[bundle.shards[0].length, false]]);
    await noWorkers(lab.page);
  });

  it('refuses a shard with a flipped byte and fetches it again', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 2);
    publish(lab.site, '/models/flipped/', bundle);
    const flipped = Buffer.from(bundle.shards[1]);
    flipped[1234] ^= 1;
    lab.site.files.set('/models/flipped/shard-001.bin', flipped);
    const [refused] = await order(lab.page, { model: '/models/flipped/' });
    assert.equal(refused.error?.code, 'corrupt-weights');
    assert.match(refused.error?.message ?? '', /shard-001\.bin/);
    assert.equal(lab.site.countOf('shard-001.bin'), 2);
    publish(lab.site, '/models/flipped/', bundle);
    lab.site.asked = [];
    const [mended] = await order(lab.page, { model: '/models/flipped/', drawings: [APPLE] });
    assert.equal(mended.error, undefined);
    assert.deepEqual([lab.site.countOf('shard-000.bin'), lab.site.countOf('shard-001.bin')], [0, 1]);
  });

  it('goes on in memory when the browser has no room, and says so', async () => {
    const session = await lab.page.context().newCDPSession(lab.page);
    await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(lab.site.url).origin, quotaSize: 20_000 });
    const [report] = await order(lab.page, { model: TINY, drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.equal(report.hashes.length, 1);
    assert.equal(report.stored, false);
    assert.match(report.storageNote ?? '', /refuses to store the model \(there is no room left\)/);
    assert.equal(report.progress.filter(({ phase }) => phase === 'notice').length, 1);
  });

  it('goes on in memory when the browser denies storage altogether', async () => {
    lab.site.files.set('/deny.js', "Object.defineProperty(self, 'indexedDB', { get() { throw new DOMException('Access is denied.', 'SecurityError'); } });");
    lab.site.files.set('/worker-without-storage.js', "import './deny.js'; import './pkg/worker.js';");
    const [report] = await order(lab.page, { model: TINY, workerUrl: '/worker-without-storage.js', drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.equal(report.stored, false);
    assert.match(report.storageNote ?? '', /Access is denied/);
  });

  /** What breaks on the way, as a script that runs before the worker. @type {[string, string, RegExp][]} */
  const broken = [
    ['refuses the second shard', "let puts = 0; const { put } = IDBObjectStore.prototype; IDBObjectStore.prototype.put = function (...args) { puts += 1; if (puts > 1) throw new DOMException('Failed to write blobs.', 'DataError'); return put.apply(this, args); };", /Failed to write blobs/],
    ['fails to open', "indexedDB.open = () => { throw new DOMException('Internal error opening backing store.', 'UnknownError'); };", /Internal error opening backing store/],
    ['never answers', 'const { open } = IDBFactory.prototype; IDBFactory.prototype.open = function (...args) { const request = open.apply(this, args); request.addEventListener = () => {}; return request; };', /it did not answer/],
  ];
  for (const [what, script, why] of broken) {
    it(`goes on in memory when storage ${what}, and says why`, async () => {
      publish(lab.site, '/models/split/', splitBundle(readBundle('sticker_tiny'), 3));
      lab.site.files.set('/break.js', script);
      lab.site.files.set('/worker-with-broken-storage.js', "import './break.js'; import './pkg/worker.js';");
      const [report] = await order(lab.page, { model: '/models/split/', workerUrl: '/worker-with-broken-storage.js', drawings: [APPLE] });
      assert.equal(report.error, undefined);
      assert.equal(report.hashes.length, 1);
      assert.equal(report.stored, false);
      assert.match(report.storageNote ?? '', why);
      assertHonest(report.progress);
    });
  }

  it('draws with what is stored whole while new weights arrive under old names, and says so', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 2);
    publish(lab.site, '/models/updated/', bundle);
    const [before] = await order(lab.page, { model: '/models/updated/', drawings: [{ ...APPLE, seed: 1 }] });
    assert.equal(before.error, undefined);
    assert.equal(before.updateNote, undefined);
    // The new manifest is there; a cache on the way still has the old second shard.
    const changed = Buffer.from(bundle.shards[1]);
    changed[0] ^= 1;
    const shards = [bundle.manifest.shards[0], { ...bundle.manifest.shards[1], sha256: sha256(changed) }];
    const next = { manifest: { ...bundle.manifest, shards }, shards: [bundle.shards[0], changed] };
    publish(lab.site, '/models/updated/', { manifest: next.manifest, shards: bundle.shards });
    await lab.page.reload();
    const [during] = await order(lab.page, { model: '/models/updated/', drawings: [{ ...APPLE, seed: 1 }] });
    assert.equal(during.error, undefined);
    assert.deepEqual(during.hashes, before.hashes);
    assert.match(during.updateNote ?? '', /^An update of the model is on its way.*shard-001\.bin/);
    assert.deepEqual(during.progress.flatMap((event) => (event.phase === 'notice' ? [event.code] : [])), ['update']);
    assertHonest(during.progress);
    publish(lab.site, '/models/updated/', next);
    await lab.page.reload();
    const [after] = await order(lab.page, { model: '/models/updated/', drawings: [{ ...APPLE, seed: 1 }] });
    assert.equal(after.error, undefined);
    assert.equal(after.updateNote, undefined);
  });

  it('asks with a token, where a redirect leads to, and does not keep the token', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 2);
    publish(lab.site, '/releases/7/', bundle);
    lab.site.meddle = (request, response) => {
      const url = new URL(String(request.url), lab.site.url);
      if (url.pathname === '/models/latest/manifest.json') response.writeHead(302, { location: '/releases/7/manifest.json' }).end();
      else if (url.pathname.endsWith('.bin') && url.searchParams.get('token') !== 'abc') response.writeHead(403).end();
      else return false;
      return true;
    };
    const [report] = await order(lab.page, { model: '/models/latest/?token=abc', drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.deepEqual(lab.site.asked.filter((path) => path.includes('.bin')), ['/releases/7/shard-000.bin?token=abc', '/releases/7/shard-001.bin?token=abc']);
    const kept = await lab.page.evaluate(async () => {
      const open = indexedDB.open('inkbloom');
      await new Promise((resolve) => (open.onsuccess = resolve));
      const all = await Promise.all(['models', 'shards'].map((store) => new Promise((resolve) => {
        open.result.transaction(store).objectStore(store).getAllKeys().onsuccess = ({ target }) => resolve(/** @type {IDBRequest} */ (target).result);
      })));
      open.result.close();
      return JSON.stringify(all);
    });
    assert.match(kept, /models\/latest\//);
    assert.ok(!kept.includes('abc'), kept);
  });

  it('needs neither eval nor COOP/COEP, and breaks no rule of a strict policy', async () => {
    const response = await lab.page.goto(`${lab.site.url}lab.html`);
    assert.match(response?.headers()['content-security-policy'] ?? '', /script-src 'self' 'wasm-unsafe-eval';/);
    /** @type {string[]} */
    const violations = [];
    lab.page.on('console', (message) => {
      if (/Content Security Policy/i.test(message.text())) violations.push(message.text());
    });
    assert.equal(await lab.page.evaluate(() => globalThis.crossOriginIsolated), false);
    const [report] = await order(lab.page, { model: TINY, drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.deepEqual(violations, []);
    const evaluated = lab.page.waitForEvent('pageerror');
    lab.site.files.set('/eval.js', "new Function('1')();");
    await lab.page.evaluate(() => {
      const script = document.createElement('script');
      script.src = '/eval.js';
      document.body.append(script);
    });
    assert.equal((await evaluated).name, 'EvalError', 'the policy is not enforced');
  });
});

describe('what is wrong with a model', () => {
  /** @type {[string, (bundle: import('./support/bundles.js').Bundle) => void, RegExp][]} */
  const cases = [
    ['a version of tomorrow', ({ manifest }) => { manifest.version = 99; }, /version.*99/],
    ['a missing tensor', ({ manifest }) => { manifest.tensors.splice(manifest.tensors.findIndex(({ name }) => name.endsWith('proj_out.weight')), 1); }, /proj_out\.weight/],
    ['a wrong shape', ({ manifest }) => {
      const tensor = manifest.tensors.find(({ name }) => name.endsWith('proj_out.bias'));
      if (tensor) {
        tensor.shape = [tensor.shape[0] - 1];
        tensor.parts[0].rows -= 1;
      }
    }, /proj_out\.bias/],
    ['overlapping ranges', ({ manifest }) => { manifest.tensors[1].parts[0].offset = manifest.tensors[0].parts[0].offset; }, /overlap/],
    ['a range beyond its shard', ({ manifest }) => { manifest.tensors[0].parts[0].offset = manifest.shards[0].size - 1; }, /shard-000\.bin|beyond|reach/],
  ];
  for (const [what, change, message] of cases) {
    it(`${what} is told by name, before any download, and nothing is kept`, async () => {
      const bundle = readBundle('sticker_tiny');
      change(bundle);
      publish(lab.site, '/models/bad/', bundle);
      const [report] = await order(lab.page, { model: '/models/bad/' });
      assert.equal(report.error?.code, 'bad-model');
      assert.match(report.error?.message ?? '', message);
      assert.match(report.error?.message ?? '', /\/models\/bad\/manifest\.json/);
      assert.equal(lab.site.countOf('.bin'), 0);
      const stored = await lab.page.evaluate(async () => {
        const entry = '/pkg/index.js';
        return (await import(entry)).Inkbloom.models.list();
      });
      assert.deepEqual(stored, []);
    });
  }

  it('a manifest that is none is told', async () => {
    lab.site.files.set('/models/broken/manifest.json', '{"format": ');
    const [{ error }] = await order(lab.page, { model: '/models/broken/' });
    assert.equal(error?.code, 'bad-model');
    assert.match(error?.message ?? '', /not valid JSON/);
  });

  it('a web page in place of a file is told, with its address', async () => {
    const bundle = splitBundle(readBundle('sticker_tiny'), 2);
    for (const file of ['manifest.json', 'shard-001.bin']) {
      publish(lab.site, '/models/html/', bundle);
      lab.site.files.set(`/models/html/${file}`, '<!doctype html><title>Welcome</title>');
      const [{ error }] = await order(lab.page, { model: '/models/html/' });
      assert.equal(error?.code, 'download-failed');
      assert.ok(error?.message.startsWith(`${lab.site.url}models/html/${file} could not be downloaded: the address answered with a web page, so the file is probably not there`), error?.message);
    }
  });

  it('a missing model is told with its address', async () => {
    const [{ error }] = await order(lab.page, { model: '/models/nowhere/' });
    assert.equal(error?.code, 'download-failed');
    assert.match(error?.message ?? '', /models\/nowhere\/manifest\.json .*HTTP 404/);
  });
});

describe('workers', () => {
  it('that are not there are told', async () => {
    const [{ error }] = await order(lab.page, { model: TINY, workerUrl: '/pkg/nowhere.js' });
    assert.equal(error?.code, 'unsupported');
    assert.match(error?.message ?? '', /worker/);
  });

  it('take the wasm from where they are told', async () => {
    const [{ error }] = await order(lab.page, { model: TINY, wasmUrl: '/elsewhere/inkbloom_bg.wasm' });
    assert.equal(error, undefined);
    assert.deepEqual(lab.site.asked.filter((path) => path.endsWith('.wasm')), ['/elsewhere/inkbloom_bg.wasm']);
    const [{ error: missing }] = await order(lab.page, { model: TINY, wasmUrl: '/elsewhere/nowhere.wasm' });
    assert.equal(missing?.code, 'download-failed');
    assert.match(missing?.message ?? '', /elsewhere\/nowhere\.wasm .*HTTP 404/);
  });

  it('of another origin are told', async () => {
    const [{ error }] = await order(lab.page, { model: TINY, workerUrl: 'https://example.org/worker.js' });
    assert.equal(error?.code, 'unsupported');
    assert.match(error?.message ?? '', /workerUrl/);
  });

  it('that crash are replaced at the next drawing, with the model from the store', async () => {
    // The engine cannot be made to crash from outside; a trap that surfaces beside it is what a panic looks like.
    lab.site.files.set('/crash.js', `addEventListener('message', (event) => {
      if (event.data.request?.prompt !== 'crash') return;
      event.stopImmediatePropagation();
      setTimeout(() => { throw new WebAssembly.RuntimeError('unreachable'); });
    });`);
    lab.site.files.set('/worker-that-crashes.js', "import './crash.js'; import './pkg/worker.js';");
    const [crashed, next] = await order(lab.page, { model: TINY, workerUrl: '/worker-that-crashes.js', drawings: [{ prompt: 'crash' }, { ...APPLE, seed: 3 }] });
    assert.equal(crashed.error?.code, 'device-lost');
    assert.match(crashed.error?.message ?? '', /unreachable/);
    assert.equal(next.error, undefined);
    assert.equal(next.hashes.length, 1);
    assert.equal(lab.site.countOf('.bin'), readBundle('sticker_tiny').shards.length, 'the model was downloaded again');
  });

  it('are gone after dispose', async () => {
    const [running, late] = await lab.page.evaluate(async (model) => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model, device: 'cpu' });
      const running = ink.generate({ prompt: 'a red apple', steps: 50 }).catch((reason) => reason.code);
      await ink.dispose();
      const late = await ink.generate({ prompt: 'a red apple' }).catch((reason) => reason.code);
      return [await running, late];
    }, TINY);
    assert.deepEqual([running, late], ['aborted', 'bad-input']);
    await noWorkers(lab.page);
  });
});

describe('a lost GPU', () => {
  it('is told, and the next drawing has a new one', async () => {
    // A browser of its own: its GPU process is about to die.
    const victim = await launch();
    try {
      const own = await openLab(victim, lab.site);
      const draw = () => own.evaluate(async (model) => {
        const entry = '/pkg/index.js';
        /** @type {typeof import('../../pkg/src/index.js')} */
        const { Inkbloom } = await import(entry);
        const kept = /** @type {{ ink?: InstanceType<typeof Inkbloom> }} */ (globalThis);
        kept.ink ??= await Inkbloom.load({ model, device: 'gpu' });
        return kept.ink.generate({ prompt: 'a red apple', seed: 1 }).then(({ images }) => images[0].data.join(), (error) => error.code);
      }, TINY);
      const first = await draw();
      const session = await victim.newBrowserCDPSession();
      const { processInfo } = await session.send('SystemInfo.getProcessInfo');
      const gpu = processInfo.find(({ type }) => type === 'GPU');
      assert.ok(gpu, 'the browser has no GPU process');
      process.kill(gpu.id, 'SIGKILL');
      assert.equal(await draw(), 'device-lost');
      assert.ok(await draw() === first, 'the new device drew something else');
    } finally {
      await victim.close();
    }
  });
});

describe('a GPU in software only', () => {
  it('is passed over by auto, which says so: the CPU is many times faster', async () => {
    const [report] = await order(lab.page, { model: TINY, device: 'auto', drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.equal(report.device?.kind, 'cpu');
    assert.match(report.device?.note ?? '', /software/);
  });
});

describe('without WebGPU', () => {
  /** @type {import('playwright-core').Browser} */
  let plain;
  before(async () => {
    plain = await launch({ gpu: false });
  });
  after(() => plain?.close());

  it('draws on the CPU and says why', async () => {
    const own = await openLab(plain, lab.site);
    const [report] = await order(own, { model: TINY, device: 'auto', drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.equal(report.device?.kind, 'cpu');
    assert.match(report.device?.note ?? '', /WebGPU/);
    await own.context().close();
  });

  it('says so when the GPU was asked for', async () => {
    const own = await openLab(plain, lab.site);
    const [{ error }] = await order(own, { model: TINY, device: 'gpu' });
    assert.equal(error?.code, 'unsupported');
    assert.match(error?.message ?? '', /WebGPU/);
    await own.context().close();
  });
});
