/**
 * The contract with the Rust core: what `pkg/wasm/inkbloom.js` (made by wasm-bindgen from `src/web/`) exports.
 * Everything it throws is an Error with a `code` of ours and a message for people.
 */
import type { Options } from './options.js';

export type DeviceChoice = 'auto' | 'gpu' | 'cpu';

export interface DeviceInfo {
  kind: 'gpu' | 'cpu';
  name: string;
  /** Why this one, when it is not the first choice: a sentence for people. */
  note?: string;
}

export interface Shard {
  /** Relative to the manifest. */
  file: string;
  size: number;
  sha256: string;
}

export interface EngineInfo {
  name: string;
  sizes: [number, number][];
  /** Side in pixels of the squares that a mask acts on. */
  cell: number;
  styles: string[];
  default_steps: number;
  default_guidance: number;
  max_text_tokens: number;
  alpha: 'none' | 'straight' | 'premultiplied';
  license: string;
  attribution: string;
  /** Whether it takes a picture and a mask, and nothing less. */
  repaints_only: boolean;
  /** Whether it has a scorer, which chooses among candidates; fetched when candidates are first asked for. */
  chooses: boolean;
  /** The ways of drawing, the default first. */
  ways: ('diffusion' | 'tokens' | 'hybrid')[];
  /** How many bytes each of them has yet to fetch, and what animates as `frames`. */
  downloads: Record<string, number>;
  /** Whether it denoises the frames of an animation together; what it needs for that is fetched when frames are first asked for. */
  animates: boolean;
  /** How many frames an animation of it has where nobody says. */
  default_frames: number;
  /** How the device keeps matrices and kernels; all arithmetic is f32. */
  weights: 'f32' | 'f16';
  /** Whether the text encoders leave the device after each prompt. */
  releases_text: boolean;
  /** How many such models there is memory for. */
  copies: number;
}

export interface EngineRequest extends Options {
  init?: Pixels;
  mask?: Pixels;
  preview?: boolean;
  /** Whether anybody sees the steps or may cancel between them; then the device is at most one step behind. */
  watched?: boolean;
  /** Starting noise [C, h, w]; stands in for the seed. */
  noise?: Float32Array;
  raw?: boolean;
}

export interface Pixels {
  width: number;
  height: number;
  /** RGBA8, straight alpha. */
  data: Uint8ClampedArray;
}

export interface EngineStep {
  /** Codes of the small picture, codes of the large one, or steps from noise; steps are counted in each. */
  stage: 'layout' | 'detail' | 'denoise';
  image: number;
  count: number;
  /** From 1, told when the step is done. */
  step: number;
  steps: number;
  preview?: Pixels;
  /** Of a candidate, told once its steps are done: its seed, and the scorer's word on it, -1 to 1. */
  seed?: string;
  score?: number;
}

export interface EngineAnimation {
  frames: Pixels[];
  frame_ms: number;
}

/** How an animation becomes a file. */
export interface EngineSave {
  /** A media type. */
  type: string;
  quality?: number;
  side?: number;
  max_bytes?: number;
}

export interface EngineFile {
  bytes: Uint8Array<ArrayBuffer>;
  /** What it is, which a browser may call by another name than was asked for. */
  type: string;
  /** Sentences, for example that the quality was lowered to keep a limit. */
  notes: string[];
}

export interface EngineDrawing {
  images: Pixels[];
  /** Of each picture, where it was asked to move. */
  animations?: EngineAnimation[];
  /** What the noise began from. */
  seed: string;
  /** The seed of each picture. */
  seeds: string[];
  /** Of each picture, where there were candidates; the best first. */
  scores?: number[];
  warnings: string[];
  timings: { text_ms: number; denoise_ms: number; decode_ms: number };
  raw?: Float32Array[];
}

export class Loader {
  /** Checks the manifest before anything is downloaded, and picks the device and how the model lives in `memoryMiB` of it. */
  static open(manifest: string, device: DeviceChoice, memoryMiB?: number): Promise<Loader>;
  device(): DeviceInfo;
  /** What is to be pushed: not the shards of optional components, which come when a request needs them. */
  shards(): Shard[];
  /** Compiles the device's shaders while shards come, awaiting `pause` in between; gives whether that could be done. Never rejects. */
  compile(pause: () => Promise<void>): Promise<boolean>;
  /** Checks size and SHA-256, then moves the shard's tensors to the device. Any order. */
  push(index: number, bytes: Uint8Array): Promise<void>;
  /** Consumes the loader. */
  finish(): Promise<Model>;
  free(): void;
}

export class Model {
  info(): EngineInfo;
  device(): DeviceInfo;
  /** Compiles the device's shaders, where the loader did not. */
  warm_up(): Promise<void>;
  /** The loader of text encoders that were released and must be back before the next picture. */
  text_loader(): Loader | undefined;
  /** The same of optional components that the request needs. */
  optional_loader(request: EngineRequest): Loader | undefined;
  /** Takes such a loader, once all its shards are pushed. */
  add(loader: Loader): void;
  /** `onStep` answers false to cancel; then this rejects with the code `aborted`. */
  generate(request: EngineRequest, onStep: (step: EngineStep) => Promise<boolean>): Promise<EngineDrawing>;
  free(): void;
}

/** Moves a finished picture. */
export function animate(image: Pixels, options: Partial<Options>): EngineAnimation;
/** `still` makes a lossy WebP; without it, WebP is lossless. */
export function encode_animation(animation: EngineAnimation, save: EngineSave, still?: (image: Pixels, quality: number, alphaQuality: number) => Uint8Array): Promise<EngineFile>;

export default function init(input: { module_or_path: Response | URL | string }): Promise<{ memory: WebAssembly.Memory }>;
