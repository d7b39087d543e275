"""Blind face restoration by semantic tokens and a flow-matching transformer (Pref-Restore, arXiv 2601.19506).

The public names are loaded when they are first used, so ``import prefrestore`` costs nothing:

* :class:`PrefRestorePipeline`: aligned degraded faces in, restored faces out.
* :func:`load_preset_pipeline`: the pipeline with the weights that come with the package.
* :func:`restore_photo`: a whole photo in, the whole photo with its faces restored out.
* :func:`read_photo`, :func:`write_photo`: files to photos and back, metadata included.
* :class:`PrefRestoreError`: the base of every error that is raised on purpose.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefrestore.errors import PrefRestoreError
    from prefrestore.pictures.encode import write_photo
    from prefrestore.pictures.read import read_photo
    from prefrestore.pipeline.build import load_preset_pipeline
    from prefrestore.pipeline.pipeline import PrefRestorePipeline
    from prefrestore.restoration.photo import restore_photo

__version__ = "0.1.0"

__all__ = [
    "PrefRestoreError",
    "PrefRestorePipeline",
    "__version__",
    "load_preset_pipeline",
    "read_photo",
    "restore_photo",
    "write_photo",
]

_HOMES = {
    "PrefRestoreError": "prefrestore.errors",
    "PrefRestorePipeline": "prefrestore.pipeline.pipeline",
    "load_preset_pipeline": "prefrestore.pipeline.build",
    "read_photo": "prefrestore.pictures.read",
    "restore_photo": "prefrestore.restoration.photo",
    "write_photo": "prefrestore.pictures.encode",
}


def __getattr__(name: str) -> object:
    """Import the module that holds a public name when the name is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
