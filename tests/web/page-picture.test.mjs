// Starting from a picture, as a person would: with the default model, on the CPU.
import assert from 'node:assert/strict';
import path from 'node:path';
import { beforeEach, describe, it } from 'node:test';
import { fixturesFolder } from './support/bundles.js';
import { TINY, bytesOf, draw, usePage } from './support/page.js';

const lab = usePage();
let { site, page } = lab;
beforeEach(() => {
  ({ site, page } = lab);
});

/**
 * Mean difference of two square pictures within columns, in bytes, colours weighted by alpha.
 *
 * @param {number[]} one
 * @param {number[]} other
 * @param {(x: number) => boolean} within x from 0 to 1
 */
function difference(one, other, within) {
  const side = Math.sqrt(one.length / 4);
  /** @param {number[]} of @param {number} at */
  const value = (of, at) => (at % 4 === 3 ? of[at] : (of[at] * of[at - (at % 4) + 3]) / 255);
  let [sum, count] = [0, 0];
  for (let at = 0; at < one.length; at += 1) {
    if (!within((Math.floor(at / 4) % side) / side)) continue;
    sum += Math.abs(value(one, at) - value(other, at));
    count += 1;
  }
  return sum / count;
}

describe('starting from a picture', () => {
  it('changes what is painted over and leaves the rest', async (test) => {
    await page.goto(`${site.url}?device=cpu&steps=6&seed=7`);
    await draw(page, 'a red apple');
    const apple = await bytesOf(page, '#canvas');
    await page.getByRole('button', { name: 'Change this' }).click();
    assert.deepEqual(await bytesOf(page, '#start-canvas'), apple);

    const layer = page.locator('#start-mark');
    const box = await layer.boundingBox();
    assert.ok(box);
    await page.getByLabel('Brush').fill('40');
    await page.mouse.move(box.x + box.width * 0.15, box.y + 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.15, box.y + box.height - 2, { steps: 8 });
    await page.mouse.up();
    assert.match(await page.locator('#strength-words').innerText(), /of what is marked$/);
    await page.getByLabel('How much may change').fill('100');
    await page.getByLabel('Seed', { exact: true }).fill('8');
    await draw(page, 'a blue butterfly');
    const changed = await bytesOf(page, '#canvas');
    const [painted, left] = [difference(apple, changed, (x) => x < 0.3), difference(apple, changed, (x) => x > 0.6)];
    test.diagnostic(`painted part ${painted.toFixed(1)}, the rest ${left.toFixed(1)} of 255`);
    assert.ok(painted > 4, `the painted part differs by ${painted}`);
    assert.ok(left < 5, `what was not painted differs by ${left}`);
    assert.ok(painted > 3 * left);
    assert.ok(await page.getByRole('button', { name: 'Copy link' }).isHidden(), 'the link would not draw this picture');

    await page.getByRole('button', { name: 'Undo' }).click();
    assert.match(await page.locator('#strength-words').innerText(), /of the whole picture$/);
    await page.getByRole('button', { name: 'Put the picture away' }).click();
    assert.ok(await layer.isHidden());
  });

  it('needs no words where a picture says all', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    await page.getByRole('button', { name: 'Change this' }).click();
    await page.getByText('paint over it to change only a part').waitFor();
    const box = await page.locator('#start-mark').boundingBox();
    assert.ok(box);
    await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
    assert.match(await page.locator('#strength-words').innerText(), /of what is marked$/);
    await draw(page, '');
    await page.getByText(/^Drawn in/).waitFor();
  });

  it('takes a file of any shape whole, and says what it did', async () => {
    await page.goto(`${site.url}${TINY}`);
    await draw(page, 'a heart');
    const plain = await bytesOf(page, '#canvas');
    await page.getByText('Start from a picture').click();
    await page.locator('#start-file').setInputFiles(path.join(fixturesFolder(), 'sd15_img2img', 'init.png'));
    await page.getByText(/^Your picture \(\d+ × \d+\) was fitted into 32 × 32\.$/).waitFor();
    const before = await bytesOf(page, '#start-canvas');
    assert.ok(before.some((value) => value > 0));
    await page.getByLabel('How much may change').fill('50');
    await page.getByLabel('Seed', { exact: true }).fill(await page.getByLabel('Seed', { exact: true }).inputValue());
    await draw(page, 'a heart');
    assert.notDeepEqual(await bytesOf(page, '#canvas'), plain, 'the picture made no difference');
  });

  it('says in words that a file is no picture', async () => {
    await page.goto(`${site.url}${TINY}`);
    await page.getByText('Start from a picture').click();
    await page.locator('#start-file').setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('not a picture') });
    await page.getByText('“notes.txt” is no picture that this browser can open. Try a PNG or JPEG file.').waitFor();
    assert.ok(await page.locator('#start-mark').isHidden());
  });
});

