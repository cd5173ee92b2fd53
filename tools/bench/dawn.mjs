// The yardstick's race without a browser: Inkbloom's WebAssembly beside onnxruntime-web in Node, on Dawn, which is Chromium's WebGPU.
//   node tools/bench/dawn.mjs --onnx DIR [--backend null|vulkan]... [--rounds N] [--steps N] [--model DIR] [--pkg DIR] [--inkbloom FILE]
//                             [--option WORD=VALUE]... [--warm SECONDS] [--seconds N] [--record NAME] [--stage FOLDER [--node FILE]]
// DIR is what tools/reference/networks.py wrote. See README.md beside this file.
import { execFileSync, fork } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { psnr } from '../../tests/web/support/bundles.js';
import { tensorsOf, unpack } from './onnx-weights.mjs';
import { SAME, countsTable, distance, drawing, timesTable } from './race.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const here = path.join(root, 'tools/bench');
const { values } = parseArgs({
  options: {
    backend: { type: 'string', multiple: true, default: ['vulkan'] },
    option: { type: 'string', multiple: true, default: [] },
    rounds: { type: 'string', default: '15' },
    steps: { type: 'string', default: '4' },
    warm: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '600' },
    model: { type: 'string', default: path.join(root, 'www/models/sticker') },
    onnx: { type: 'string', default: path.join(root, 'onnx') },
    pkg: { type: 'string', default: path.join(root, 'pkg/dist') },
    prompt: { type: 'string', default: '3d emoji of a red apple' },
    inkbloom: { type: 'string', default: 'inkbloom' },
    drawing: { type: 'string', default: path.join(root, 'drawing.json') },
    record: { type: 'string' },
    stage: { type: 'string' },
    node: { type: 'string', default: process.execPath },
  },
});
const [rounds, steps, warmSeconds] = [values.rounds, values.steps, values.warm].map(Number);
const end = performance.now() + 1000 * Number(values.seconds);
/** @type {Record<string, string>} */
const MEANING = {
  null: 'Dawn\'s null backend: every call is made and checked and nothing is computed, so the times are those of the processor alone: what asking for a picture costs.',
  vulkan: 'Calls are made and checked in the same process, where a browser hands them to another one; what the GPU does is the same.',
};

/** @type {string[]} */
const lines = [];
const say = (/** @type {string[]} */ ...added) => {
  lines.push(...added);
  console.log(added.join('\n'));
};

/** What a staged folder has in place of the command line. */
function given() {
  if (existsSync(values.drawing)) return JSON.parse(readFileSync(values.drawing, 'utf8'));
  return drawing({ inkbloom: values.inkbloom, model: values.model, prompt: values.prompt, steps });
}

/** Staged ONNX files lack what the model holds, too. */
function wholeNetworks() {
  for (const name of readdirSync(values.onnx).filter((name) => name.endsWith('.onnx.json'))) {
    const file = path.join(values.onnx, name.slice(0, -'.json'.length));
    if (existsSync(file)) continue;
    const parts = JSON.parse(readFileSync(`${file}.json`, 'utf8'));
    writeFileSync(file, unpack({ parts, rest: readFileSync(`${file}.rest`) }, tensorsOf(values.model)));
  }
}

/**
 * The race in a process of its own, which may end as it likes: what is known by then is kept.
 *
 * @param {string} backend @param {any} what is drawn @param {number} seconds
 * @returns {Promise<any>}
 */
function raceIn(backend, what, seconds) {
  const { image: _, ...from } = what;
  const browser = {
    options: [`backend=${backend}`, ...values.option],
    folders: { '/pkg/': path.resolve(values.pkg), '/ort/': path.join(here, 'node_modules/onnxruntime-web/dist'), '/onnx/': path.resolve(values.onnx), '/models/sticker/': path.resolve(values.model) },
  };
  const theirs = existsSync(path.join(values.onnx, 'decoder.onnx'));
  const task = { ...from, device: 'gpu', rounds, steps, prompt: values.prompt, theirs, warmSeconds, seconds: 0.8 * seconds };
  const began = performance.now();
  return new Promise((resolve) => {
    const child = fork(path.join(here, 'dawn-page.mjs'), { serialization: 'advanced' });
    /** @type {any} */
    let known = {};
    /** @type {Record<string, number[]>} */
    const pixels = {};
    const finish = (/** @type {string | undefined} */ failed) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      resolve({ ...known, pixels, failed });
    };
    const timer = setTimeout(() => finish(`no more time after ${seconds.toFixed(0)} s`), 1000 * seconds);
    child.on('message', (/** @type {any} */ { what, result, failed }) => {
      if (failed) return finish(failed);
      for (const side of ['ours', 'theirs']) {
        if (!result[side]) continue;
        if (result[side].pixels) pixels[side] = result[side].pixels;
        delete result[side].pixels;
      }
      known = result;
      const last = ['ours', 'theirs'].map((side) => result[side] && (result[side].rounds.at(-1) ?? result[side].first).total.toFixed(1)).filter(Boolean);
      console.log(`${backend} ${((performance.now() - began) / 1000).toFixed(1)} s: ${what}${last.length > 0 ? ` (${last.join(', ')} ms)` : ''}`);
      if (what === 'done') finish(undefined);
    });
    child.on('exit', (code, signal) => finish(`it ended by itself (${signal ?? code})`));
    child.send({ browser, task });
  });
}

