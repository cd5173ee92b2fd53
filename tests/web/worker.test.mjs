// Workers that do not start, that die without a word, and that are shared: the package in a real browser.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { noWorkers, order, useLab } from './support/lab.js';

const TINY = '/bundles/sticker_tiny/';
const APPLE = { prompt: '3d emoji of a red apple', steps: 2, seed: 3 };
const PAGE = '<!doctype html><title>Welcome</title>';

const lab = useLab();

/** @param {string} name */
const built = (name) => readFileSync(fileURLToPath(new URL(`../../pkg/dist/${name}`, import.meta.url)));

/**
 * Answers one path with something else.
 *
 * @param {string} path
 * @param {number} status
 * @param {string} type
 * @param {string | Buffer} body
 */
function answer(path, status, type, body) {
  lab.site.meddle = (request, response) => {
    if (request.url !== path) return false;
    response.writeHead(status, { 'content-type': type }).end(body);
    return true;
  };
}

/** Loads with the module at an address and tells the error's code and message. @param {string} entry */
function loadFrom(entry) {
  return lab.page.evaluate(async ([entry, model]) => {
    const { Inkbloom } = await import(entry);
    return Inkbloom.load({ model, device: 'cpu' })
      .then((/** @type {import('../../pkg/src/index.js').Inkbloom} */ ink) => ink.dispose())
      .then(() => undefined, (/** @type {import('../../pkg/src/index.js').InkbloomError} */ { code, message }) => ({ code, message }));
  }, [entry, TINY]);
}

describe('a worker that cannot start is told with its address and the likely cause', () => {
  /** @type {[string, number, string, string, RegExp][]} */
  const causes = [
    ['it is missing', 404, 'text/plain', 'no', /there is no such file \(HTTP 404\)/],
    ['a web page stands in for it', 200, 'text/html', PAGE, /the address answered with a web page, so the file is probably not there/],
    ['a web page is served as a script', 200, 'text/javascript', PAGE, /the address answered with a web page/],
    ['it is served as text', 200, 'text/plain', 'postMessage(1)', /it is served as text\/plain; serve it as text\/javascript/],
    ['it is broken', 200, 'text/javascript', 'const = 3', /Content-Security-Policy/],
  ];
  for (const [what, status, type, body, message] of causes) {
    it(what, async () => {
      answer('/pkg/worker.js', status, type, body);
      const [{ error }] = await order(lab.page, { model: TINY });
      assert.equal(error?.code, 'unsupported');
      assert.match(error?.message ?? '', message);
      assert.ok(error?.message.includes(`${lab.site.url}pkg/worker.js did not start`), error?.message);
    });
  }

  it('the page asks for Cross-Origin-Embedder-Policy and the worker is served without', async () => {
    lab.site.meddle = (request, response) => {
      if (request.url === '/lab.html') response.setHeader('cross-origin-embedder-policy', 'require-corp');
      return false;
    };
    await lab.page.reload();
    const [{ error }] = await order(lab.page, { model: TINY });
    assert.equal(error?.code, 'unsupported');
    assert.match(error?.message ?? '', /pkg\/worker\.js did not start: .*Cross-Origin-Embedder-Policy/);
  });

  it('the page is in a sandboxed frame', async () => {
    lab.site.meddle = (request, response) => {
      // A frame without an origin needs this even for its own site.
      response.setHeader('access-control-allow-origin', '*');
      if (request.url !== '/frame.html') return false;
      response.writeHead(200, { 'content-type': 'text/html' }).end(`<!doctype html><iframe sandbox="allow-scripts" src="/lab.html"></iframe>`);
      return true;
    };
    await lab.page.goto(`${lab.site.url}frame.html`);
    const error = await lab.page.frames()[1].evaluate(async (model) => {
      const entry = '/pkg/index.js';
      const { Inkbloom } = await import(entry);
      return Inkbloom.load({ model }).catch((/** @type {import('../../pkg/src/index.js').InkbloomError} */ { code, message }) => ({ code, message }));
    }, TINY);
    assert.equal(error.code, 'unsupported');
    assert.match(error.message, /pkg\/worker\.js could not be started .*sandboxed frame.*allow-same-origin/);
  });
});