describe('the brush', () => {
  /** A layer of 128 pixels in 256, with the smallest brush of the page. */
  beforeEach(async () => {
    await page.goto(`${site.url}lab.html`);
    await page.evaluate(async () => {
      const entry = '/brush.js';
      /** @type {typeof import('../../www/brush.js')} */
      const { Brush } = await import(entry);
      const canvas = document.createElement('canvas');
      canvas.style.cssText = 'position: fixed; left: 0; top: 0; width: 256px; height: 256px';
      document.body.append(canvas);
      const brush = new Brush(canvas, () => {});
      brush.size = 0.04;
      brush.begin(128, 128);
      Object.assign(window, { brush });
    });
  });

  /**
   * What a core sees of the mask that looks at the upper left pixel of each cell of eight: marked cells, as "x,y".
   * Fails where a cell is marked in part.
   */
  const cells = () => page.evaluate(() => {
    const { brush } = /** @type {{ brush: import('../../www/brush.js').Brush }} */ (/** @type {unknown} */ (window));
    const mask = brush.mask();
    if (!mask) return [];
    const marked = [];
    for (let y = 0; y < 128; y += 8) {
      for (let x = 0; x < 128; x += 8) {
        let sum = 0;
        for (let row = y; row < y + 8; row += 1) for (let column = x; column < x + 8; column += 1) sum += Number(mask.data[(row * 128 + column) * 4] === 255);
        if (sum !== 0 && sum !== 64) throw new Error(`${sum} of 64 pixels of the cell ${x}, ${y} are marked`);
        if (sum === 64) marked.push(`${x / 8},${y / 8}`);
      }
    }
    return marked;
  });

  it('marks the cells of a model whose cells are larger', async () => {
    await page.mouse.click(2 * 20 + 1, 2 * 4 + 1);
    const marked = await page.evaluate(() => {
      const { brush } = /** @type {{ brush: import('../../www/brush.js').Brush }} */ (/** @type {unknown} */ (window));
      brush.cell = 16;
      return brush.mask()?.data.filter((value, index) => index % 4 === 0 && value === 255).length;
    });
    assert.equal(marked, 16 * 16);
  });

  it('marks a dot where it is clicked, in every place', async () => {
    for (let place = 0; place < 20; place += 1) {
      // Places of all kinds within cells; on the screen a pixel of the layer is two.
      const [x, y] = [3 + (place * 13) % 120, 3 + (place * 29) % 120];
      await page.mouse.click(2 * x + 1, 2 * y + 1);
      assert.ok((await cells()).includes(`${Math.floor(x / 8)},${Math.floor(y / 8)}`), `a click at ${x}, ${y} marks nothing there`);
      await page.evaluate(() => /** @type {any} */ (window).brush.undo());
      assert.deepEqual(await cells(), []);
    }
  });

  it('marks by a drag of one pixel, and unmarks by a click of the eraser', async () => {
    await page.mouse.move(101, 101);
    await page.mouse.down();
    await page.mouse.move(102, 101);
    await page.mouse.up();
    assert.ok((await cells()).includes('6,6'));
    await page.evaluate(() => { Object.assign(/** @type {any} */ (window).brush, { erases: true, size: 0.2 }); });
    await page.mouse.click(101, 101);
    assert.deepEqual(await cells(), []);
  });

  it('paints with one finger only, and also where the browser tells of no moves between', async () => {
    await page.evaluate(() => {
      PointerEvent.prototype.getCoalescedEvents = () => [];
      const canvas = /** @type {HTMLCanvasElement} */ (document.querySelector('canvas'));
      canvas.setPointerCapture = () => {};
      const tell = (/** @type {string} */ type, /** @type {number} */ pointerId, /** @type {number} */ x) => canvas.dispatchEvent(new PointerEvent(type, { pointerId, clientX: x, clientY: 8, button: 0 }));
      tell('pointerdown', 1, 8);
      tell('pointerdown', 2, 248);
      tell('pointermove', 2, 247);
      tell('pointermove', 1, 40);
      tell('pointerup', 2, 247);
      tell('pointerup', 1, 40);
    });
    const marked = await cells();
    assert.ok(marked.includes('0,0') && marked.includes('2,0'), marked.join(' '));
    assert.ok(!marked.some((cell) => Number(cell.split(',')[0]) > 4), marked.join(' '));
  });
});
