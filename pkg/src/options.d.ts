/** Written from `src/pipeline/request.rs` by its test; change the options there. */
export type Options = { 
/**
 * What to draw
 */
prompt: string, 
/**
 * What to steer away from
 */
negativePrompt?: string, 
/**
 * The same seed gives the same picture; picture i of a count has the seed + i
 */
seed?: string, 
/**
 * How many pictures
 */
count?: number, 
/**
 * Draw N pictures, from the seed on, and choose the best by the model's scorer: best first, each with its seed and
 * score
 */
candidates?: number, 
/**
 * Which of the candidates come back: the best, as many as the count says, or all [default: best]
 */
keep?: "best" | "all", 
/**
 * How to draw, where the model has several ways [default: diffusion]
 */
way?: "diffusion" | "tokens" | "hybrid", 
/**
 * How candidates are searched: best draws all of them to the end; beam, of the ways tokens and hybrid, only those
 * whose small pictures the scorer likes best [default: best with candidates, else sample]
 */
search?: "sample" | "best" | "beam", 
/**
 * How many candidates beam search draws to the end [default: 2, or as many as the count says]
 */
beams?: number, 
/**
 * Of the ways tokens and hybrid: how freely codes are drawn; below 1 the likely ones more often, 0 the likeliest only
 * [default: the model's]
 */
temperature?: number, 
/**
 * Draw codes from the N likeliest only [default: the model's]
 */
topK?: number, 
/**
 * Draw codes from the likeliest that together have this share of all likelihood, above 0 and up to 1 [default: the
 * model's]
 */
topP?: number, 
/**
 * Denoising steps [default: the model's]
 */
steps?: number, 
/**
 * Classifier-free guidance: how strictly the prompt is followed; 1 is none and halves the work [default: the model's]
 */
guidance?: number, 
/**
 * Of models that are but told the guidance, as Flux is: by how much the negative prompt steers, above 1 (diffusers'
 * true_cfg_scale) [default: 1, which leaves it unused]
 */
trueGuidance?: number, 
/**
 * Skip-layer guidance of Stable Diffusion 3: push away from what is drawn without these layers, counted from 0 (7,8,9
 * for 3.5 medium)
 */
skipLayers?: Array<number>, 
/**
 * In pixels; with a picture to start from, its size [default: the model's]
 */
width?: number, 
/**
 * As the width
 */
height?: number, 
/**
 * Sample with this scheduler, a short name or a diffusers class: ddpm, ddim, dpm++, dpm++-single, unipc, deis, euler,
 * euler-a, heun, lms, kdpm2, kdpm2-a, pndm, lcm, tcd, flow-euler, flow-heun [default: the model's]
 */
scheduler?: string, 
/**
 * Fresh noise in each step of ddim or tcd, 0 to 1 [default: 0]
 */
eta?: number, 
/**
 * Noise that each step of euler or flow-heun adds before it goes down, as diffusers' s_churn
 */
churn?: number, 
/**
 * How much of the picture to start from is drawn anew, above 0 and up to 1 [default: 0.8; with a mask 1]
 */
strength?: number, 
/**
 * Decode in tiles of N pixels a side, at least 16 latent positions, with blended seams [default: in one piece, or in
 * the largest that the memory plan has room for]
 */
tile?: number, 
/**
 * How many frames: denoised together by models that animate, 1 being a still; of a motion 4 to 100 [default: the
 * model's; with a motion 16]
 */
frames?: number, 
/**
 * Frames shown in a second, 1 to 50 [default: the model's; with a motion 12.5]
 */
fps?: number, 
/**
 * Move the finished picture along a path that closes; every model can
 */
motion?: "bounce" | "spin" | "wobble" | "pulse" | "float" | "shake" | "jelly", };