/** @param {string} backend @param {any} result @param {any} what was drawn */
function tell(backend, result, what) {
  const { failed, device, ours, theirs } = result;
  say('', `### ${device?.name ?? 'no device'}, Dawn on ${backend}, in turns, ${ours?.rounds.length ?? 0} rounds`, '', MEANING[backend] ?? '');
  if (failed) say('', `It did not come to its end: ${failed}`);
  if (!(ours?.rounds.length > 0)) return;
  say('', ...timesTable(result, 1));
  if (ours.counts) say('', ...countsTable(result));
  if (backend === 'null') return;
  const about = ['ours', 'theirs'].filter((side) => result.pixels[side]).map((side) => {
    const pixels = result.pixels[side];
    const apart = distance(pixels, what.image);
    result[side].apart = { most: apart, decibels: psnr(pixels, what.image) };
    const same = apart <= SAME[/** @type {'ours' | 'theirs'} */ (side)];
    return `${side} ${apart.toExponential(1)} (${result[side].apart.decibels.toFixed(1)} dB)${same ? '' : ', which is too far for its times to count'}`;
  });
  say('', `Apart from the command line's picture: ${about.join('; ')}.`);
  if (!theirs) say('', 'onnxruntime-web took no part.');
}

if (values.stage) {
  const { stage } = await import('./dawn-stage.mjs');
  stage({ root, stage: values.stage, model: values.model, pkg: values.pkg, onnx: values.onnx, node: values.node, what: given() });
} else {
  const when = new Date().toISOString();
  const versionOf = (/** @type {string} */ name) => {
    const file = path.join(here, 'node_modules', name, 'package.json');
    return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).version : JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8')).devDependencies[name];
  };
  const run = (/** @type {string} */ program, /** @type {string[]} */ ...args) => {
    try {
      return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    } catch {
      return undefined;
    }
  };
  const gpu = run('nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader');
  const versions = { node: process.version, v8: process.versions.v8, webgpu: versionOf('webgpu'), 'onnxruntime-web': versionOf('onnxruntime-web') };
  const machine = { cpu: os.cpus()[0]?.model, cores: os.cpus().length, gpu, system: `${os.type()} ${os.release()}`, loadBefore: os.loadavg()[0] };
  const what = given();
  if (existsSync(values.onnx)) wholeNetworks();
  say(`## Dawn, ${when.slice(0, 10)}`, '', `${machine.cpu}, ${machine.cores} cores, load ${machine.loadBefore.toFixed(1)} when it began${gpu ? `; ${gpu}` : ''}; ${Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(', ')}; ${steps} steps, "${values.prompt}". No browser: its WebGPU in Node, Inkbloom in a worker, onnxruntime-web in the main thread, as in the page.`);
  /** @type {Record<string, any>} */
  const record = { when, machine, versions, steps, prompt: values.prompt };
  for (const [i, backend] of values.backend.entries()) {
    const seconds = (end - performance.now()) / 1000 / (values.backend.length - i);
    const result = await raceIn(backend, what, seconds);
    tell(backend, result, what);
    delete result.pixels;
    record[backend] = result;
    if (values.record) {
      const file = values.record.includes('/') ? values.record : path.join(here, 'record', `${when.slice(0, 10)}-${values.record}`);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(`${file}.json`, `${JSON.stringify(record, null, 1)}\n`);
      writeFileSync(`${file}.md`, `${lines.join('\n')}\n`);
    }
  }
  process.exit(values.backend.some((backend) => record[backend].failed) ? 1 : 0);
}