describe("in the deps folder of Vite's dev server", () => {
  const entry = '/node_modules/.vite/deps/inkbloom.js?v=1234abcd';

  it('the worker is found in the package itself', async () => {
    lab.site.files.set('/node_modules/.vite/deps/inkbloom.js', built('index.js'));
    for (const name of ['worker.js', 'inkbloom_bg.wasm']) lab.site.files.set(`/node_modules/inkbloom/dist/${name}`, built(name));
    try {
      assert.equal(await loadFrom(entry), undefined);
      assert.ok(lab.site.asked.includes('/node_modules/inkbloom/dist/worker.js'));
    } finally {
      lab.site.files.delete('/node_modules/inkbloom/dist/worker.js');
    }
    // Where the package lies elsewhere, the error says what to do.
    const error = await loadFrom(entry);
    assert.equal(error?.code, 'unsupported');
    assert.match(error?.message ?? '', /node_modules\/\.vite\/deps\/worker\.js did not start: .*optimizeDeps: \{ exclude: \['inkbloom'\] \}/);
  });
});

describe('a wasm that is a web page', () => {
  for (const type of ['text/html; charset=utf-8', 'application/wasm']) {
    it(`is told as such when it is served as ${type}`, async () => {
      answer('/pkg/inkbloom_bg.wasm', 200, type, PAGE);
      const [{ error }] = await order(lab.page, { model: TINY });
      assert.equal(error?.code, 'download-failed');
      assert.match(error?.message ?? '', /pkg\/inkbloom_bg\.wasm could not be downloaded: the address answered with a web page, so the file is probably not there/);
    });
  }
});

/**
 * A worker that closes itself when it is told to do something.
 *
 * @param {'load' | 'generate'} what
 * @param {number} times how many of them do so, one after the other
 */
function mortalWorker(what, times) {
  lab.site.files.set('/worker-that-dies.js', "import './die.js'; import './pkg/worker.js';");
  let deaths = 0;
  lab.site.meddle = (request, response) => {
    if (request.url !== '/die.js') return false;
    deaths += 1;
    const body = deaths <= times ? `addEventListener('message', (event) => event.data.type === '${what}' && (event.stopImmediatePropagation(), close()));` : '';
    response.writeHead(200, { 'content-type': 'text/javascript', 'cache-control': 'no-store' }).end(body);
    return true;
  };
  return '/worker-that-dies.js';
}

