// The yardstick: the default model beside onnxruntime-web in one page of Chromium (or Firefox), and beside PyTorch on the same cores.
//   node tools/bench/run.mjs --onnx DIR [--device cpu|gpu]... [--rounds N] [--steps N] [--model DIR] [--record NAME]
//                            [--native] [--python FILE] [--inkbloom FILE] [--scaling] [--browser firefox]
// DIR is what tools/reference/networks.py wrote. See README.md beside this file.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliCompressSync, constants } from 'node:zlib';
import { launch } from '../../tests/web/support/browser.js';
import { psnr } from '../../tests/web/support/bundles.js';
import { launchFirefox } from '../../tests/web/support/firefox.js';
import { Site } from '../../tests/web/support/site.js';
import { PARTS, SAME, countsTable, distance, drawing, row, spread, timesTable } from './race.mjs';
import { sizesByCrate } from './wasm-crates.js';

const root = fileURLToPath(new URL('../../', import.meta.url));
const here = path.join(root, 'tools/bench');
const { values } = parseArgs({
  options: {
    onnx: { type: 'string' },
    device: { type: 'string', multiple: true, default: ['cpu', 'gpu'] },
    rounds: { type: 'string', default: '9' },
    steps: { type: 'string', default: '4' },
    model: { type: 'string', default: path.join(root, 'www/models/sticker') },
    prompt: { type: 'string', default: '3d emoji of a red apple' },
    record: { type: 'string' },
    native: { type: 'boolean', default: false },
    threads: { type: 'string', default: '2' },
    python: { type: 'string', default: 'python3' },
    inkbloom: { type: 'string', default: 'inkbloom' },
    wasm: { type: 'string' },
    scaling: { type: 'boolean', default: false },
    browser: { type: 'string', default: 'chromium' },
  },
});
const [rounds, steps] = [Number(values.rounds), Number(values.steps)];
const MIB = 2 ** 20;

/** @type {string[]} */
const lines = [];
const say = (/** @type {string[]} */ ...added) => {
  lines.push(...added);
  console.log(added.join('\n'));
};

const manifest = JSON.parse(readFileSync(path.join(values.model, 'manifest.json'), 'utf8'));

/**
 * A page for both sides, and a look at the memory of each of the browser's processes; Firefox does not tell of its own.
 *
 * @returns {Promise<{ page: import('playwright-core').Page, version: string, look: () => Promise<{ id: number, type: string }[]>, close: () => Promise<void> }>}
 */
async function openBrowser() {
  if (values.browser === 'firefox') {
    const browser = await launchFirefox({ gpu: true });
    // What is asked of it both drivers do alike.
    const page = /** @type {import('playwright-core').Page} */ (/** @type {unknown} */ (await browser.newPage()));
    return { page, version: await browser.version(), look: async () => [], close: () => browser.close() };
  }
  const browser = await launch();
  const session = await browser.newBrowserCDPSession();
  const look = async () => (await session.send('SystemInfo.getProcessInfo').catch(() => ({ processInfo: [] }))).processInfo;
  return { page: await browser.newPage(), version: `chromium/${browser.version()}`, look, close: () => browser.close() };
}

