"""The model's part of a photo: aligned faces in, in batches, and what is shown of each out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefrestore.errors import PrefRestoreError
from prefrestore.faces.blend import Float32
from prefrestore.restoration.options import RestoreOptions
from prefrestore.restoration.uncertainty.measure import FaceSpread
from prefrestore.restoration.uncertainty.sampling import Samples
from prefrestore.restoration.uncertainty.sampling import draw as draw_samples

if TYPE_CHECKING:
    import torch


class Answer(NamedTuple):
    """What is shown of one face, S x S x 3 in 0..1, and how far its restorations lie apart."""

    pixels: Float32
    spread: FaceSpread | None


Finish = Callable[[int, Float32 | Samples], Answer]
"""Number of a face, and its restoration S x S x 3 or several -> what is shown."""


def draw_faces(
    pipeline: Any,
    faces: Mapping[int, Callable[[], NDArray[Any]]],
    options: RestoreOptions,
    finish: Finish,
) -> dict[int, Answer]:
    """The pipeline on faces, in batches: number of the face -> what is shown of it.

    Args:
        faces: number of each wanted face -> what makes the array that the pipeline is given.

    Raises:
        PrefRestoreError: the pipeline returned something else than faces, or numbers that are not finite.
    """
    named = {"num_inference_steps": options.steps}
    named |= {key: getattr(options, key) for key in ("guidance_scale", "fidelity")}
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    given |= {key: True for key in ("reference", "sample_tokens") if getattr(options, key)}
    answers: dict[int, Answer] = {}
    wanted = list(faces)
    for start in range(0, len(wanted), options.batch_size):
        batch = wanted[start : start + options.batch_size]
        prompt = options.prompt
        if prompt is not None and not isinstance(prompt, str):
            prompt = [prompt[index] for index in batch]
        shown = [faces[index]() for index in batch]
        drawn: Iterable[Float32 | Samples]
        if options.samples_a_face == 1:
            generators = [face_generator(options.seed, index) for index in batch]
            images = pipeline(shown, prompt=prompt, generator=generators, output_type="np", **given).images
            expected = (len(batch), int(pipeline.face_size), int(pipeline.face_size), 3)
            if np.shape(images) != expected:
                raise PrefRestoreError(f"the pipeline returned faces of shape {np.shape(images)}, not {expected}")
            drawn = [np.asarray(image, np.float32) for image in images]
        else:
            seeds = range(options.seed, options.seed + options.samples_a_face)
            many = [[face_generator(seed, index) for seed in seeds] for index in batch]
            prompts = [prompt] * len(batch) if prompt is None or isinstance(prompt, str) else prompt
            drawn = draw_samples(
                pipeline,
                shown,
                many,
                prompts=prompts,
                views=options.uncertainty,
                batch_size=options.batch_size,
                **given,
            )
        # Reduced to the one that is shown before the next batch: memory does not grow with the number of faces.
        for index, made in zip(batch, drawn, strict=True):
            _check_finite(made, index)
            answers[index] = finish(index, made)
    return answers


def face_generator(seed: int, index: int) -> torch.Generator:
    """The noise source of one face: a function of the photo's seed and the face's number; batches do not matter."""
    import torch

    drawn = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(drawn >> 1)


def _check_finite(made: Float32 | Samples, index: int) -> None:
    """As 8-bit pixels such numbers would be a black face."""
    arrays = [made.images, made.latents] if isinstance(made, Samples) else [made]
    if not all(np.isfinite(array).all() for array in arrays):
        raise PrefRestoreError(
            f"the model drew face {index} with numbers that are not finite: its precision (--dtype) is too low for "
            "these weights, the guidance scale is too high, or the weights are broken"
        )