describe('a worker that dies without a word', () => {
  for (const what of /** @type {const} */ (['load', 'generate'])) {
    it(`is started again once and does what was asked: ${what}`, async () => {
      const [report] = await order(lab.page, { model: TINY, workerUrl: mortalWorker(what, 1), drawings: [APPLE] });
      assert.equal(report.error, undefined);
      assert.equal(report.hashes.length, 1);
      assert.deepEqual(report.progress.filter(({ phase }) => phase === 'notice').map((event) => 'code' in event && event.code), ['restart']);
      const [plain] = await order(lab.page, { model: TINY, drawings: [APPLE] });
      assert.deepEqual(report.hashes, plain.hashes);
    });

    it(`is told when it dies again: ${what}`, async () => {
      const began = Date.now();
      const [report] = await order(lab.page, { model: TINY, workerUrl: mortalWorker(what, 2), drawings: [APPLE] });
      assert.equal(report.error?.code, 'device-lost');
      assert.match(report.error?.message ?? '', /stopped without a word, was started again, and stopped again/);
      assert.ok(Date.now() - began < 20_000, 'it took too long to notice');
    });
  }

  it('does not hold up the next drawing, whether it was told or stopped', async () => {
    const [dead, next] = await order(lab.page, { model: TINY, workerUrl: mortalWorker('generate', 2), drawings: [APPLE, APPLE] });
    assert.equal(dead.error?.code, 'device-lost');
    assert.equal(next.error, undefined);

    const outcome = await lab.page.evaluate(async ([model, workerUrl]) => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model, workerUrl, device: 'cpu' });
      const stop = new AbortController();
      const stopped = ink.generate({ prompt: 'a red apple', signal: stop.signal }).catch(({ code }) => code);
      stop.abort();
      const next = await ink.generate({ prompt: 'a red apple', steps: 1 }).then(({ images }) => images.length, ({ code }) => code);
      await ink.dispose();
      return [await stopped, next];
    }, [TINY, mortalWorker('generate', 1)]);
    assert.deepEqual(outcome, ['aborted', 1]);
  });

  it('while nothing is asked of it is replaced at the next drawing', async () => {
    const drawn = await lab.page.evaluate(async ([model, workerUrl]) => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const codes = /** @type {string[]} */ ([]);
      const ink = await Inkbloom.load({ model, workerUrl, device: 'cpu', onProgress: (event) => event.phase === 'notice' && codes.push(event.code) });
      const channel = new BroadcastChannel('die');
      channel.postMessage('now');
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const { images } = await ink.generate({ prompt: 'a red apple', steps: 1 });
      await ink.dispose();
      return [images.length, codes.length];
    }, [TINY, workerThatDiesWhenTold()]);
    assert.deepEqual(drawn, [1, 0]);
  });

  it('is not mistaken for one that computes for long', async () => {
    lab.site.files.set('/worker-that-computes.js', "import './compute.js'; import './pkg/worker.js';");
    lab.site.files.set('/compute.js', "addEventListener('message', ({ data }) => { const end = Date.now() + 5000; while (data.type === 'generate' && Date.now() < end); });");
    const [report] = await order(lab.page, { model: TINY, workerUrl: '/worker-that-computes.js', drawings: [APPLE] });
    assert.equal(report.error, undefined);
    assert.equal(lab.site.countOf('/compute.js'), 1);
    assert.ok(report.progress.every(({ phase }) => phase !== 'notice'));
  });
});

it('a page that is not served securely has no locks, and draws all the same', async () => {
  const site = new URL(lab.site.url);
  site.hostname = '0.0.0.0';
  await lab.page.goto(`${site}lab.html`);
  const outcome = await lab.page.evaluate(async (model) => {
    const entry = '/pkg/index.js';
    /** @type {typeof import('../../pkg/src/index.js')} */
    const { Inkbloom } = await import(entry);
    const ink = await Inkbloom.load({ model, device: 'cpu' });
    const { images } = await ink.generate({ prompt: 'a red apple', steps: 1 });
    await ink.dispose();
    return { locks: 'locks' in navigator, images: images.length };
  }, TINY);
  assert.deepEqual(outcome, { locks: false, images: 1 });
});

function workerThatDiesWhenTold() {
  lab.site.files.set('/worker-that-obeys.js', "import './obey.js'; import './pkg/worker.js';");
  lab.site.files.set('/obey.js', "new BroadcastChannel('die').onmessage = () => close();");
  return '/worker-that-obeys.js';
}

