import { existsSync } from 'node:fs';
import { chromium } from './dev-dependencies.js';

const USUAL_PLACES = [
  '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome-stable', '/usr/bin/google-chrome', '/snap/bin/chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome', '/Applications/Chromium.app/Contents/MacOS/Chromium',
];

/** CHROMIUM from the environment, else Playwright's own, else the system's. */
export function findChromium() {
  const candidates = [process.env.CHROMIUM, chromium.executablePath(), ...USUAL_PLACES];
  const found = candidates.find((place) => place && existsSync(place));
  if (!found) throw new Error('No Chromium was found: run `./build.sh setup`, or name one with CHROMIUM=/path/to/chromium.');
  return found;
}

const QUIET = ['--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic'];

/** WebGPU computed by the processor (SwiftShader), so that tests need no graphics card. */
const SOFTWARE_GPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'];

/**
 * @param {{ gpu?: boolean }} [options] whether pages get a WebGPU adapter
 */
export function launch({ gpu = true } = {}) {
  return chromium.launch({
    executablePath: findChromium(),
    // Containers run as root, where Chromium's sandbox refuses to work.
    args: ['--headless=new', '--no-sandbox', ...QUIET, ...(gpu ? SOFTWARE_GPU : [])],
  });
}
