'use client';
import { useEffect, useRef, useState } from 'react';
// Both may be imported on the server, where they do nothing.
import { Inkbloom } from 'inkbloom';
import 'inkbloom/element';

export default function Page() {
  const canvas = useRef(null);
  const [status, setStatus] = useState('Loading');
  const [model, setModel] = useState();
  useEffect(() => {
    const address = new URLSearchParams(location.search).get('model') ?? '/models/sticker/';
    setModel(address);
    const stop = new AbortController();
    Inkbloom.load({ model: address, device: 'cpu', signal: stop.signal })
      .then(async (ink) => {
        stop.signal.addEventListener('abort', () => ink.dispose());
        const { images: [image] } = await ink.generate({ prompt: '3d emoji of a red apple', seed: 7, signal: stop.signal });
        Object.assign(canvas.current, { width: image.width, height: image.height });
        canvas.current.getContext('2d').putImageData(image, 0, 0);
        setStatus('Drawn');
      })
      .catch((error) => error.code !== 'aborted' && setStatus(error.message));
    return () => stop.abort();
  }, []);
  return (
    <main>
      <p id="status" role="status">{status}</p>
      <canvas id="canvas" ref={canvas} width="128" height="128" />
      {model && <ink-bloom model={model} device="cpu" prompt="flat emoji of a heart" seed="7" />}
    </main>
  );
}
