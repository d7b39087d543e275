"""Semantics: an image's discrete tokens, the chat that carries them, and the language model that writes the
clean image's tokens and, on the way, the dense latent queries."""
