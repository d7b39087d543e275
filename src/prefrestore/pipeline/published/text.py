"""The published text tokenizer: its files, and that it agrees with what the model's configuration says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrestore.errors import InvalidInputError, WeightsError
from prefrestore.models.semantic.instruction import IMAGE, IMAGE_END, IMAGE_START, SCALES, ImageVocabulary
from prefrestore.pipeline.published.tensors import listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# An instruction longer than this many positions is an error.
MAX_CHAT = 2048


def load_text_tokenizer(folder: Path, config: Mapping[str, Any], *, codes: int, rows: int) -> PreTrainedTokenizerFast:
    """The tokenizer of an assembled model.

    Args:
        folder: with ``tokenizer.json``, or with ``vocab.json`` and ``merges.txt``.
        config: the model's ``config.json``.
        codes: size of the image codebook.
        rows: of the language model's embedding table.

    Raises:
        WeightsError: files or tokens are missing, or the configuration names other ids than the tokenizer's.
    """
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    if (folder / "tokenizer.json").is_file():
        kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        kind = Qwen2Tokenizer
    else:
        raise WeightsError(f"{folder}: the text tokenizer is missing (tokenizer.json, or vocab.json and merges.txt)")
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        vocabulary = ImageVocabulary.of(tokenizer)
    except InvalidInputError as error:
        raise WeightsError(f"{folder}: {error}") from error
    except Exception as error:  # the tokenizers library raises bare ones for damaged files
        raise WeightsError(f"{folder}: the text tokenizer cannot be read ({error})") from error
    if vocabulary.size != codes:
        raise WeightsError(f"{folder}: the text tokenizer has {vocabulary.size} image tokens, the codebook {codes}")
    # Training adds <image> to the tokenizer and not to the table. The image's tokens take its place before any look-up.
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows and token != IMAGE]
    if beyond:
        raise WeightsError(f"{folder}: the language model has {rows} rows, none for the token {listed(sorted(beyond))}")
    ids = tokenizer.convert_tokens_to_ids
    found = {
        "image_start_tag_id": ids(IMAGE_START),
        "image_end_tag_id": ids(IMAGE_END),
        "scale_start_token_id": ids(SCALES[0]),
        "image_start_token_id": vocabulary.first,
        "num_image_tokens": vocabulary.size,
        "num_scale_tokens": len(SCALES),
    }
    for entry, value in found.items():
        if config.get(entry) not in (None, value):
            raise WeightsError(f"{folder}: config.json says {entry} {config[entry]}, the text tokenizer {value}")
    tokenizer.model_max_length = min(MAX_CHAT, int(config.get("tokenizer_model_max_length") or MAX_CHAT))
    tokenizer.padding_side = "left"
    return tokenizer
