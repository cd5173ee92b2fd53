// What matters most, in Firefox: the same numbers, files that move, the page, and a visit without a network. The rest of
// the tests run in Chromium alone.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { open } from './support/animations.js';
import { bundlesFolder, readNative, relativeError } from './support/bundles.js';
import { findFirefox, launchFirefox } from './support/firefox.js';
import { order, startLab } from './support/lab.js';
import { TINY } from './support/page.js';

/** As in Chromium. */
const PARITY = 2e-3;

const PATIENCE = { timeout: 60_000 };

const installed = findFirefox() !== undefined;

// A test of its own, so that it counts as skipped.
if (!installed) it('NOTHING WAS TRIED IN FIREFOX', { skip: 'none is installed here (on Debian: apt-get install firefox-esr; elsewhere set FIREFOX to its path)' });

describe('in Firefox', { skip: !installed }, () => {
  const downloads = mkdtempSync(path.join(os.tmpdir(), 'inkbloom-firefox-'));
  /** @type {import('./support/site.js').Site} */
  let site;
  /** @type {import('puppeteer-core').Browser} */
  let browser;
  /** @type {import('puppeteer-core').Page} */
  let page;
  /** What the page threw. @type {unknown[]} */
  let thrown;
  /** For what both drivers do alike. */
  const lab = () => /** @type {import('./support/lab.js').Evaluates} */ (/** @type {unknown} */ (page));

  before(async () => {
    site = await startLab();
    browser = await launchFirefox({ downloads });
  });
  after(async () => {
    await browser?.close();
    await site?.goOffline();
    rmSync(downloads, { recursive: true, force: true });
  });
  beforeEach(async () => {
    page = await (await browser.createBrowserContext()).newPage();
    thrown = [];
    page.on('pageerror', (error) => thrown.push(error));
  });
  afterEach(async () => {
    await page.browserContext().close();
    assert.deepEqual(thrown, []);
  });

  it('draws from a seed what native code draws from it', async (context) => {
    await page.goto(`${site.url}lab.html`);
    const [report] = await order(lab(), { model: '/bundles/sticker_tiny/', drawings: [{ prompt: '3d emoji of a red apple', steps: 2, seed: 7, raw: true }] });
    assert.equal(report.error, undefined);
    const error = relativeError(report.raw[0], readNative('sticker_tiny'));
    context.diagnostic(`${await browser.version()}: relative error ${error.toExponential(1)}`);
    assert.ok(error <= PARITY, `relative error ${error}`);
  });

  it('opens moving pictures that the command line saved', async () => {
    await page.goto(`${site.url}lab.html`);
    for (const [ending, type] of [['webp', 'image/webp'], ['png', 'image/png'], ['gif', 'image/gif']]) {
      const file = readFileSync(path.join(bundlesFolder(), 'sticker_tiny', `wobble.${ending}`));
      const seen = await open(lab(), Array.from(file), type);
      assert.deepEqual([seen.side, seen.frames, seen.loops, seen.times], [32, 8, Infinity, Array(8).fill(100)], ending);
      assert.ok(seen.hashes > 4 && (ending === 'gif' ? seen.alphas.length === 2 : seen.alphas.length > 20), `${ending}: ${seen.hashes} frames differ, ${seen.alphas.length} alphas`);
    }
  });

  it('saves moving pictures that it opens again, and a film that shows them', async () => {
    await page.goto(`${site.url}lab.html`);
    const { files, film } = await page.evaluate(async () => {
      const entry = '/pkg/index.js';
      /** @type {typeof import('../../pkg/src/index.js')} */
      const { Inkbloom } = await import(entry);
      const ink = await Inkbloom.load({ model: '/bundles/sticker_tiny/', device: 'cpu' });
      const image = new ImageData(64, 64);
      for (let index = 0; index < 64 * 64; index += 1) {
        const alpha = Math.max(0, Math.min(1, (20 - Math.hypot((index % 64) - 28, Math.floor(index / 64) - 36)) / 6));
        if (alpha > 0) image.data.set([200, 60, 30, 255 * alpha], index * 4);
      }
      const animation = await ink.animate(image, { motion: 'wobble', frames: 8, fps: 10 });
      const files = [];
      for (const type of ['image/webp', 'image/apng', 'image/gif']) {
        const blob = await animation.toBlob(type);
        files.push({ type: blob.type, bytes: Array.from(new Uint8Array(await blob.arrayBuffer())) });
      }
      // Some are built without an encoder for it.
      const film = await animation.canSave('video/webm') ? await animation.toBlob('video/webm') : undefined;
      await ink.dispose();
      return { files, film: film && { bytes: Array.from(new Uint8Array(await film.arrayBuffer())), last: Array.from(animation.frames[7].data) } };
    });
    for (const { type, bytes } of files) {
      const seen = await open(lab(), bytes, type);
      assert.deepEqual([seen.side, seen.frames, seen.loops, seen.times], [64, 8, Infinity, Array(8).fill(100)], type);
      assert.ok(seen.hashes > 4 && (type === 'image/gif' ? seen.alphas.length === 2 : seen.alphas.length > 20), `${type}: ${seen.hashes} frames differ, ${seen.alphas.length} alphas`);
    }
    if (!film) return;
    // The site's policy lets no film in; another page has none.
    const other = await page.browserContext().newPage();
    const off = await other.evaluate(async ({ bytes, last }) => {
      const video = Object.assign(document.createElement('video'), { muted: true, src: URL.createObjectURL(new Blob([Uint8Array.from(bytes)], { type: 'video/webm' })) });
      await new Promise((resolve, reject) => {
        video.onloadeddata = resolve;
        video.onerror = () => reject(new Error(video.error?.message));
      });
      video.currentTime = 0.75;
      await new Promise((resolve) => { video.onseeked = resolve; });
      const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { willReadFrequently: true }));
      context.drawImage(video, 0, 0);
      const { data } = context.getImageData(0, 0, 64, 64);
      // Premultiplied: the colour of what is not seen is nobody's.
      return data.reduce((sum, value, at) => sum + Math.abs((at % 4 === 3 ? value : value * data[at | 3] / 255) - (at % 4 === 3 ? last[at] : last[at] * last[at | 3] / 255)), 0) / data.length;
    }, film);
    assert.ok(off < 3, `the film's last frame is ${off} away`);
  });

  describe('the page', () => {
    /** @param {string} selector */
    const text = (selector) => page.$eval(selector, (element) => element.textContent ?? '');

    /** @param {string} prompt */
    async function draw(prompt) {
      const before = (await page.$$('#stickers li')).length;
      await page.$eval('#prompt', (element) => { /** @type {HTMLTextAreaElement} */ (element).value = ''; });
      await page.type('#prompt', prompt);
      await page.keyboard.press('Enter');
      await page.waitForFunction((count) => document.querySelectorAll('#stickers li').length > count
        && document.querySelector('#sheet[data-state=done]') && document.querySelector('#actions:not([hidden])'), PATIENCE, before);
    }

    it('draws, moves and saves, each file under the name that it gives it', async () => {
      await page.goto(`${site.url}${TINY}`);
      await draw('a red apple');
      await page.click('#animate');
      await page.waitForSelector('#moving[data-playing=bounce]', PATIENCE);
      for (const [id, ending] of [['save-moving-sticker', 'bounce-sticker.webp'], ['save-gif', 'bounce.gif'], ['save-apng', 'bounce.png']]) {
        await page.click(`#${id}`);
        await page.waitForFunction(() => document.querySelector('#moving-status')?.textContent?.startsWith('Saved'), PATIENCE);
        const name = `a-red-apple-${ending}`;
        for (let look = 0; look < 50 && !readdirSync(downloads).some((file) => file.endsWith(name)); look += 1) await new Promise((resolve) => setTimeout(resolve, 100));
        assert.ok(readdirSync(downloads).some((file) => file.endsWith(name)), `${name}: there is ${readdirSync(downloads).join(', ')}`);
        await page.$eval('#moving-status', (element) => { element.textContent = ''; });
      }
    });

    it('shows no bar as full whose end is not known', async () => {
      await page.goto(`${site.url}${TINY}`);
      const fill = await page.$eval('progress', (bar) => {
        bar.removeAttribute('value');
        return getComputedStyle(bar, '::-moz-progress-bar').backgroundImage;
      });
      assert.equal(fill, 'none');
    });

    it('opens and draws again without a network, with what was drawn before', async () => {
      await page.goto(`${site.url}${TINY}`);
      await draw('a red apple');
      await page.waitForFunction(async () => (await (await caches.open('inkbloom-page')).match('/pkg/inkbloom_bg.wasm')) && (await caches.match('/lib/idb.js')), PATIENCE);
      await site.goOffline();
      try {
        await page.reload();
        await page.waitForFunction(() => document.querySelector('#status')?.textContent?.startsWith('Ready') || document.querySelector('#trouble:not([hidden])'), PATIENCE);
        assert.match(await text('#status'), /^Ready/);
        assert.equal((await page.$$('#stickers li')).length, 1);
        await draw('a blue heart');
      } finally {
        await site.comeBack();
      }
    });
  });
});
