// <ink-bloom> on a page without a script of its own, in a real browser.
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { noWorkers, useLab } from './support/lab.js';

const TINY = '/bundles/sticker_tiny/';
const APPLE = `model="${TINY}" device="cpu" prompt="3d emoji of a red apple"`;

const lab = useLab();

/** Shows elements. @param {string} html */
async function show(html) {
  lab.site.files.set('/element.html', `<!doctype html><meta charset="utf-8"><title>Element</title>
    <script type="module" src="/pkg/element.js"></script><script type="module" src="/element-test.js"></script><main>${html}</main>`);
  await lab.page.goto(`${lab.site.url}element.html`);
}

/** @returns {Promise<[id: string, name: string, code?: string][]>} */
const told = () => lab.page.evaluate(() => /** @type {any} */ (globalThis).told);

/** How many pictures an element has drawn. @param {string} id */
const drawings = async (id) => (await told()).filter(([who, name]) => who === id && name === 'ink-image').length;

/** Waits for an element's nth event of a name. @param {string} id @param {number} count @param {string} [name] */
const heard = (id, count, name = 'ink-image') => lab.page.waitForFunction(([who, what, times]) => /** @type {any} */ (globalThis).told
  .filter((/** @type {string[]} */ [from, event]) => from === who && event === what).length >= Number(times), [id, name, count]);

/** @param {string} id */
const pixels = (id) => lab.page.evaluate((which) => document.getElementById(which)?.shadowRoot?.querySelector('canvas')?.toDataURL(), id);

/** Long enough for a drawing that should not be there. */
const wait = () => new Promise((resolve) => setTimeout(resolve, 1500));

beforeEach(() => {
  lab.site.files.set('/element-test.js', `globalThis.told = [];
    for (const name of ['ink-progress', 'ink-step', 'ink-image', 'ink-error'])
      addEventListener(name, ({ target, detail }) => told.push([target.id, name, detail.code]));`);
});

