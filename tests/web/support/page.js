// The page, driven as a person would.
import assert from 'node:assert/strict';
import { beforeEach } from 'node:test';
import { useLab } from './lab.js';

/** @typedef {import('playwright-core').Page} Page */

/** The page with a tiny model. */
export const TINY = '?model=/bundles/sticker_tiny/&device=cpu';

/** Two shared cores draw the default model in well under a minute; a hang is longer. */
export const PATIENCE = { timeout: 240_000 };

const PERMISSIONS = ['clipboard-read', 'clipboard-write'];

/** @param {Page} page */
function watch(page) {
  page.on('pageerror', (error) => assert.fail(`the page threw: ${error.message}`));
}

/**
 * Another visitor, with storage of their own.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
export async function openPage(browser, options) {
  const page = await (await browser.newContext({ permissions: PERMISSIONS, ...options })).newPage();
  watch(page);
  return page;
}

/**
 * A site, a browser, and for each test a page of its own storage that shows nothing yet and must not throw.
 *
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
export function usePage(options) {
  const lab = useLab({ open: null, context: { permissions: PERMISSIONS, ...options } });
  beforeEach(() => watch(lab.page));
  return lab;
}

/** @param {Page} page @param {string} prompt */
export async function ask(page, prompt) {
  await page.getByLabel('What shall I draw?').fill(prompt);
  await page.keyboard.press('Enter');
}

/**
 * As many steps as the scheduler has: what is looked at while it is drawn is still being drawn then, however fast the
 * machine is. Whoever asks for them stops them.
 */
export const LONG = 1000;

/**
 * Asks for a picture that takes long, and waits until it is seen to be drawn.
 *
 * @param {Page} page
 * @param {string} prompt
 */
export async function startDrawing(page, prompt) {
  await setAdvanced(page, { steps: LONG });
  await ask(page, prompt);
  await page.getByText(new RegExp(`^Drawing: step \\d+ of ${LONG}$`)).waitFor(PATIENCE);
}

/** @param {Page} page @param {string} prompt */
export async function draw(page, prompt) {
  const before = await page.locator('#stickers li').count();
  await ask(page, prompt);
  await page.locator('#stickers li').nth(before).waitFor(PATIENCE);
  await page.locator('#sheet[data-state=done]').waitFor(PATIENCE);
}

/**
 * What is set in the form's advanced part.
 *
 * @param {Page} page
 * @param {{ steps?: number, count?: number }} settings
 */
export async function setAdvanced(page, { steps, count }) {
  if (!(await page.getByLabel('Steps').isVisible())) await page.getByText('Advanced').click();
  if (steps !== undefined) await page.getByLabel('Steps').fill(String(steps));
  if (count !== undefined) await page.locator('#count').selectOption(String(count));
}

/** The bytes of a canvas. @param {Page} page @param {string} selector */
export function bytesOf(page, selector) {
  return page.locator(selector).evaluate((element) => {
    const canvas = /** @type {HTMLCanvasElement} */ (element);
    return Array.from(/** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d')).getImageData(0, 0, canvas.width, canvas.height).data);
  });
}

/**
 * How much of an element is within the window, 0 to 1, once nothing scrolls any more.
 *
 * @param {Page} page
 * @param {string} selector
 */
export async function shareInView(page, selector) {
  let [before, now] = [NaN, await page.evaluate(() => scrollY)];
  while (before !== now) {
    await page.waitForTimeout(150);
    [before, now] = [now, await page.evaluate(() => scrollY)];
  }
  return page.locator(selector).evaluate((element) => {
    const { top, bottom, left, right, width, height } = element.getBoundingClientRect();
    const across = Math.max(0, Math.min(right, innerWidth) - Math.max(left, 0));
    const down = Math.max(0, Math.min(bottom, innerHeight) - Math.max(top, 0));
    return width * height === 0 ? 0 : (across * down) / (width * height);
  });
}
