"""Texture: autoencoder latents, the connectors that condition the denoiser, and the flow samplers."""
