"""This package's own component classes, found by name."""

from __future__ import annotations

from typing import Any

from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.models.semantic.tokenizer import SemanticTokenizer
from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.conditioning import Connectors
from prefrestore.models.texture.input_skip import InputSkip
from prefrestore.models.texture.lq_encoder import LatentEncoder

_OWN = (SemanticTokenizer, TATok, Connectors, ResidualAutoencoder, LatentEncoder, InputSkip)
COMPONENTS = {component.__name__: component for component in _OWN}
"""By the names that pipeline folders hold."""


def find_components(config: Any) -> Any:
    """The configuration of a pipeline folder, its entries ``[module, class]`` naming today's modules.

    A folder names the module in which a class lived when it was saved, and modules move. ``config`` is what diffusers'
    ``load_config`` returns: the entries, or a tuple that begins with them. Changed in place.
    """
    for value in (config[0] if isinstance(config, tuple) else config).values():
        own = isinstance(value, (list, tuple)) and str(value[0]).startswith("prefrestore.")
        if own and value[1] in COMPONENTS:
            value[0] = COMPONENTS[value[1]].__module__
    return config
