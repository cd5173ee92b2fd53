// Moving pictures: by the package, by the element, and on the page; their files opened again by the browser.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { beforeEach, describe, it } from 'node:test';
import { open } from './support/animations.js';
import { useLab } from './support/lab.js';
import { PATIENCE, TINY, bytesOf, draw, setAdvanced, usePage } from './support/page.js';

describe('the package', () => {
  const lab = useLab();

  /**
   * Moves a disc with a soft rim and saves it.
   *
   * @param {string | undefined} type
   * @param {import('../../pkg/src/index.js').SaveOptions} [options]
   */
  async function saved(type, options) {
    const { bytes, blob, notes } = await lab.page.evaluate(async ({ type, options }) => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model: '/bundles/sticker_tiny/', device: 'cpu' });
      const image = new ImageData(64, 64);
      for (let index = 0; index < 64 * 64; index += 1) {
        const [x, y] = [index % 64, Math.floor(index / 64)];
        const alpha = Math.max(0, Math.min(1, (20 - Math.hypot(x - 28, y - 36)) / 4));
        if (alpha > 0) image.data.set([x * 4, 60, y * 4, 255 * alpha], index * 4);
      }
      const animation = await ink.animate(image, { motion: 'wobble', frames: 8, fps: 10 });
      /** @type {string[]} */
      const notes = [];
      const blob = await animation.toBlob(type, { ...options, onNote: (note) => notes.push(note) });
      await ink.dispose();
      return { bytes: Array.from(new Uint8Array(await blob.arrayBuffer())), blob: blob.type, notes };
    }, { type, options });
    return { seen: await open(lab.page, bytes, blob), notes };
  }

  for (const [type, alphas] of /** @type {[string | undefined, number][]} */ ([[undefined, 20], ['image/apng', 20], ['image/gif', 2]])) {
    it(`saves ${type ?? 'WebP'} with alpha, times and loop`, async () => {
      const { seen, notes } = await saved(type);
      assert.deepEqual(notes, []);
      assert.equal(seen.type, type ?? 'image/webp');
      assert.deepEqual([seen.side, seen.frames, seen.loops, seen.hashes > 4], [64, 8, Infinity, true]);
      assert.deepEqual(seen.times, Array(8).fill(100));
      assert.ok(alphas === 2 ? seen.alphas.length === 2 : seen.alphas.length > alphas, `${seen.alphas.length} alphas`);
    });
  }

  it('keeps a limit by lowering the quality, and says so', async () => {
    const { seen: whole } = await saved('image/webp', { side: 256, quality: 90 });
    const { seen, notes } = await saved('image/webp', { side: 256, quality: 90, maxBytes: Math.floor(whole.size * 0.8) });
    assert.ok(seen.size <= whole.size * 0.8);
    assert.equal(seen.side, 256);
    assert.match(notes[0], /quality was lowered from 90/);
  });

  it('saves a film with alpha, where the browser encodes it', async () => {
    const { bytes, type, frames } = await lab.page.evaluate(async () => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model: '/bundles/sticker_tiny/', device: 'cpu' });
      const image = new ImageData(64, 64);
      for (let index = 0; index < 64 * 64; index += 1) {
        const alpha = Math.max(0, Math.min(1, (20 - Math.hypot((index % 64) - 28, Math.floor(index / 64) - 36)) / 6));
        if (alpha > 0) image.data.set([200, 60, 30, 255 * alpha], index * 4);
      }
      const animation = await ink.animate(image, { motion: 'float', frames: 8, fps: 10 });
      await ink.dispose();
      if (!await animation.canSave('video/webm')) throw new Error('This browser should encode VP9.');
      const film = await animation.toBlob('video/webm');
      return { bytes: Array.from(new Uint8Array(await film.arrayBuffer())), type: film.type, frames: animation.frames.map(({ data }) => Array.from(data)) };
    });
    assert.equal(type, 'video/webm');
    // The site's policy lets no film in; another page has none.
    const other = await lab.page.context().newPage();
    const { duration, off } = await other.evaluate(async ({ bytes, frames }) => {
      const video = Object.assign(document.createElement('video'), { muted: true, src: URL.createObjectURL(new Blob([Uint8Array.from(bytes)], { type: 'video/webm' })) });
      await new Promise((resolve, reject) => {
        video.onloadeddata = resolve;
        video.onerror = () => reject(new Error(video.error?.message));
      });
      const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { willReadFrequently: true }));
      const off = { alpha: 0, colour: 0 };
      /** @param {number[]} frame */
      const compare = (frame) => {
        context.clearRect(0, 0, 64, 64);
        context.drawImage(video, 0, 0);
        const { data } = context.getImageData(0, 0, 64, 64);
        let [alpha, colour, seen] = [0, 0, 0];
        for (let at = 0; at < data.length; at += 4) {
          alpha += Math.abs(data[at + 3] - frame[at + 3]) / (64 * 64);
          if (frame[at + 3] < 250) continue;
          for (let part = 0; part < 3; part += 1) colour += Math.abs(data[at + part] - frame[at + part]);
          seen += 3;
        }
        return { alpha, colour: colour / seen };
      };
      for (const [index, frame] of frames.entries()) {
        video.currentTime = index * 0.1 + 0.05;
        await new Promise((resolve) => { video.onseeked = resolve; });
        // What was sought is shown a moment later on a busy machine, and until then what was before, or nothing.
        let found = compare(frame);
        for (const start = performance.now(); (found.alpha >= 1 || found.colour >= 6) && performance.now() - start < 3000; found = compare(frame)) {
          await new Promise((resolve) => { setTimeout(resolve, 20); });
        }
        off.alpha = Math.max(off.alpha, found.alpha);
        off.colour = Math.max(off.colour, found.colour);
      }
      return { duration: video.duration, off };
    }, { bytes, frames });
    await other.close();
    assert.ok(Math.abs(duration - 0.8) < 0.01, `it lasts ${duration} s`);
    assert.ok(off.alpha < 1 && off.colour < 6, JSON.stringify(off));
  });

  it('saves without loss where libwebp cannot be loaded, and says so', async () => {
    lab.site.meddle = ({ url }, response) => {
      if (!url?.endsWith('webp_enc_simd.wasm')) return false;
      response.writeHead(404).end();
      return true;
    };
    const { seen, notes } = await saved('image/webp');
    assert.equal(seen.frames, 8);
    assert.match(notes[0], /could not be loaded/);
  });

  it('draws what moves, and refuses in words what cannot', async () => {
    const told = await lab.page.evaluate(async () => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model: '/bundles/sticker_tiny/', device: 'cpu' });
      const said = (/** @type {Promise<unknown>} */ work) => work.then(() => 'fine', ({ code, message }) => `${code}: ${message}`);
      const apple = { prompt: 'a red apple', steps: 1, seed: 7 };
      const { images: [image], animations } = await ink.generate({ ...apple, motion: 'spin', frames: 12, fps: 20, count: 2 });
      const still = await ink.generate(apple);
      const wrong = await Promise.all([
        ...[0, 1000].map((frames) => said(ink.animate(image, { motion: 'spin', frames }))),
        said(ink.animate(image, { motion: /** @type {any} */ ('fly') })),
        said(ink.animate(image, {})),
        said(ink.animate(/** @type {any} */ ({}), { motion: 'spin' })),
        said(ink.generate({ ...apple, frames: 8 })),
        said(animations[0].toBlob('video/mp4')),
        said(animations[0].toBlob('video/webm', { side: 512 })),
        said(animations[0].toBlob('image/gif', { maxBytes: 10 })),
        said(animations[0].toBlob('image/webp', { quality: 0 })),
      ]);
      await ink.dispose();
      wrong.push(await said(animations[0].toBlob()));
      return { frames: animations.map(({ frames, frameMs }) => [frames.length, frameMs]), same: String(image.data) === String(still.images[0].data), none: still.animations, wrong };
    });
    assert.deepEqual([told.frames, told.same, told.none], [[[12, 50], [12, 50]], true, []]);
    const words = [/`frames` must be/, /1000 frames cannot be made; give a number from 4 to 100/, /`motion` must be one of "bounce"/, /no `motion`; give one of bounce/,
      /`image` must be an ImageData/, /single pictures; give a motion .*bounce, spin/, /cannot be saved as "video\/mp4" here/, /saved as it is; leave `side` out/, /no quality to lower/, /`quality` must be/, /disposed of/];
    told.wrong.forEach((message, index) => assert.match(message, new RegExp(`^bad-input: .*${words[index].source}`)));
  });
});

