"""Published weights by their hub id, and ``from_pretrained`` for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrestore.errors import InvalidInputError
from prefrestore.pipeline.published.loading import ADAPTER_FOLDER, ADAPTER_NAME, align, is_assembled, load_arguments

if TYPE_CHECKING:
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
# What an assembled model's folder holds that is read; nothing else is fetched.
PATTERNS = ("*.json", "*.safetensors", "merges.txt", f"{ADAPTER_FOLDER}/*")


def find_assembled(name: Path | str, **hub: Any) -> Path | None:
    """The folder of an assembled model, fetched if ``name`` is a hub id; None where it is something else.

    Args:
        hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` ... of huggingface_hub.
    """
    if Path(name).exists():
        return Path(name) if is_assembled(Path(name)) else None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    for file in ("model_index.json", "config.json"):
        try:
            found = Path(hf_hub_download(str(name), file, **hub))
        except EntryNotFoundError:
            continue
        except (HFValidationError, RepositoryNotFoundError):
            return None
        if file == "model_index.json" or not is_assembled(found.parent):
            return None
        return Path(snapshot_download(str(name), allow_patterns=list(PATTERNS), **hub))
    return None


def load_published(name: Path | str, *, preference: bool = True, **options: Any) -> dict[str, Any] | None:
    """`load_arguments` with the options of a diffusers ``from_pretrained``; None where ``name`` is something else.

    Args:
        name: a folder, or a hub id.
        preference: False leaves out the preference adapter that lies with the weights.
        options: ``dtype`` (or ``torch_dtype``), ``lora``, ``architecture``, and those of the hub, `OPTIONS`.

    Raises:
        InvalidInputError: ``lora`` or ``architecture`` came with another layout, or an option has no meaning here.
        WeightsError: see `load_arguments`.
    """
    own = {key: options.pop(key, None) for key in ("lora", "architecture")}
    hub = {key: options[key] for key in OPTIONS if options.get(key) is not None}
    folder = find_assembled(name, **hub)
    if folder is None:
        if named := [key for key, value in own.items() if value is not None]:
            raise InvalidInputError(f"{name} is not in the published layout, so {', '.join(named)} has no meaning")
        return None
    dtypes = [options.pop(key, None) for key in ("dtype", "torch_dtype")]
    if unknown := [key for key, value in options.items() if key not in OPTIONS and value is not None]:
        raise InvalidInputError(f"{', '.join(unknown)}: not an option when weights in the published layout are loaded")
    return load_arguments(folder, dtype=dtypes[0] or dtypes[1], preference=preference, **own)


def add_preference(pipeline: PrefRestorePipeline, name: Path | str, **options: Any) -> None:
    """Put the adapter that lies with a pipeline in this package's layout (folder or hub id) on it, if there is one.

    Raises:
        WeightsError: it does not fit.
    """
    folder = Path(name)
    if not folder.exists():
        from huggingface_hub import snapshot_download

        hub = {key: options[key] for key in OPTIONS if options.get(key) is not None}
        folder = Path(snapshot_download(str(name), allow_patterns=[f"{ADAPTER_NAME}/*"], **hub))
    if (folder / ADAPTER_NAME).is_dir():
        align(pipeline.transformer, folder / ADAPTER_NAME)
