import { byId, reveal } from './dom.js';
import { cutOut, paint, recipeLine } from './sticker.js';
import { fileName } from './words.js';

/** @typedef {import('./sticker.js').Sticker} Sticker */

/** The style sheet's narrow layout. */
const ONE_COLUMN = '(max-width: 53.99rem)';

/** Where a picture is seen while it is drawn and after, with what can be done with it. */
export class Stage {
  #sheet = byId('sheet', HTMLDivElement);
  #canvas = byId('canvas', HTMLCanvasElement);
  #set = byId('set', HTMLDivElement);
  #caption = byId('caption', HTMLElement);
  #actions = byId('actions', HTMLDivElement);
  #save = byId('download', HTMLAnchorElement);
  #saveSticker = byId('download-sticker', HTMLAnchorElement);
  #link = byId('link', HTMLButtonElement);
  #status = byId('stage-status', HTMLParagraphElement);
  #onShow;
  /** Ends what is played. */
  #stop = () => {};
  /** What is on the stage, and the pictures of the same drawing. @type {{ sticker: Sticker, set: Sticker[] } | undefined} */
  #shown;
  /** The files of what is shown, once they are made. @type {Promise<import('./sticker.js').Files> | undefined} */
  #files;

  /**
   * @param {object} events
   * @param {(sticker: Sticker) => void} events.onShow
   * @param {(sticker: Sticker) => void} events.onChange it is to be drawn on from
   * @param {(sticker: Sticker) => string} events.linkTo
   */
  constructor({ onShow, onChange, linkTo }) {
    this.#onShow = onShow;
    const copy = byId('copy', HTMLButtonElement);
    const share = byId('share', HTMLButtonElement);
    copy.hidden = typeof ClipboardItem === 'undefined' || !navigator.clipboard;
    share.hidden = !navigator.canShare?.({ files: [new File([], 'probe.png', { type: 'image/png' })] });

    byId('change', HTMLButtonElement).addEventListener('click', () => {
      if (this.#shown) onChange(this.#shown.sticker);
    });
    copy.addEventListener('click', () => this.#passOn('The picture is on the clipboard.', async (_, files) => {
      await navigator.clipboard.write([new ClipboardItem({ 'image/png': files.then(({ png }) => png) })]);
    }));
    share.addEventListener('click', () => this.#passOn('Shared.', async (sticker, files) => {
      const file = new File([(await files).sticker], `${fileName(sticker.words)}.png`, { type: 'image/png' });
      await navigator.share({ files: [file], title: sticker.words });
    }));
    this.#link.addEventListener('click', () => this.#passOn('The link is on the clipboard. Whoever opens it draws the same picture.', async (sticker) => {
      await navigator.clipboard.writeText(linkTo(sticker));
    }));
  }

  /** Brings the picture into view, all of it; where the box stands below it, as much of that as there is room for. */
  reveal() {
    if (matchMedia(ONE_COLUMN).matches) this.#sheet.scrollIntoView({ block: 'start' });
    else reveal(this.#sheet);
  }

  /**
   * A picture on its way. From here to `show` or `restore` nothing on the stage belongs to the one before.
   *
   * @param {import('./pkg/index.js').Step & { preview: ImageData }} step
   * @param {string} words
   */
  preview({ preview, image, count }, words) {
    if (this.#sheet.dataset.state !== 'drawing') {
      this.still();
      this.#sheet.dataset.state = 'drawing';
      this.#actions.hidden = true;
      this.#status.textContent = '';
      this.#describe(words, 'is being drawn');
      this.#showSet(count > 1 ? Array.from({ length: count }, () => undefined) : []);
    }
    paint(this.#canvas, preview);
    const small = this.#set.querySelectorAll('canvas')[image];
    if (small) paint(small, preview);
    this.#canvas.setAttribute('aria-label', `Being drawn: ${words}`);
  }

  /**
   * @param {Sticker} sticker
   * @param {Sticker[]} [set] all pictures of its drawing
   */
  show(sticker, set = [sticker]) {
    this.#shown = { sticker, set };
    this.still();
    this.#canvas.setAttribute('aria-label', `Sticker: ${sticker.words}`);
    this.#sheet.dataset.state = 'done';
    this.#status.textContent = '';
    this.#describe(sticker.words, recipeLine(sticker));
    this.#showSet(set.length > 1 ? set : []);
    this.#link.hidden = sticker.fromPicture || !navigator.clipboard;
    this.#offerFiles(sticker);
    this.#onShow(sticker);
  }

  /** Plays what is shown. @param {import('./pkg/index.js').Animation} animation */
  play(animation) {
    this.#stop();
    this.#sheet.dataset.moving = '';
    this.#stop = animation.play(this.#canvas);
  }

  /** What is shown stands still again. */
  still() {
    this.#stop();
    delete this.#sheet.dataset.moving;
    if (this.#shown) paint(this.#canvas, this.#shown.sticker.image);
  }

  /** Back to what was there before a drawing that came to nothing. */
  restore() {
    if (this.#shown) this.show(this.#shown.sticker, this.#shown.set);
    else {
      this.#sheet.dataset.state = 'empty';
      this.#caption.replaceChildren();
      this.#showSet([]);
    }
  }

  /**
   * @param {string} words
   * @param {string} more
   */
  #describe(words, more) {
    const title = document.createElement('b');
    title.textContent = words;
    const rest = document.createElement('span');
    rest.textContent = ` ${more}`;
    this.#caption.replaceChildren(title, rest);
  }

  /** The pictures of a drawing, small and side by side; those that are not drawn yet are empty. @param {(Sticker | undefined)[]} set */
  #showSet(set) {
    this.#set.hidden = set.length === 0;
    this.#set.replaceChildren(...set.map((sticker, index) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.disabled = sticker === undefined;
      button.setAttribute('aria-label', `Picture ${index + 1} of ${set.length}`);
      button.setAttribute('aria-pressed', String(sticker !== undefined && sticker === this.#shown?.sticker));
      const canvas = document.createElement('canvas');
      button.append(canvas);
      if (sticker) {
        paint(canvas, sticker.image);
        button.addEventListener('click', () => {
          this.show(sticker, /** @type {Sticker[]} */ (set));
          /** @type {HTMLElement} */ (this.#set.children[index]).focus();
        });
      }
      return button;
    }));
  }

  /** @param {Sticker} sticker */
  async #offerFiles(sticker) {
    this.#actions.dataset.of = '';
    this.#files = cutOut(sticker.image);
    const { png, sticker: cut } = await this.#files;
    if (this.#shown?.sticker !== sticker || this.#sheet.dataset.state !== 'done') return;
    const name = fileName(sticker.words);
    offer(this.#save, png, `${name}.png`);
    offer(this.#saveSticker, cut, `${name}-sticker.png`);
    this.#actions.dataset.of = sticker.words;
    this.#actions.hidden = false;
  }

  /**
   * @param {string} done
   * @param {(sticker: Sticker, files: Promise<import('./sticker.js').Files>) => Promise<void>} action
   */
  async #passOn(done, action) {
    if (!this.#shown || !this.#files) return;
    try {
      await action(this.#shown.sticker, this.#files);
      this.#status.textContent = done;
    } catch (error) {
      // Closing the share sheet is no failure.
      if (error instanceof DOMException && error.name === 'AbortError') return;
      this.#status.textContent = 'This browser did not allow that. “Save PNG” always works.';
    }
    reveal(this.#status);
  }
}

/**
 * @param {HTMLAnchorElement} link
 * @param {Blob} file
 * @param {string} name
 */
function offer(link, file, name) {
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(file);
  link.download = name;
}
