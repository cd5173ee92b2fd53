import { byId } from './dom.js';
import { paint, recipeLine } from './sticker.js';
import { reasonOf } from './store.js';

/** @typedef {import('./sticker.js').Sticker} Sticker */

const KEPT = 'Kept in this browser. Pick one to have it back with its words and seed.';

/** All pictures that are kept, newest first. */
export class Gallery {
  #root = byId('gallery', HTMLElement);
  #note = byId('gallery-note', HTMLParagraphElement);
  #list = byId('stickers', HTMLUListElement);
  #removeAll = byId('remove-all', HTMLButtonElement);
  #store;
  #onPick;
  /** @type {WeakMap<Sticker, HTMLButtonElement>} */
  #buttons = new WeakMap();
  /** The numbers under which they are stored. @type {WeakMap<Sticker, Promise<number>>} */
  #keys = new WeakMap();

  /**
   * @param {import('./store.js').Store} store
   * @param {(sticker: Sticker) => void} onPick
   */
  constructor(store, onPick) {
    this.#store = store;
    this.#onPick = onPick;
    this.#note.textContent = KEPT;
    this.#removeAll.addEventListener('click', () => this.#askToRemoveAll());
    this.#removeAll.addEventListener('blur', () => this.#calm());
  }

  /** Brings back what earlier visits drew, one by one: a page full of them in one go would keep it from answering. */
  async restore() {
    try {
      const keys = await this.#store.list();
      for (const key of keys.reverse()) {
        const sticker = await this.#store.sticker(key);
        if (!sticker) continue;
        this.#keys.set(sticker, Promise.resolve(key));
        this.#list.append(this.#toItem(sticker));
        this.#root.hidden = false;
      }
    } catch (error) {
      this.#refused(error);
    }
  }

  /** @param {Sticker} sticker */
  add(sticker) {
    this.#list.prepend(this.#toItem(sticker));
    this.#root.hidden = false;
    const key = this.#store.add(sticker);
    this.#keys.set(sticker, key);
    key.then(() => { this.#note.textContent = KEPT; }, (error) => this.#refused(error));
  }

  /** Marks what is shown; one that is not here yet, for it was not the best of its drawing, was picked and is kept. @param {Sticker} shown */
  show(shown) {
    if (!this.#buttons.has(shown)) this.add(shown);
    const current = this.#buttons.get(shown);
    for (const button of this.#list.querySelectorAll('.pick')) button.setAttribute('aria-current', String(button === current));
  }

  /** @param {unknown} error */
  #refused(error) {
    this.#note.textContent = `This browser does not keep new pictures (${reasonOf(error)}): they are gone when the page is closed. Save those that you like, or remove some.`;
  }

  /** @param {Sticker} sticker */
  #toItem(sticker) {
    const canvas = document.createElement('canvas');
    paint(canvas, sticker.image);
    const pick = document.createElement('button');
    pick.type = 'button';
    pick.className = 'pick';
    pick.title = sticker.words;
    pick.setAttribute('aria-label', `${sticker.words}, ${recipeLine(sticker)}`);
    pick.append(canvas);
    pick.addEventListener('click', () => this.#onPick(sticker));
    this.#buttons.set(sticker, pick);

    const remove = document.createElement('button');
    remove.type = 'button';
    remove.className = 'remove';
    remove.textContent = '×';
    remove.title = 'Remove this picture';
    remove.setAttribute('aria-label', `Remove ${sticker.words}, ${recipeLine(sticker)}`);
    const item = document.createElement('li');
    item.append(pick, remove);
    remove.addEventListener('click', () => this.#remove(sticker, item));
    return item;
  }

  /**
   * @param {Sticker} sticker
   * @param {HTMLLIElement} item
   */
  #remove(sticker, item) {
    // The next one takes its place, also for the keyboard.
    const neighbour = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    /** @type {HTMLElement | null | undefined} */ (neighbour?.querySelector('.remove'))?.focus();
    this.#root.hidden = this.#list.childElementCount === 0;
    // One that was never stored is gone already.
    this.#keys.get(sticker)?.then((key) => this.#store.remove(key)).catch(() => {});
  }

  /** Asks once more in place of a dialog, which some frames forbid. */
  #askToRemoveAll() {
    if (this.#removeAll.dataset.asked === undefined) {
      this.#removeAll.dataset.asked = '';
      const count = this.#list.childElementCount;
      this.#removeAll.textContent = count === 1 ? 'Really remove it?' : `Really remove all ${count}?`;
      return;
    }
    this.#calm();
    this.#list.replaceChildren();
    this.#root.hidden = true;
    this.#store.removeAll().catch(() => {});
  }

  #calm() {
    delete this.#removeAll.dataset.asked;
    this.#removeAll.textContent = 'Remove all';
  }
}
