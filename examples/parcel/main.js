import { Inkbloom, describeProgress } from 'inkbloom';
import 'inkbloom/element';

const canvas = document.getElementById('canvas');
const status = document.getElementById('status');
// Copy a model's folder to public/models/, or name one with ?model=
const model = new URLSearchParams(location.search).get('model') ?? '/models/sticker/';
document.querySelector('ink-bloom').setAttribute('model', model);

Inkbloom.load({ model, device: 'cpu', onProgress: (event) => (status.textContent = describeProgress(event).text) })
  .then(async (ink) => {
    const { images: [image] } = await ink.generate({ prompt: '3d emoji of a red apple', seed: 7 });
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext('2d').putImageData(image, 0, 0);
    status.textContent = 'Drawn';
  })
  .catch((error) => (status.textContent = error.message));
