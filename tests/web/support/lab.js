// A bare page under the same policy as the real one, and what a stranger's script would do on it.
import { after, afterEach, before, beforeEach } from 'node:test';
import { launch } from './browser.js';
import { bundlesFolder, fixturesFolder } from './bundles.js';
import { Site } from './site.js';
import { mountsOfPage } from '../../../www/serve.mjs';

/**
 * @typedef {import('playwright-core').Page} Page
 * @typedef {import('playwright-core').Browser} Browser
 * @typedef {Pick<Page, 'evaluate'>} Evaluates
 * @typedef {import('../../../pkg/src/index.js').Inkbloom} Inkbloom
 *
 * What one drawing in the page told.
 *
 * @typedef {object} Report
 * @property {{ code: string, message: string, name: string }} [error]
 * @property {import('../../../pkg/src/index.js').Progress[]} progress
 * @property {{ stage: string, step: number, steps: number, image: number, count: number, preview?: [number, number] }[]} steps
 * @property {string[]} hashes SHA-256 of each picture's bytes
 * @property {[number, number][]} sizes
 * @property {number[][]} raw
 * @property {string} [seed]
 * @property {string[]} [warnings]
 * @property {import('../../../pkg/src/index.js').DeviceInfo} [device]
 * @property {import('../../../pkg/src/index.js').ModelInfo} [info]
 * @property {boolean} [stored]
 * @property {string} [storageNote]
 * @property {string} [updateNote]
 *
 * @typedef {object} Order
 * @property {string} model
 * @property {'auto' | 'gpu' | 'cpu'} [device]
 * @property {number} [memoryMiB]
 * @property {string} [workerUrl]
 * @property {string} [wasmUrl]
 * @property {boolean} [keep] leaves the engine in the page for the next order of the same model and device: compiling
 *   shaders without a graphics card takes many seconds
 * @property {(Omit<import('../../../pkg/src/index.js').GenerateOptions, 'noise' | 'init' | 'mask'> & { noise?: number[], init?: string, mask?: string, abortAtStep?: number })[]} [drawings]
 */

/** Starts a site with the page, the package (both also at /art/, the package at /elsewhere/), and the tiny models under /bundles/. */
export async function startLab() {
  const mounts = mountsOfPage();
  const site = await Site.start({
    ...mounts,
    '/elsewhere/': mounts['/pkg/'],
    '/art/': mounts['/'],
    '/art/pkg/': mounts['/pkg/'],
    '/bundles/': bundlesFolder(),
    '/fixtures/': fixturesFolder(),
  });
  site.files.set('/lab.html', '<!doctype html><meta charset="utf-8"><title>Lab</title><body></body>');
  return site;
}

/**
 * Loads a model and draws, all in the page; every drawing of an order is made by the same engine.
 *
 * @param {Evaluates} page
 * @param {Order} order
 * @returns {Promise<Report[]>} one per drawing, or one when there is none
 */
export function order(page, { model, device = 'cpu', memoryMiB, workerUrl, wasmUrl, keep = false, drawings = [] }) {
  return page.evaluate(async ({ model, device, memoryMiB, workerUrl, wasmUrl, keep, drawings }) => {
    const entry = '/pkg/index.js';
    /** @type {typeof import('../../../pkg/src/index.js')} */
    const { Inkbloom } = await import(entry);
    /** @param {unknown} error */
    const plain = (error) => {
      const { code, message, name } = /** @type {import('../../../pkg/src/index.js').InkbloomError} */ (error);
      return { code, message, name };
    };
    // A canvas would premultiply and round the colour of translucent pixels; this decoder does not.
    const picture = async (/** @type {string | undefined} */ url) => {
      if (url === undefined) return undefined;
      const { body } = await fetch(url);
      const { image } = await new ImageDecoder({ data: /** @type {ReadableStream} */ (body), type: 'image/png' }).decode();
      const { displayWidth: width, displayHeight: height } = image;
      const data = new Uint8ClampedArray(width * height * 4);
      await image.copyTo(data, { format: 'RGBA' });
      return { width, height, data };
    };
    /** @returns {Report} */
    const blank = () => ({ progress: [], steps: [], hashes: [], sizes: [], raw: [] });
    const first = blank();
    const engines = /** @type {Record<string, Inkbloom | undefined>} */ (/** @type {unknown} */ (globalThis));
    const key = `${model} on ${device}`;
    let ink = engines[key];
    try {
      ink ??= await Inkbloom.load({ model, device, memoryMiB, workerUrl, wasmUrl, onProgress: (event) => first.progress.push(event) });
    } catch (error) {
      return [{ ...first, error: plain(error) }];
    }
    Object.assign(first, { device: ink.device, info: ink.info, stored: ink.stored, storageNote: ink.storageNote, updateNote: ink.updateNote });
    const reports = drawings.map((_, index) => (index === 0 ? first : blank()));
    for (const [index, { abortAtStep, noise, init, mask, ...options }] of drawings.entries()) {
      const report = reports[index];
      const controller = new AbortController();
      try {
        const { images, raw, seed, warnings } = await ink.generate({
          ...options,
          noise: noise && Float32Array.from(noise),
          init: await picture(init),
          mask: await picture(mask),
          signal: controller.signal,
          onStep: ({ preview, ...step }) => {
            report.steps.push({ ...step, ...(preview && { preview: /** @type {[number, number]} */ ([preview.width, preview.height]) }) });
            if (step.step === abortAtStep) controller.abort();
          },
        });
        Object.assign(report, { seed, warnings });
        for (const { data, width, height } of images) {
          const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
          report.hashes.push(Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join(''));
          report.sizes.push([width, height]);
        }
        report.raw = (raw ?? []).map((values) => Array.from(values));
      } catch (error) {
        report.error = plain(error);
      }
    }
    if (keep) engines[key] = ink;
    else await ink.dispose();
    return drawings.length === 0 ? [first] : reports;
  }, { model, device, memoryMiB, workerUrl, wasmUrl, keep, drawings });
}

/**
 * A page of its own storage on the lab.
 *
 * @param {Browser} browser
 * @param {Site} site
 */
export async function openLab(browser, site) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${site.url}lab.html`);
  return page;
}

/**
 * What every browser test needs: a site and a browser for all tests of a file or of a `describe`, and for each test a page
 * of its own storage.
 *
 * @param {object} [options]
 * @param {string | null} [options.open] what the page shows when a test begins; null for nothing yet
 * @param {boolean} [options.gpu] whether pages get a WebGPU adapter
 * @param {import('playwright-core').BrowserContextOptions} [options.context]
 */
export function useLab({ open = 'lab.html', gpu = true, context } = {}) {
  const lab = {
    /** @type {Site} */
    site: /** @type {any} */ (undefined),
    /** @type {Browser} */
    browser: /** @type {any} */ (undefined),
    /** @type {Page} */
    page: /** @type {any} */ (undefined),
  };
  before(async () => {
    lab.site = await startLab();
    lab.browser = await launch({ gpu });
  });
  after(async () => {
    await lab.browser?.close();
    await lab.site?.goOffline();
  });
  beforeEach(async () => {
    lab.page = await (await lab.browser.newContext(context)).newPage();
    if (open !== null) await lab.page.goto(lab.site.url + open);
  });
  afterEach(async () => {
    lab.site.meddle = undefined;
    lab.site.asked = [];
    await lab.page.context().close();
  });
  return lab;
}

/** Waits until a page has no worker: a terminated one is gone a moment later. @param {Page} page */
export async function noWorkers(page) {
  while (page.workers().length > 0) await page.workers()[0].waitForEvent('close');
}
