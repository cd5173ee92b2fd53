// What callers may pass, and what they are told when it is wrong.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromPlainError, isFatal, toPlainError } from '../../pkg/src/errors.js';
import { resolveModel, resolveShard, shownAddress } from '../../pkg/src/model-url.js';
import { parseSeed, toEngineRequest } from '../../pkg/src/request.js';
import { describeProgress } from '../../pkg/src/words.js';
import { withStyle } from '../../www/words.js';

describe('seeds', () => {
  it('are taken as number, bigint or decimal string', () => {
    assert.equal(parseSeed(7), '7');
    assert.equal(parseSeed(7n), '7');
    assert.equal(parseSeed(' 007 '), '7');
    assert.equal(parseSeed('18446744073709551615'), '18446744073709551615');
  });

  it('are new each time when they are -1, as in other tools', () => {
    for (const seed of [-1, -1n, '-1', ' -1 ']) {
      const drawn = Array.from({ length: 4 }, () => parseSeed(seed));
      assert.ok(drawn.every((text) => /^\d{1,10}$/.test(text)), drawn.join());
      assert.ok(new Set(drawn).size > 1, drawn.join());
    }
  });

  for (const seed of [-2, 1.5, NaN, 2 ** 53, 2n ** 64n, -2n, '-2', '18446744073709551616', '0x10', '', 'seven', null, {}]) {
    it(`refuse ${typeof seed} ${String(seed)}`, () => {
      assert.throws(() => parseSeed(seed), { code: 'bad-input', message: /whole number from 0 to 18446744073709551615/ });
    });
  }
});

describe('requests', () => {
  it('keep only what was given, and always have a seed', () => {
    const { seed, ...rest } = toEngineRequest({ prompt: 'a red apple' });
    assert.match(String(seed), /^\d{1,10}$/);
    assert.deepEqual(rest, { prompt: 'a red apple', preview: false, watched: false });
    assert.deepEqual(
      toEngineRequest({ prompt: 'x', negativePrompt: 'y', seed: 1, steps: 4, guidance: 1, eta: 0.5, width: 64, height: 32, count: 2, onStep() {} }),
      { prompt: 'x', negativePrompt: 'y', seed: '1', steps: 4, guidance: 1, eta: 0.5, width: 64, height: 32, count: 2, preview: true, watched: true },
    );
  });

  it('take null for left out, whatever the option', () => {
    const names = ['negativePrompt', 'seed', 'steps', 'guidance', 'width', 'height', 'count', 'scheduler', 'eta', 'init', 'strength', 'mask', 'preview', 'noise', 'raw', 'signal', 'onStep'];
    const nulls = Object.fromEntries(names.map((name) => [name, null]));
    const { seed, ...rest } = toEngineRequest(/** @type {any} */ ({ prompt: 'x', ...nulls }));
    assert.match(String(seed), /^\d{1,10}$/);
    assert.deepEqual(rest, { prompt: 'x', preview: false, watched: false });
  });

  it('need no prompt where a picture says what to draw', () => {
    const picture = { width: 1, height: 1, data: new Uint8ClampedArray(4) };
    for (const prompt of ['', '  ', null, undefined]) {
      const request = toEngineRequest(/** @type {any} */ ({ prompt, init: picture, mask: picture, seed: 1 }));
      assert.deepEqual([request.prompt?.trim() ?? '', request.init, request.mask], ['', picture, picture]);
    }
  });

  it('leave options to the core, as something that can cross to it', () => {
    const { seed, ...rest } = toEngineRequest(/** @type {any} */ ({ prompt: 7, steps: '4', guidance: NaN, count: [2], scheduler() {}, unknown: true }));
    assert.match(String(seed), /^\d{1,10}$/);
    assert.deepEqual({ ...rest, scheduler: typeof rest.scheduler }, { prompt: 7, steps: '4', guidance: 'NaN', count: '2', scheduler: 'string', unknown: true, preview: false, watched: false });
    structuredClone(rest);
  });

  /** @type {[string, object, RegExp][]} */
  const wrong = [
    ['noise of another kind', { prompt: 'x', noise: [1, 2] }, /`noise`/],
    ['a picture of another kind', { prompt: 'x', init: 'cat.png' }, /`init` must be an ImageData/],
    ['a seed of another kind', { prompt: 'x', seed: 1.5 }, /`seed`/],
  ];
  for (const [what, options, message] of wrong) {
    it(`refuse ${what}`, () => {
      assert.throws(() => toEngineRequest(/** @type {import('../../pkg/src/request.js').GenerateOptions} */ (options)), { code: 'bad-input', message });
    });
  }
});

