import { StrictMode, useEffect, useRef, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Inkbloom } from 'inkbloom';

function Picture({ model, prompt, seed }) {
  const canvas = useRef(null);
  const [status, setStatus] = useState('Loading');
  useEffect(() => {
    // Loads of one model share an engine, so effects that run twice cost nothing.
    const stop = new AbortController();
    Inkbloom.load({ model, device: 'cpu', signal: stop.signal })
      .then(async (ink) => {
        stop.signal.addEventListener('abort', () => ink.dispose());
        const { images: [image] } = await ink.generate({ prompt, seed, signal: stop.signal });
        Object.assign(canvas.current, { width: image.width, height: image.height });
        canvas.current.getContext('2d').putImageData(image, 0, 0);
        setStatus('Drawn');
      })
      .catch((error) => error.code !== 'aborted' && setStatus(error.message));
    return () => stop.abort();
  }, [model, prompt, seed]);
  return <><p id="status" role="status">{status}</p><canvas id="canvas" ref={canvas} width="128" height="128" /></>;
}

const model = new URLSearchParams(location.search).get('model') ?? '/models/sticker/';
createRoot(document.getElementById('app')).render(
  <StrictMode><Picture model={model} prompt="3d emoji of a red apple" seed={7} /></StrictMode>,
);