describe('<ink-bloom>', () => {
  const lab = useLab();
  const pixels = () => lab.page.evaluate(() => document.querySelector('ink-bloom')?.shadowRoot?.querySelector('canvas')?.toDataURL());

  for (const reducedMotion of /** @type {const} */ (['no-preference', 'reduce'])) {
    it(`plays its loop with motion: ${reducedMotion}`, async () => {
      await lab.page.emulateMedia({ reducedMotion });
      lab.site.files.set('/moving.html', `<!doctype html><meta charset="utf-8"><title>Element</title><script type="module" src="/pkg/element.js"></script>
        <ink-bloom model="/bundles/sticker_tiny/" device="cpu" prompt="a red apple" seed="5" steps="1" frames="16" motion="spin"></ink-bloom>
        <script type="module" src="/moving-test.js"></script>`);
      lab.site.files.set('/moving-test.js', "addEventListener('ink-image', ({ detail }) => { document.title = detail.animations[0].frames.length; });");
      await lab.page.goto(`${lab.site.url}moving.html`);
      await lab.page.waitForFunction(() => document.title === '16');
      const shown = new Set();
      for (let look = 0; look < 12; look += 1) {
        shown.add(await pixels());
        await lab.page.waitForTimeout(90);
      }
      assert.ok(reducedMotion === 'reduce' ? shown.size === 1 : shown.size > 3, `${shown.size} different frames were seen`);
    });
  }
});