/** @param {'cpu' | 'gpu'} device @param {ReturnType<typeof drawing>} what */
async function inBrowser(device, what) {
  const theirs = values.onnx !== undefined;
  const site = await Site.start({
    '/': path.join(root, 'www'),
    '/pkg/': path.join(root, 'pkg/dist'),
    '/bench/': here,
    '/models/sticker/': values.model,
    '/ort/': path.join(here, 'node_modules/onnxruntime-web/dist'),
    '/onnx/': values.onnx ?? here,
  });
  site.files.set('/lab.html', '<!doctype html><meta charset="utf-8"><title>Lab</title>');
  const { page, version, look, close } = await openBrowser();
  page.setDefaultTimeout(0);
  page.on('pageerror', (error) => console.error(String(error)));
  page.on('console', (message) => console.error(message.text()));
  await page.goto(`${site.url}lab.html`);
  /** @type {Record<string, number>} */
  const peak = {};
  const sampler = setInterval(async () => {
    for (const { id, type } of await look()) {
      try {
        const resident = readFileSync(`/proc/${id}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)?.[1];
        peak[type] = Math.max(peak[type] ?? 0, Number(resident ?? 0) * 1024);
      } catch {
        // The process ended, or the system has no /proc.
      }
    }
  }, 200);
  const { image, ...given } = what;
  const task = { ...given, device, rounds, steps, prompt: values.prompt, theirs };
  const result = await page.evaluate(async (task) => {
    const entry = '/bench/page.js';
    const { race } = await import(entry);
    return race(task);
  }, task);
  clearInterval(sampler);
  await close();
  await site.goOffline();
  const apart = { ours: distance(result.ours.pixels, image), theirs: theirs ? distance(result.theirs.pixels, image) : undefined };
  if (apart.ours > SAME.ours || (apart.theirs ?? 0) > SAME.theirs) {
    throw new Error(`the pictures differ from the command line's, ours by ${apart.ours}, theirs by ${apart.theirs}: nothing to compare`);
  }
  const decibels = psnr(result.ours.pixels, image);
  for (const side of [result.ours, result.theirs]) if (side) delete side.pixels;
  return { ...result, apart, decibels, peak, version };
}

/** @param {Awaited<ReturnType<typeof inBrowser>>} result @param {string} device */
function tell(result, device) {
  say('', `### ${result.device.name}, ${result.version}, in turns, ${rounds} rounds`, '', ...timesTable(result));
  if (device === 'gpu') say('', ...countsTable(result));
  if (result.batch) {
    const { apart, together } = result.batch;
    const times = together.map((/** @type {number} */ ms, /** @type {number} */ i) => apart[i] / ms);
    say('', `Four pictures: one after the other ${spread(apart)} ms, as one request by ${Math.min(4, machine.cores)} workers ${spread(together)} ms, ${spread(times, 2)} times as fast.`);
  }
  const peaks = Object.entries(result.peak).filter(([, bytes]) => bytes > 64 * MIB).map(([type, bytes]) => `${type} ${(bytes / MIB).toFixed(0)} MiB`);
  say('', `Apart from the command line's picture: ours ${result.apart.ours.toExponential(1)} (${result.decibels.toFixed(1)} dB), theirs ${result.apart.theirs?.toExponential(1) ?? '-'}.${peaks.length > 0 ? ` Peak memory, both sides together: ${peaks.join(', ')}.` : ''}`);
}

/** @param {string[]} extra @param {number} count */
function inkbloomBench(extra, count) {
  const args = ['bench', '--device', 'cpu', '--model', values.model, '--prompt', values.prompt, '--rounds', `${count}`, '--json', ...extra];
  return JSON.parse(execFileSync(values.inkbloom, args, { env: { ...process.env, RAYON_NUM_THREADS: values.threads }, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }));
}

/** The command line and PyTorch eager, in turns. */
function natively() {
  /** @type {{ ours: any[], theirs: any[] }} */
  const turns = { ours: [], theirs: [] };
  const eager = [path.join(here, 'eager.py'), '--model', values.model, '--threads', values.threads, '--rounds', `${rounds}`, '--steps', `${steps}`];
  for (let turn = 0; turn < 3; turn += 1) {
    turns.ours.push(inkbloomBench(['--steps', `${steps}`], rounds));
    turns.theirs.push(JSON.parse(execFileSync(values.python, eager, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })));
  }
  say('', `### Natively, ${values.threads} threads, three turns of ${rounds} pictures`, '', row('', 'Inkbloom ms', `PyTorch ${turns.theirs[0].torch} eager ms`, 'ours over theirs'), row('---', '---', '---', '---'));
  for (const part of PARTS) {
    const ours = turns.ours.map((turn) => turn.least_median_most_ms[part][1]);
    const theirs = turns.theirs.map((turn) => turn.median_ms[part]);
    say(row(part, spread(ours), spread(theirs), spread(theirs.map((ms, i) => ms / ours[i]), 2)));
  }
  return turns;
}

/** Time and memory natively against tokens, pictures and steps. */
function scaling() {
  say('', '### Scaling, natively', '', row('picture', 'tokens', 'count', 'steps', 'ms', 'peak MiB'), row('---', '---', '---', '---', '---', '---'));
  const cases = [[256, 1, 4], [512, 1, 4], [1024, 1, 4], [256, 4, 4], [256, 16, 4], [256, 1, 1], [256, 1, 16]];
  const { vae, transformer } = manifest.configs;
  const pixelsPerToken = 2 ** ((vae.decoder_block_out_channels ?? vae.block_out_channels).length - 1) * transformer.patch_size;
  return cases.map(([side, count, taken]) => {
    const bench = inkbloomBench(['--width', `${side}`, '--height', `${side}`, '--count', `${count}`, '--steps', `${taken}`], 3);
    say(row(`${side} x ${side}`, `${(side / pixelsPerToken) ** 2}`, `${count}`, `${taken}`, bench.least_median_most_ms.total[1].toFixed(0), `${bench.peak_bytes ? Math.round(bench.peak_bytes / MIB) : '-'}`));
    return { side, count, steps: taken, ...bench };
  });
}

const when = new Date().toISOString();
const commit = execFileSync('git', ['-C', root, 'rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
const [cpu] = os.cpus();
const machine = { cpu: cpu?.model, cores: os.cpus().length, memoryMiB: Math.round(os.totalmem() / MIB), system: `${os.type()} ${os.release()}`, loadBefore: os.loadavg()[0] };
const shards = Object.fromEntries(manifest.shards.map((/** @type {any} */ { file, sha256 }) => [file, sha256]));
say(`## ${values.record ?? 'Yardstick'}, ${when.slice(0, 10)}, commit ${commit}`, '', `${machine.cpu}, ${machine.cores} cores, load ${machine.loadBefore.toFixed(1)} when it began; Node ${process.version}; ${steps} steps, "${values.prompt}".`);

/** @type {Record<string, any>} */
const record = { when, commit, machine, steps, prompt: values.prompt, model: shards };
const wasm = path.join(root, 'pkg/dist/inkbloom_bg.wasm');
// Compressing as servers do takes a minute.
if (values.record && existsSync(wasm)) {
  const bytes = readFileSync(wasm);
  const compressed = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 } }).length;
  record.wasm = { bytes: bytes.length, brotli: compressed, byCrate: values.wasm ? sizesByCrate(readFileSync(values.wasm)) : undefined };
  say('', `wasm ${(bytes.length / MIB).toFixed(2)} MiB, ${(compressed / MIB).toFixed(2)} MiB after brotli.`);
  if (record.wasm.byCrate) {
    say('', row('crate', 'code KiB before optimising', 'of it after brotli'), row('---', '---', '---'));
    for (const { crate, bytes: raw, brotli } of record.wasm.byCrate.slice(0, 12)) say(row(crate, (raw / 1024).toFixed(0), (brotli / 1024).toFixed(0)));
  }
}
if (values.device.length > 0 && existsSync(wasm)) {
  const what = drawing({ inkbloom: values.inkbloom, model: values.model, prompt: values.prompt, steps });
  for (const device of /** @type {('cpu' | 'gpu')[]} */ (values.device.filter((device) => device !== 'none'))) {
    const result = await inBrowser(device, what);
    record[device] = result;
    tell(result, device);
  }
}
if (values.native) record.native = natively();
if (values.scaling) record.scaling = scaling();
if (values.record) {
  mkdirSync(path.join(here, 'record'), { recursive: true });
  const file = path.join(here, 'record', `${when.slice(0, 10)}-${values.record}`);
  writeFileSync(`${file}.json`, `${JSON.stringify(record, null, 1)}\n`);
  writeFileSync(`${file}.md`, `${lines.join('\n')}\n`);
}