describe('model addresses', () => {
  const page = 'https://example.org/art/index.html';
  it('are folders or manifests, relative to the page', () => {
    const expected = { id: 'https://example.org/art/models/sticker/', manifestUrl: 'https://example.org/art/models/sticker/manifest.json' };
    assert.deepEqual(resolveModel('models/sticker/', page), expected);
    assert.deepEqual(resolveModel('./models/sticker', page), expected);
    assert.deepEqual(resolveModel(new URL('models/sticker/manifest.json', page), page), expected);
  });

  it('refuse what is no address', () => {
    for (const model of ['', 'https://', undefined]) {
      assert.throws(() => resolveModel(/** @type {string} */ (model), page), { code: 'bad-input', message: /`model`/ });
    }
  });

  it('keep a query, which is no part of the id: it may be a token', () => {
    const expected = { id: 'https://host.example/m/', manifestUrl: 'https://host.example/m/manifest.json?token=abc' };
    for (const model of ['https://host.example/m/?token=abc', 'https://host.example/m?token=abc', 'https://host.example/m/manifest.json?token=abc#top']) {
      assert.deepEqual(resolveModel(model, page), expected);
    }
    assert.throws(() => resolveModel('https://me:secret@host.example/m/', page), (error) => {
      const { code, message } = /** @type {import('../../pkg/src/errors.js').InkbloomError} */ (error);
      return code === 'bad-input' && !message.includes('secret');
    });
  });

  /** @type {[string, string, string, string | undefined, string][]} */
  const shards = [
    ['take the query along', 'a.bin', 'https://h.example/m/manifest.json?t=1', undefined, 'https://h.example/m/a.bin?t=1'],
    ['keep a query of their own', 'a.bin?v=2', 'https://h.example/m/manifest.json?t=1', undefined, 'https://h.example/m/a.bin?v=2'],
    ['lie where the manifest was found', 'a.bin', 'https://h.example/m/manifest.json?t=1', 'https://h.example/m/v2/manifest.json?t=1', 'https://h.example/m/v2/a.bin?t=1'],
    ['keep a query that a redirect dropped', 'a.bin', 'https://h.example/m/manifest.json?t=1', 'https://h.example/v2/manifest.json', 'https://h.example/v2/a.bin?t=1'],
    ['take the query that a redirect gave', 'a.bin', 'https://h.example/m/manifest.json?t=1', 'https://cdn.example/m/manifest.json?s=2', 'https://cdn.example/m/a.bin?s=2'],
    ['give another origin no query of ours', 'a.bin', 'https://h.example/m/manifest.json?t=1', 'https://cdn.example/m/manifest.json', 'https://cdn.example/m/a.bin'],
    ['give another origin in the manifest none either', 'https://cdn.example/a.bin', 'https://h.example/m/manifest.json?t=1', undefined, 'https://cdn.example/a.bin'],
    ['may lie elsewhere', '../text/a.bin', 'https://h.example/m/manifest.json', undefined, 'https://h.example/text/a.bin'],
  ];
  for (const [what, file, asked, found, expected] of shards) {
    it(`of shards ${what}`, () => assert.equal(resolveShard(file, asked, found), expected));
  }

  it('in messages are without what may be secret', () => {
    assert.equal(shownAddress('https://host.example/m/a.bin?token=abc#x'), 'https://host.example/m/a.bin?…');
    assert.equal(shownAddress('https://host.example/m/a.bin'), 'https://host.example/m/a.bin');
  });
});

describe('errors', () => {
  it('of the engine keep their code and words', () => {
    const plain = toPlainError(Object.assign(new Error('Width 100 is not a multiple of 8.'), { code: 'bad-input' }));
    assert.deepEqual(plain, { code: 'bad-input', message: 'Width 100 is not a multiple of 8.' });
    assert.equal(fromPlainError(plain).name, 'InkbloomError');
    assert.equal(isFatal(plain), false);
  });

  it('without a code are told apart: a trap, a full heap, a browser that cannot compile', () => {
    assert.equal(toPlainError(new WebAssembly.RuntimeError('unreachable')).code, 'device-lost');
    assert.equal(toPlainError(new WebAssembly.RuntimeError('unreachable'), 2 ** 31).code, 'out-of-memory');
    assert.equal(toPlainError(new RangeError('Array buffer allocation failed')).code, 'out-of-memory');
    assert.equal(toPlainError(new WebAssembly.CompileError('invalid opcode')).code, 'unsupported');
    assert.ok(isFatal(toPlainError('what is this')));
  });
});

describe('words', () => {
  it('for progress are honest about where bytes come from', () => {
    const event = { phase: /** @type {const} */ ('download'), loaded: 1_500_000, total: 3_000_000, file: 'shard-000.bin' };
    assert.deepEqual(describeProgress({ ...event, stored: false }), { text: 'Downloading the model: 1.5 of 3.0 MB', fraction: 0.5 });
    assert.match(describeProgress({ ...event, stored: true }).text, /^Reading the model from this browser/);
  });

  it('for the model carry the style once', () => {
    assert.equal(withStyle('3d emoji', ' a red  apple '), '3d emoji of a red apple');
    assert.equal(withStyle('3d emoji', 'flat emoji of a cat'), 'flat emoji of a cat');
    assert.equal(withStyle('', 'a cat'), 'a cat');
  });
});