describe('what the model draws moving', () => {
  const lab = usePage();
  let { site, page } = lab;
  beforeEach(() => {
    ({ site, page } = lab);
  });

  it('is offered by the page with what it fetches, drawn from the sticker\'s seed, saved, and stopped', async () => {
    await page.goto(`${site.url}?model=/bundles/animatediff_euler/&device=cpu`);
    await page.getByText('Ready.').waitFor(PATIENCE);
    await setAdvanced(page, { steps: 2 });
    await draw(page, 'a red apple');
    const still = await bytesOf(page, '#canvas');
    const side = Math.sqrt(still.length / 4);
    await page.getByRole('button', { name: 'Animate' }).click();
    await page.locator('#drawn-note', { hasText: /as 6 pictures that follow each other. Less than 1 MB more are fetched for it, once/ }).waitFor();
    const fetched = () => site.asked.filter((url) => url.includes('motion_adapter')).length;
    assert.equal(fetched(), 0, 'it was fetched before anybody asked');
    await page.getByRole('radio', { name: 'Drawn by the model' }).check();
    await page.locator('#moving[data-playing=drawn]').waitFor(PATIENCE);
    assert.equal(fetched(), 1);
    assert.ok(await page.locator('#progress').isHidden());

    for (const [button, name, type, wide] of /** @type {[string, string, string, number][]} */ ([
      ['APNG', 'a-red-apple-drawn.png', 'image/png', side],
      ['Save moving sticker', 'a-red-apple-drawn-sticker.webp', 'image/webp', 512],
    ])) {
      const [download] = await Promise.all([page.waitForEvent('download', { timeout: 120_000 }), page.getByRole('button', { name: button, exact: true }).click()]);
      assert.ok(download.suggestedFilename().endsWith(name), download.suggestedFilename());
      const seen = await open(page, Array.from(await readFile(await download.path())), type);
      assert.deepEqual([seen.frames, seen.side, seen.hashes], [6, wide, 6]);
      assert.ok(seen.size <= 500_000);
    }

    await page.getByRole('radio', { name: 'Spin' }).check();
    await page.locator('#moving[data-playing=spin]').waitFor();
    await page.getByRole('radio', { name: 'Drawn by the model' }).check();
    await page.getByRole('button', { name: 'Animate' }).click();
    assert.deepEqual(await bytesOf(page, '#canvas'), still);
    await draw(page, 'a blue heart');
  });

  it('is not offered where the model has nothing for it', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a red apple');
    await page.getByRole('button', { name: 'Animate' }).click();
    await page.locator('#moving[data-playing=bounce]').waitFor();
    assert.ok(await page.getByRole('radio', { name: 'Spin' }).isVisible());
    assert.equal(await page.getByRole('radio', { name: 'Drawn by the model' }).count(), 0);
    assert.ok(await page.locator('#drawn-note').isHidden());
  });

  it('is played by <ink-bloom motion="drawn">', async () => {
    site.files.set('/drawn.html', `<!doctype html><meta charset="utf-8"><title>Element</title><script type="module" src="/pkg/element.js"></script>
      <ink-bloom model="/bundles/animatediff_euler/" device="cpu" prompt="a red apple" seed="5" steps="2" motion="drawn"></ink-bloom>
      <script type="module" src="/drawn-test.js"></script>`);
    site.files.set('/drawn-test.js', "addEventListener('ink-image', ({ detail }) => { document.title = detail.animations[0].frames.length; });");
    await page.goto(`${site.url}drawn.html`);
    await page.waitForFunction(() => document.title === '6', undefined, PATIENCE);
  });
});

