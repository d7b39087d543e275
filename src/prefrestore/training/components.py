"""Finished components in a working folder: every stage reads those of the stages before it."""

from __future__ import annotations

from pathlib import Path

from prefrestore.errors import WeightsError

_STAGE_OF = {
    "autoencoder": "autoencoder",
    "lq_encoder": "encoder",
    "image_tokenizer": "tokenizer",
    "text_tokenizer": "semantic",
    "language_model": "semantic",
    "transformer": "fidelity",
    "connectors": "fidelity",
}


def component_folder(output_dir: Path, name: str) -> Path:
    """The folder of a finished component.

    Raises:
        WeightsError: it is not there yet; the message names the command that makes it.
    """
    folder = Path(output_dir) / name
    if not folder.is_dir():
        raise WeightsError(
            f"{folder} is not there yet: run `prefrestore train {_STAGE_OF[name]} --output-dir {output_dir}` first"
        )
    return folder
