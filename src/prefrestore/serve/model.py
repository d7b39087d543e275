"""The model: loaded behind the page, used by the one worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefrestore.errors import PrefRestoreError
from prefrestore.serve.problems import Problem, log_defect, logger
from prefrestore.serve.schemas import Model as ModelState
from prefrestore.serve.settings import Settings


class Model:
    """The pipeline and the networks beside it; ``told`` hears of its state."""

    def __init__(self, settings: Settings, told: Callable[[ModelState], None]) -> None:
        self.settings, self._told = settings, told
        self.state = ModelState(status="loading")
        self.pipeline: Any = None
        self.detector: Any = None
        self.embedder: Any = None
        self.device: str | None = None

    def load(self) -> None:
        """Import and load everything; takes seconds, and raises nothing: the state says how it went."""
        settings = self.settings
        try:
            from prefrestore.pipeline.load import load_pipeline, pick_device

            device = pick_device(settings.device)
            self.pipeline = load_pipeline(
                settings.preset,
                settings.model,
                device,
                settings.dtype,
                preference=settings.preference,
                face_size=settings.face_size,
            )

            from prefrestore.faces.detect import FaceDetector
            from prefrestore.faces.identity import IdentityEmbedder

            self.detector, self.embedder, self.device = FaceDetector(), IdentityEmbedder(), device
            self.state = ModelState(status="ready")
            logger.info("the model is ready on %s", device)
        except PrefRestoreError as error:
            self._fail(str(error))
        # A broken installation must not take the page away, which can say so.
        except Exception as error:  # noqa: BLE001
            log_defect(error)
            self._fail(f"the model could not be loaded ({type(error).__name__})")
        self._told(self.state)

    def _fail(self, message: str) -> None:
        logger.error("%s", message)
        self.state = ModelState(status="failed", message=message)

    def check(self) -> None:
        """Problem 503 when the model could not be loaded."""
        if self.state.status == "failed":
            raise Problem(503, self.state.message)
