"""What goes in and out as JSON, with examples for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefrestore.restoration.told import TOLD

Status = Literal["queued", "running", "done", "failed"]
Outcome = Literal["restored", "unchanged", "no face"]
MOST_STEPS = 50
MOST_SEED = 2**53 - 1
MOST_SAMPLES = 16
MOST_PROMPT = 500
Share = Annotated[float, Field(ge=0, le=1)]
FaceNumber = Annotated[int, Field(ge=0, strict=False)]  # a key, which JSON always writes as a text
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class Asked(BaseModel):
    """What a client sends: nothing unknown, no texts in place of numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def told(name: str, default: Any = None, **limits: Any) -> Any:
    """A field that `prefrestore.restoration.told` tells of; ``limits`` are the service's own, and narrower."""
    one = TOLD[name]
    return Field(default, description=one.text, **{"ge": one.least, "le": one.most} | limits)


class Options(Asked):
    """As the options of ``prefrestore restore``, by which they are told; all may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"seed": 7, "fidelity": 0.2, "scale": 2},
                {"faces": "all", "strength": {"0": 0.4}, "keep_likeness": False, "format": "webp", "quality": 90},
                {"faces": [0, 2], "strength": 0.7, "prompt": "a smiling woman"},
                {"min_face": 24, "max_yaw": 45, "min_score": 0.8, "sharp_enough": 0.6},
            ]
        }
    )

    faces: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=500)] | Literal["all"] | None = told(
        "faces", ge=None
    )
    strength: Share | Annotated[dict[FaceNumber, Share], Field(max_length=500)] | None = told(
        "strength", ge=None, le=None
    )
    min_face: float | None = told("min_face")
    max_yaw: float | None = told("max_yaw")
    min_score: float | None = told("min_score")
    sharp_enough: float | None = told("sharp_enough")
    keep_likeness: bool = told("keep_likeness", default=True)
    prompt: str | None = told("prompt", max_length=MOST_PROMPT)
    steps: int | None = told("steps", le=MOST_STEPS)
    seed: int = told("seed", default=0, le=MOST_SEED)
    fidelity: float | None = told("fidelity")
    guidance_scale: float | None = told("guidance_scale", ge=-100, le=100)
    scale: Literal[1, 2, 4] = told("scale", default=1)
    aligned: bool = told("aligned", default=False)
    reference: bool = told("reference", default=False)
    sample_tokens: bool = told("sample_tokens", default=False)
    samples: int | None = told("samples", le=MOST_SAMPLES)
    uncertainty: bool = told("uncertainty", default=False)
    choice: Literal["first", "medoid", "best"] | None = told("choice")
    format: Literal["jpg", "png", "webp", "tiff", "avif"] | None = told("format")
    quality: int | None = told("quality")

    def for_restoring(self) -> dict[str, Any]:
        """What `prefrestore.restoration.options.RestoreOptions` takes of it; what is None is left to that."""
        return self.model_dump(exclude_none=True, exclude={"format", "quality"})


class Progress(BaseModel):
    """Where a restoration is: face ``face`` of the ``faces`` that were found."""

    stage: Literal["waiting", "finding", "restoring", "writing", "done"] = "waiting"
    face: int | None = None
    faces: int | None = None


class Guess(BaseModel):
    """One restoration of one face."""

    number: int
    seed: int
    prompt: str | None = None
    fidelity: float | None = None
    steps: int | None = None
    preference: bool = Field(default=True, description="With the preference adapter, if the model has one.")
    similarity: float | None = Field(
        default=None,
        description="SFace cosine with the face before, -1 to 1: of the first as the rules showed it, of others whole.",
    )
    warnings: list[str] = []

    def made_with(self) -> dict[str, Any]:
        """What decides how it looks."""
        return self.model_dump(include={"seed", "prompt", "fidelity", "steps", "preference"})


class MapNumbers(BaseModel):
    """Of an uncertainty map: the mean standard deviation, of pixels in 0..1."""

    mean: float


class Face(BaseModel):
    """One face. ``box`` and ``points`` are pixels of the upright input, ``region`` pixels of the output."""

    index: int
    box: tuple[float, float, float, float]
    points: list[tuple[float, float]]
    score: float
    status: Literal["restored", "skipped"]
    reason: str | None = None
    quality: float
    similarity: float | None = None
    warnings: list[str] = []
    on: bool = False
    strength: float = 1.0
    first_strength: float = Field(default=1.0, description="What the rules made of it.")
    guess: int | None = None
    guesses: list[Guess] = []
    late: bool = Field(
        default=False, description="It was left alone at first, and restored when somebody asked for it."
    )
    region: tuple[int, int, int, int] | None = None
    uncertainty: MapNumbers | None = None


class Work(BaseModel):
    """What is being made for one face of a finished restoration."""

    kind: Literal["guesses", "uncertainty"]
    face: int
    status: Literal["queued", "running", "failed"] = "queued"
    done: int = 0
    of: int = 1
    message: str = ""


class Input(BaseModel):
    """The uploaded file."""

    size: tuple[int, int]
    format: str
    bytes: int


class Output(BaseModel):
    """The restored picture."""

    size: tuple[int, int]


class Restoration(BaseModel):
    """One photo on its way. It is kept as it is, beside the pictures."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "0f3c5a1e9b7d4c2f8a6e0b1d3c5f7a9e", "name": "aunt.jpg", "status": "queued", "position": 1}
            ]
        }
    )

    id: str
    name: str
    status: Status = "queued"
    outcome: Outcome | None = None
    message: str = ""
    interrupted: bool = False
    progress: Progress = Progress()
    position: int | None = Field(default=None, description="0 runs, 1 is next; null when it does not wait.")
    created: str
    expires: str
    seconds: float | None = None
    version: int = 0
    example: bool = False
    options: Options = Options()
    input: Input
    output: Output | None = None
    faces: list[Face] = []
    work: Work | None = None