describe('loads of the same model', () => {
  /** Runs a script in the page with the package; tells what it returns and what was not handled. @param {string} body */
  const script = async (body) => {
    lab.site.files.set('/script.js', `import { Inkbloom } from '/pkg/index.js';
      const unhandled = [];
      addEventListener('unhandledrejection', ({ reason }) => unhandled.push(String(reason)));
      const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      const load = (options) => Inkbloom.load({ model: '${TINY}', device: 'cpu', ...options });
      const draw = (ink) => ink.generate({ prompt: 'a red apple', steps: 1, seed: 1 });
      const codeOf = (work) => work.then(() => 'fine', ({ code }) => code);
      globalThis.outcome = (async () => { ${body} })().then(async (value) => { await pause(50); return { value, unhandled }; });`);
    await lab.page.addScriptTag({ url: '/script.js', type: 'module' });
    await lab.page.waitForFunction(() => 'outcome' in globalThis);
    return lab.page.evaluate(() => /** @type {{ outcome: Promise<{ value: any, unhandled: string[] }> }} */ (/** @type {unknown} */ (globalThis)).outcome);
  };

  it('share one engine until the last of them is disposed of', async () => {
    const { value, unhandled } = await script(`
      const events = [];
      const [one, other] = await Promise.all([load(), load({ device: null, memoryMiB: null, signal: null, onProgress: null, device: 'cpu' })]);
      const late = await load({ onProgress: ({ phase }) => events.push(phase) });
      await one.dispose();
      await late.dispose();
      const { images } = await draw(other);
      globalThis.other = other;
      return { events, drawn: images.length, gone: await codeOf(draw(one)) };`);
    assert.deepEqual(value, { events: ['ready'], drawn: 1, gone: 'bad-input' });
    assert.deepEqual(unhandled, []);
    assert.equal(lab.page.workers().length, 1);
    assert.equal(lab.site.countOf('manifest.json'), 1);
    await lab.page.evaluate(() => /** @type {any} */ (globalThis).other.dispose());
    await noWorkers(lab.page);
  });

  it('survive effects that are run twice, in every way of writing them', async () => {
    const { value, unhandled } = await script(`
      const effects = {
        // As many write it: what is still loading cannot be disposed of.
        careless() { let ink; load().then((loaded) => (ink = loaded)); return () => ink?.dispose(); },
        waiting() { const loading = load(); return () => loading.then((ink) => ink.dispose()); },
        aborting() { const stop = new AbortController(); load({ signal: stop.signal }).catch(() => {}); return () => stop.abort(); },
      };
      for (const effect of Object.values(effects)) {
        effect()();
        effect();
      }
      const ink = await load();
      await pause(200);
      return (await draw(ink)).images.length;`);
    assert.equal(value, 1);
    assert.deepEqual(unhandled, []);
    assert.equal(lab.page.workers().length, 1);
    assert.equal(lab.site.countOf('manifest.json'), 1);
  });

  it('can be given up one by one while they load, and all of them stop the download', async () => {
    const { value, unhandled } = await script(`
      const [first, second] = [new AbortController(), new AbortController()];
      const codes = [codeOf(load({ signal: first.signal })), codeOf(load({ signal: second.signal }))];
      first.abort();
      await pause(100);
      const still = await Promise.race([codes[1], 'waiting']);
      second.abort();
      return [await codes[0], still, await codes[1]];`);
    assert.deepEqual([value[0], unhandled], ['aborted', []]);
    if (value[1] === 'waiting') assert.equal(value[2], 'aborted');
    await noWorkers(lab.page);
  });

  it('may be disposed of while the engine is started anew', async () => {
    const workerUrl = workerThatDiesWhenTold();
    const { value, unhandled } = await script(`
      const ink = await load({ workerUrl: '${workerUrl}' });
      new BroadcastChannel('die').postMessage('now');
      await pause(500);
      const drawing = codeOf(draw(ink));
      await pause(5);
      await ink.dispose();
      return drawing;`);
    assert.equal(value, 'aborted');
    assert.deepEqual(unhandled, []);
    await noWorkers(lab.page);
  });

  it('need nothing that browsers in use do not have', async () => {
    const { value, unhandled } = await script(`
      delete AbortSignal.any;
      const ink = await load();
      const stop = new AbortController();
      const drawn = await codeOf(ink.generate({ prompt: 'x', steps: 1, signal: stop.signal }));
      const stopped = codeOf(ink.generate({ prompt: 'x', steps: 50, signal: stop.signal }));
      stop.abort();
      return [drawn, await stopped, await ink.dispose()];`);
    assert.deepEqual(value.slice(0, 2), ['fine', 'aborted']);
    assert.deepEqual(unhandled, []);
  });
});
