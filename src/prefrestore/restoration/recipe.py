"""What restores the photos of a run, as something small: it can be sent to a worker, which loads its own model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prefrestore.files.fingerprints import file_hash
from prefrestore.files.weights import HASH_FILE, folder_hashes
from prefrestore.models.adapter import adapter_folder
from prefrestore.pipeline.load import load_pipeline, pick_device
from prefrestore.pipeline.presets import preset_identity, weights_folder
from prefrestore.restoration.batch import PhotoRestorer
from prefrestore.restoration.gather import GatheringRestorer
from prefrestore.restoration.options import RestoreOptions

# Options that a record holds by a hash, or that change no pixel of what is made.
_NO_PIXELS = frozenset({"background", "max_pixels"})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of ``prefrestore restore``, named as its options. options: without a background model."""

    options: RestoreOptions
    device: str
    dtype: str
    preset: str
    model: Path | None
    preference: bool | Path
    background: Path | None
    crops: bool
    compare: bool
    batch_faces: int | None
    face_size: int | None = None
    quality: int | None = None
    offload: str = "none"
    tile: bool = False

    def __call__(self) -> PhotoRestorer:
        """Load the models; raises what `pick_device`, `load_pipeline` and `load_background` raise."""
        place = pick_device(self.device)
        options = self.options
        if self.background is not None:
            from prefrestore.restoration.background import load_background

            options = replace(options, background=load_background(self.background, device=place))
        pipeline = load_pipeline(
            self.preset,
            self.model,
            place,
            self.dtype,
            preference=self.preference,
            face_size=self.face_size,
            offload=self.offload,
            tile=self.tile,
        )
        given: dict[str, Any] = {"crops": self.crops, "compare": self.compare, "quality": self.quality}
        given["settings"] = self.settings()
        if self.batch_faces is None:
            return PhotoRestorer(pipeline, options, **given)
        return GatheringRestorer(pipeline, options, faces_per_call=self.batch_faces, **given)

    def settings(self) -> dict[str, Any]:
        """What decides the results, as JSON values; weights and models by their hashes, the device left out."""
        from prefrestore import __version__

        folder = weights_folder(self.preset, self.model)
        return {
            "prefrestore": __version__,
            "preset": preset_identity(self.preset),
            "weights": _hash(folder and folder / HASH_FILE),
            "dtype": self.dtype,
            "tile": self.tile,
            "face_size": self.face_size,
            "preference": folder_hashes(adapter_folder(self.preference))
            if isinstance(self.preference, Path)
            else self.preference,
            "background": _hash(self.background),
            "crops": self.crops,
            "compare": self.compare,
            "quality": self.quality,
            "batch_faces": self.batch_faces,
            "options": {name: _as_json(value) for name, value in self._options().items()},
        }

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self.options).items() if name not in _NO_PIXELS}


def _as_json(value: Any) -> Any:
    """A strength by face has names as JSON has them, so that it is equal to what was read back."""
    return {str(key): part for key, part in value.items()} if isinstance(value, dict) else value


def _hash(path: Path | None) -> str | None:
    """None also for a file that is not there: whoever loads it says so."""
    return file_hash(path) if path is not None and path.is_file() else None
