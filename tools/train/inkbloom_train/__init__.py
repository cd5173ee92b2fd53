"""Trains Inkbloom's text-to-sticker model: data set, VAE, Diffusion Transformer, few-step student, and the
tokenizer, token transformer and hybrid beside them.

Each stage is one module with one function of the same name; ``cli`` runs them in this order:

    data -> vae -> latents -> dit -> distill -> vq -> autoregress -> hybrid -> scorer -> evaluate -> export
"""
