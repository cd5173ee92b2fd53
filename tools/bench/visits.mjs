// Measures the default model in Chromium and prints a table for the README:
//   node tools/bench/visits.mjs [--device cpu|gpu]... [--steps N] [--prompt TEXT]
//
// cold: a first visit with an empty profile, from the click to the picture (download from localhost included);
// again: the next visit, the model read from IndexedDB; warm: the next picture with the model on the device.
// Peak memory is the resident set of the page's process and of the GPU process, sampled every 100 ms.
import { readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliCompressSync, constants } from 'node:zlib';
import { Site } from '../../tests/web/support/site.js';
import { launch } from '../../tests/web/support/browser.js';

const { values } = parseArgs({
  options: {
    device: { type: 'string', multiple: true, default: ['cpu', 'gpu'] },
    steps: { type: 'string', default: '8' },
    prompt: { type: 'string', default: '3d emoji of a red apple' },
  },
});

const root = fileURLToPath(new URL('../../', import.meta.url));
const MIB = 2 ** 20;

/** @param {number} pid @param {string} field */
function statusField(pid, field) {
  const line = readFileSync(`/proc/${pid}/status`, 'utf8').split('\n').find((text) => text.startsWith(`${field}:`));
  return Number(line?.match(/\d+/)?.[0] ?? 0) * 1024;
}

/**
 * Resident bytes of the browser's processes by kind, from Linux's /proc.
 *
 * @param {import('playwright-core').CDPSession} session
 */
async function residentBytes(session) {
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  /** @type {Record<string, number>} */
  const sums = {};
  for (const { id, type } of processInfo) {
    try {
      sums[type] = Math.max(sums[type] ?? 0, statusField(id, 'VmRSS'));
    } catch {
      // The process ended between the two looks.
    }
  }
  return sums;
}

/**
 * One visit: loads, draws twice.
 *
 * @param {import('playwright-core').Page} page
 * @param {'cpu' | 'gpu'} device
 */
async function visit(page, device) {
  return page.evaluate(async ({ device, steps, prompt }) => {
    const entry = '/pkg/index.js';
    /** @type {typeof import('../../pkg/src/index.js')} */
    const { Inkbloom } = await import(entry);
    const began = performance.now();
    const ink = await Inkbloom.load({ model: '/models/sticker/', device });
    const loaded = performance.now();
    const first = await ink.generate({ prompt, steps, seed: 1 });
    const drawn = performance.now();
    const second = await ink.generate({ prompt, steps, seed: 2 });
    const { device: used } = ink;
    await ink.dispose();
    return { load: loaded - began, first: drawn - began, warm: second.timings, cold: first.timings, used };
  }, { device, steps: Number(values.steps), prompt: values.prompt });
}

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
/** @param {number} bytes */
const mebibytes = (bytes) => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 2 : 0)} MiB`;

const site = await Site.start();
site.files.set('/lab.html', '<!doctype html><meta charset="utf-8"><title>Lab</title>');
const browser = await launch();
const session = await browser.newBrowserCDPSession();

const wasm = readFileSync(path.join(root, 'pkg/dist/inkbloom_bg.wasm'));
const model = path.join(root, 'www/models/sticker');
const modelBytes = readdirSync(model).reduce((sum, file) => sum + statSync(path.join(model, file)).size, 0);
console.log(`wasm: ${mebibytes(wasm.length)}, brotli ${mebibytes(brotliCompressSync(wasm, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 } }).length)}`);
console.log(`default model: ${(modelBytes / 1e6).toFixed(1)} MB`);
console.log(`${values.steps} steps, "${values.prompt}", ${browser.version()}\n`);
console.log('| device | first visit | next visit | warm picture | of it text / denoise / decode | peak memory, loading and drawing: page, GPU process |');
console.log('| --- | --- | --- | --- | --- | --- |');

for (const device of /** @type {('cpu' | 'gpu')[]} */ (values.device)) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${site.url}lab.html`);
  /** @type {Record<string, number>} */
  const peak = {};
  const sampler = setInterval(async () => {
    for (const [kind, bytes] of Object.entries(await residentBytes(session))) peak[kind] = Math.max(peak[kind] ?? 0, bytes);
  }, 100);
  const first = await visit(page, device);
  clearInterval(sampler);
  await page.reload();
  const next = await visit(page, device);
  const { textMs, denoiseMs, decodeMs, totalMs } = next.warm;
  console.log(`| ${first.used.kind} (${first.used.name}) | ${seconds(first.first)} | ${seconds(next.first)} | ${seconds(totalMs)} | ${[textMs, denoiseMs, decodeMs].map(seconds).join(' / ')} | ${mebibytes(peak.renderer ?? 0)}, ${mebibytes(peak.GPU ?? 0)} |`);
  await context.close();
}

await browser.close();
await site.goOffline();
