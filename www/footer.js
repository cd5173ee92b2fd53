import { Inkbloom } from './pkg/index.js';
import { byId } from './dom.js';

/** What draws, where the model is kept, and who made it. */
export class Footer {
  #device = byId('device-line', HTMLParagraphElement);
  #storage = byId('storage-line', HTMLParagraphElement);
  #credits = byId('credits', HTMLDetailsElement);
  #creditText = byId('credit-text', HTMLParagraphElement);
  #model;

  /** @param {string} model */
  constructor(model) {
    this.#model = model;
  }

  /** @param {Inkbloom} ink */
  show(ink) {
    const { kind, name, note } = ink.device;
    this.#device.textContent = [
      // Firefox tells of none which it is.
      kind === 'gpu' ? `Drawn by your graphics card${name === 'GPU' ? '' : ` (${name})`}.` : 'Drawn by your processor.',
      note && `${note[0].toUpperCase()}${note.slice(1)}.`,
      ink.updateNote,
      'Nothing you type leaves this device.',
    ].filter(Boolean).join(' ');
    const { attribution, license } = ink.info;
    this.#creditText.textContent = [attribution, license && `Licence: ${license}`].filter(Boolean).join('\n');
    this.#credits.hidden = this.#creditText.textContent === '';
    this.#showStorage(ink).catch((error) => { this.#storage.textContent = error.message; });
  }

  /** @param {Inkbloom} ink */
  async #showStorage(ink) {
    this.#storage.hidden = false;
    if (!ink.stored) {
      this.#storage.textContent = ink.storageNote ?? '';
      return;
    }
    const megabytes = (await Inkbloom.models.size()) / 1e6;
    const forget = document.createElement('button');
    forget.type = 'button';
    forget.className = 'link';
    forget.textContent = 'Remove it';
    forget.addEventListener('click', async () => {
      try {
        await Inkbloom.models.delete(this.#model);
        this.#storage.textContent = 'The model was removed from this browser. It is downloaded again at the next visit.';
      } catch (error) {
        this.#storage.textContent = error instanceof Error ? error.message : String(error);
      }
    });
    const offline = 'serviceWorker' in navigator ? ', so this page also works offline' : '';
    this.#storage.replaceChildren(`The model (${megabytes.toFixed(1)} MB) is kept in this browser${offline}. `, forget);
  }
}