describe('the page', () => {
  const lab = usePage();
  let { site, page } = lab;
  beforeEach(() => {
    ({ site, page } = lab);
  });

  it('sets a sticker in motion, saves it, and has it stand still again', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a red apple');
    const still = await bytesOf(page, '#canvas');
    const moves = async () => {
      const seen = new Set();
      for (let look = 0; look < 10; look += 1) {
        seen.add(String(await bytesOf(page, '#canvas')));
        await page.waitForTimeout(90);
      }
      return seen.size > 3;
    };
    const animate = page.getByRole('button', { name: 'Animate' });
    await animate.click();
    await page.locator('#moving[data-playing=bounce]').waitFor();
    assert.ok(await moves(), 'it stands still');
    await page.getByRole('radio', { name: 'Spin' }).check();
    await page.locator('#moving[data-playing=spin]').waitFor();

    for (const [button, name, type, side] of /** @type {[string, string, string, number | undefined][]} */ ([
      ['Save moving sticker', 'a-red-apple-spin-sticker.webp', 'image/webp', 512],
      ['WebP', 'a-red-apple-spin.webp', 'image/webp', undefined],
      ['GIF', 'a-red-apple-spin.gif', 'image/gif', undefined],
      ['APNG', 'a-red-apple-spin.png', 'image/png', undefined],
    ])) {
      const [download] = await Promise.all([page.waitForEvent('download', { timeout: 120_000 }), page.getByRole('button', { name: button, exact: true }).click()]);
      assert.ok(download.suggestedFilename().endsWith(name), download.suggestedFilename());
      const seen = await open(page, Array.from(await readFile(await download.path())), type);
      assert.deepEqual([seen.frames, seen.loops, seen.side], [16, Infinity, side ?? Math.sqrt(still.length / 4)]);
      assert.ok(seen.size <= 500_000 && seen.alphas.length > 1);
      await page.locator('#moving-status', { hasText: /^Saved, \d+ KB/ }).waitFor();
    }

    const [film] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'WebM', exact: true }).click()]);
    assert.ok(film.suggestedFilename().endsWith('a-red-apple-spin.webm'), film.suggestedFilename());

    await animate.click();
    assert.ok(await page.locator('#moving').isHidden());
    assert.deepEqual(await bytesOf(page, '#canvas'), still);
    await animate.click();
    await page.locator('#moving[data-playing=spin]').waitFor();
    await draw(page, 'a blue heart');
    assert.ok(await page.locator('#moving').isHidden(), 'the motion of another picture is still offered');
  });
});