describe('the <ink-bloom> element', () => {
  it('draws its prompt, shares one engine, and tells what happens', async () => {
    await show(`<ink-bloom id="one" ${APPLE} seed="5"></ink-bloom><ink-bloom id="two" ${APPLE} seed="5" controls></ink-bloom>`);
    await heard('one', 1);
    await heard('two', 1);
    assert.equal(lab.page.workers().length, 1);
    assert.ok(await pixels('one') === await pixels('two'), 'the same prompt and seed drew different pictures');

    await lab.page.locator('#two input').fill('flat emoji of a heart');
    await lab.page.locator('#two button').click();
    await heard('two', 2);
    assert.ok(await pixels('one') !== await pixels('two'), 'the new prompt drew the old picture');
    assert.equal(await lab.page.locator('#two').getAttribute('prompt'), 'flat emoji of a heart');

    await lab.page.locator('#one').evaluate((element) => element.setAttribute('seed', 'nonsense'));
    await heard('one', 1, 'ink-error');
    assert.deepEqual((await told()).find(([, name]) => name === 'ink-error'), ['one', 'ink-error', 'bad-input']);
    assert.match(await lab.page.locator('#one [role=status]').innerText(), /`seed` must be/);

    await lab.page.evaluate(() => document.querySelectorAll('ink-bloom').forEach((element) => element.remove()));
    await noWorkers(lab.page);
  });

  it('has a form with `controls` only, and draws no other picture when they come and go', async () => {
    await show(`<ink-bloom id="none" ${APPLE}></ink-bloom><ink-bloom id="false" ${APPLE} controls="false"></ink-bloom><ink-bloom id="some" ${APPLE} controls></ink-bloom>`);
    for (const id of ['none', 'false', 'some']) await heard(id, 1);
    assert.equal(await lab.page.locator('#none form').isVisible(), false);
    assert.equal(await lab.page.locator('#false form').isVisible(), false);
    assert.equal(await lab.page.locator('#some form').isVisible(), true);
    const before = await pixels('none');
    await lab.page.locator('#none').evaluate((element) => element.toggleAttribute('controls'));
    assert.equal(await lab.page.locator('#none form').isVisible(), true);
    assert.equal(await lab.page.locator('#none input').inputValue(), '3d emoji of a red apple');
    await lab.page.locator('#none').evaluate((element) => element.setAttribute('controls', 'false'));
    assert.equal(await lab.page.locator('#none form').isVisible(), false);
    await wait();
    assert.equal(await drawings('none'), 1);
    assert.ok(await pixels('none') === before);
  });

  it('keeps its picture when it is moved, or taken away and brought back', async () => {
    await show(`<ink-bloom id="one" ${APPLE}></ink-bloom><aside></aside>`);
    await heard('one', 1);
    const before = await pixels('one');
    await lab.page.evaluate(async () => {
      const element = /** @type {HTMLElement} */ (document.getElementById('one'));
      const aside = /** @type {HTMLElement} */ (document.querySelector('aside'));
      aside.append(element);
      await new Promise((resolve) => setTimeout(resolve, 100));
      element.remove();
      await new Promise((resolve) => setTimeout(resolve, 100));
      aside.append(element);
      // As frameworks do when they render again.
      element.setAttribute('prompt', String(element.getAttribute('prompt')));
    });
    await wait();
    assert.equal(await drawings('one'), 1);
    assert.ok(await pixels('one') === before);
    await lab.page.locator('#one').evaluate((element) => element.setAttribute('seed', '9'));
    await heard('one', 2);
    assert.ok(await pixels('one') !== before, 'another seed drew the same picture');
  });

  it('draws another picture when the same prompt is sent again', async () => {
    await show(`<ink-bloom id="one" ${APPLE} controls></ink-bloom>`);
    await heard('one', 1);
    const before = await pixels('one');
    await lab.page.locator('#one button').click();
    await heard('one', 2);
    assert.ok(await pixels('one') !== before);
  });

  it('takes empty attributes for left out', async () => {
    await show(`<ink-bloom id="one" ${APPLE} negative-prompt="" seed="" steps="" guidance=" " width="" height="" worker-url="" wasm-url=""></ink-bloom>
      <ink-bloom id="two" model="" prompt="" seed=""></ink-bloom>
      <ink-bloom id="three" model="${TINY}" device="" prompt="a dog" steps="1" seed="-1"></ink-bloom>`);
    await heard('one', 1);
    await heard('three', 1);
    assert.deepEqual((await told()).filter(([, name]) => name === 'ink-error'), []);
  });

  it('draws when it comes back after it was taken away too early', async () => {
    await show('<p>Nothing yet</p>');
    await lab.page.evaluate(async (model) => {
      const element = Object.assign(document.createElement('ink-bloom'), { id: 'one' });
      for (const [name, value] of Object.entries({ model, device: 'cpu', prompt: 'a red apple', steps: '2' })) element.setAttribute(name, value);
      document.body.append(element);
      await new Promise((resolve) => setTimeout(resolve, 20));
      element.remove();
      await new Promise((resolve) => setTimeout(resolve, 100));
      document.body.append(element);
    }, TINY);
    await heard('one', 1);
    assert.equal(lab.page.workers().length, 1);
    assert.equal(await drawings('one'), 1);
  });

  it('stops the download when it is cancelled, and says so', async () => {
    lab.site.meddle = (request) => Boolean(request.url?.endsWith('.bin'));
    await show(`<ink-bloom id="one" ${APPLE} controls></ink-bloom>`);
    await lab.page.locator('#one button', { hasText: 'Cancel' }).click();
    await heard('one', 1, 'ink-error');
    assert.match(await lab.page.locator('#one [role=status]').innerText(), /cancelled/);
    await noWorkers(lab.page);
    lab.site.meddle = undefined;
    await lab.page.locator('#one button', { hasText: 'Draw' }).click();
    await heard('one', 1);
  });
});
