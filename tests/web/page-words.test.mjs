// What becomes of the words of a prompt before the model gets them, and what is said about them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { beforeEach, describe, it } from 'node:test';
import { NAMES } from '../../www/emoji-names.js';
import { IDEAS } from '../../www/ideas.js';
import { hasEmoji, nameEmoji, putsTogether, strangeWords } from '../../www/words.js';
import { PATIENCE, TINY, draw, usePage } from './support/page.js';

const WORDS = new Set(readFileSync(new URL('../../www/models/sticker/words.txt', import.meta.url), 'utf8').split(/\s+/));

describe('emoji', () => {
  /** @type {[string, string][]} */
  const read = [
    ['🍎', 'red apple'],
    ['a 🐱 with 🎩!', 'a cat face with top hat!'],
    ['☃️🐈‍⬛', 'snowman and black cat'],
    ['🍎🍎 🍎', 'red apple'],
    ['👩🏽‍🚀 on the 🌙', 'woman astronaut on the crescent moon'],
    ['❤️', 'red heart'],
    ['❤', 'red heart'],
    ['❤️‍🔥', 'heart on fire'],
    ['🇫🇷', 'flag France'],
    ['🏴󠁧󠁢󠁳󠁣󠁴󠁿', 'flag Scotland'],
    ['3️⃣ cats', 'keycap 3 cats'],
    ['a # and * 1 ©', 'a # and * 1 copyright'],
    // Not in the table as one, yet its parts are.
    ['🐱‍🚀', 'cat face rocket'],
  ];
  for (const [typed, expected] of read) {
    it(`${typed} is read as “${expected}”`, () => {
      assert.ok(hasEmoji(typed));
      assert.deepEqual(nameEmoji(typed, NAMES), { ...nameEmoji(typed, NAMES), text: expected, unknown: [] });
    });
  }

  it('without a name are left out and told', () => {
    const { text, unknown } = nameEmoji('a 🫨 face', {});
    assert.equal(text, 'a face');
    assert.deepEqual(unknown, ['🫨']);
  });

  it('are not seen where there are none', () => {
    for (const text of ['a red apple', '3 cats # 1 * 2', 'собака', 'Ünïcödé – “quoted”']) {
      assert.ok(!hasEmoji(text), text);
      assert.equal(nameEmoji(text, {}).text, text);
    }
  });
});

describe('words', () => {
  it('that the page itself proposes are known', () => {
    for (const idea of IDEAS) assert.deepEqual(strangeWords(idea, WORDS), { foreign: [], unknown: [] });
  });

  for (const prompt of ['three strawberries', 'a rocket flying to the moon', 'Two WOLVES running', 'a café with glossy cakes', 'my little robot friend', 'leaves, knives and cherries', 'an ox']) {
    it(`of “${prompt}” are known in the form that they have there`, () => assert.deepEqual(strangeWords(prompt, WORDS), { foreign: [], unknown: [] }));
  }

  it('of other scripts, of other languages and of none are told apart', () => {
    assert.deepEqual(strangeWords('собака and 赤いりんご', WORDS), { foreign: ['собака', '赤いりんご'], unknown: [] });
    assert.deepEqual(strangeWords('ein Schmetterling', WORDS), { foreign: [], unknown: ['Schmetterling'] });
    assert.deepEqual(strangeWords('blorptang of xqztv', WORDS), { foreign: [], unknown: ['blorptang', 'xqztv'] });
  });

  it('are not judged where a model has no list', () => {
    assert.deepEqual(strangeWords('blorptang собака'), { foreign: ['собака'], unknown: [] });
  });
});

describe('one thing beside another', () => {
  for (const prompt of ['a dog next to a tree', 'A star ABOVE a house', 'a cat on top of a book', 'a cup to the left of a key']) {
    it(`is “${prompt}”`, () => assert.ok(putsTogether(prompt)));
  }
  for (const prompt of ['fish and chips', 'two cats', 'an umbrella', 'my left hand', 'thunder']) {
    it(`is not “${prompt}”`, () => assert.ok(!putsTogether(prompt)));
  }
});

describe('the page', () => {
  const lab = usePage();
  let { site, page } = lab;
  beforeEach(() => {
    ({ site, page } = lab);
  });
  beforeEach(async () => {
    site.files.set('/bundles/sticker_tiny/words.txt', [...WORDS].join('\n'));
    await page.goto(`${site.url}${TINY}`);
  });
  const hint = () => page.locator('#hint');
  const box = () => page.getByLabel('What shall I draw?');

  it('draws an emoji by its name, says so, and saves it under it', async () => {
    await draw(page, '🍎');
    await hint().getByText('Emoji are read by name: 🍎 “red apple”.').waitFor();
    assert.match(await page.locator('#caption').innerText(), / of red apple seed/);
    const saved = page.waitForEvent('download');
    await page.getByRole('link', { name: 'Save PNG' }).click();
    assert.match((await saved).suggestedFilename(), /red-apple\.png$/);
  });

  it('says in a pause of typing which words mean nothing to the model, and takes it back', async () => {
    await box().fill('a blorptang');
    await hint().getByText('The model never met “blorptang” and has to guess.').waitFor(PATIENCE);
    await box().fill('собака');
    await hint().getByText('The model reads English only; “собака” tells it nothing.').waitFor(PATIENCE);
    await box().fill('12 + 3');
    await hint().getByText('There is no word in this that the model could draw.').waitFor(PATIENCE);
    await box().fill('a red apple');
    await hint().waitFor({ state: 'hidden' });
  });

  it('names the way for one thing beside another, until it is chosen', async () => {
    await page.goto(`${site.url}${TINY.replace('sticker_tiny', 'tokens_tiny')}`);
    await draw(page, 'a cat next to a tree');
    const told = hint().getByText('For one thing beside another choose “laid out first” under “How to draw”.');
    // The words stood there before the model told what it can do.
    await told.waitFor(PATIENCE);
    await page.getByText('Advanced').click();
    await page.getByLabel('How to draw').selectOption('hybrid');
    await told.waitFor({ state: 'hidden', ...PATIENCE });
  });
});