class QueueState(BaseModel):
    """How many photos wait or run, and how many may."""

    length: int
    limit: int


class Restorations(BaseModel):
    """All of them, newest first."""

    restorations: list[Restoration]
    queue: QueueState


class FaceChange(Asked):
    """What is changed about one face; what is left out stays."""

    index: int = Field(ge=0)
    strength: Share | None = None
    on: bool | None = None
    guess: Annotated[int, Field(ge=0)] | None = None


class Changes(Asked):
    """New strengths; no model runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"faces": [{"index": 0, "strength": 0.4}]}]})

    faces: Annotated[list[FaceChange], Field(max_length=500)]


class GuessRequest(Asked):
    """Other restorations of a face: four seeds that were not tried, if none are named."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seeds": [1, 2, 3, 4]}]})

    prompt: str | None = told("prompt", max_length=MOST_PROMPT)
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=8)] | None = None
    fidelity: float | None = told("fidelity")
    steps: int | None = told("steps", le=MOST_STEPS)
    preference: bool = True


class Token(Asked):
    """The token that was printed when the service started."""

    token: Annotated[str, Field(max_length=500)]


class Model(BaseModel):
    """Whether the model is there."""

    status: Literal["loading", "ready", "failed"]
    message: str = ""


class Health(BaseModel):
    """Whether the service can work."""

    status: Literal["ok", "failed"]
    model: Literal["loading", "ready", "failed"]


class Limits(BaseModel):
    """What is refused beyond."""

    bytes: int
    pixels: int
    queue: int
    keep_days: float
    scales: list[int]
    steps: int
    samples: int


class Info(BaseModel):
    """What runs here."""

    version: str
    preset: str
    device: str | None
    weights: dict[str, str] | None
    face_size: int | None
    model: Model
    limits: Limits
    accepts: list[str]


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
