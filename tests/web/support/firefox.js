import { existsSync } from 'node:fs';
import { puppeteer } from './dev-dependencies.js';

const USUAL_PLACES = ['/usr/bin/firefox-esr', '/usr/bin/firefox', '/snap/bin/firefox', '/Applications/Firefox.app/Contents/MacOS/firefox'];

/** FIREFOX from the environment, else the system's; undefined where there is none, for it need not be. */
export function findFirefox() {
  const named = process.env.FIREFOX;
  if (named && !existsSync(named)) throw new Error(`FIREFOX=${named}: there is no such file.`);
  return named || USUAL_PLACES.find((place) => existsSync(place));
}

/**
 * WebGPU computed by the processor: Firefox takes any Vulkan driver, and none in its sandbox; which one says VK_ICD_FILENAMES
 * (Mesa's lavapipe is `/usr/share/vulkan/icd.d/lvp_icd.x86_64.json` of Debian's mesa-vulkan-drivers).
 */
const SOFTWARE_GPU = {
  'dom.webgpu.enabled': true,
  'dom.webgpu.workers.enabled': true,
  'gfx.webgpu.ignore-blocklist': true,
  'gfx.webgpu.force-enabled': true,
  'security.sandbox.gpu.level': 0,
};

/**
 * @param {object} [options]
 * @param {boolean} [options.gpu] whether pages get a WebGPU adapter
 * @param {string} [options.downloads] the folder that they go to
 */
export function launchFirefox({ gpu = false, downloads } = {}) {
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: findFirefox(),
    headless: true,
    protocolTimeout: 0,
    extraPrefsFirefox: {
      // A WebP that was saved it otherwise opens in a tab, whatever the page says; the page behind it rests then.
      'browser.download.forceSaveInternallyHandledAttachments': true,
      ...(downloads && { 'browser.download.folderList': 2, 'browser.download.dir': downloads, 'browser.download.always_ask_before_handling_new_types': false }),
      ...(gpu && SOFTWARE_GPU),
    },
  });
}
