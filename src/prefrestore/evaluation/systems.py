"""What is measured: a folder of finished restorations, or a pipeline in one of its variants.

A system is a function (faces, their pictures) -> one or several `Sample` a face. The variants of one pipeline share
the conditions of a batch, so that only the flow and the decoder run again for each of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from prefrestore.evaluation.folders import MeasuredFace
from prefrestore.models.adapter import adapter_names, using_adapter

if TYPE_CHECKING:
    from prefrestore.models.texture.conditioning import Conditions
    from prefrestore.pipeline.pipeline import PrefRestorePipeline

Picture = NDArray[np.uint8]
AS_LOADED = "as loaded"
"""Stands for whatever adapter the pipeline came with, if it came with one."""


@dataclass(frozen=True)
class Sample:
    """One restoration: the picture H,W,3 and, where a pipeline made it, its scaled latent (C,h,w), float32."""

    picture: Picture
    latent: NDArray[np.float32] | None = None


System = Callable[[Sequence[MeasuredFace], Sequence[Picture]], list[list[Sample]]]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to run a pipeline; None leaves the preset's default.

    Args:
        title: the row's name.
        adapter: name of a loaded preference adapter, "" for none, `AS_LOADED` for what the pipeline came with.
        semantic: False gives the denoiser zeros for the latent queries.
    """

    title: str
    adapter: str = AS_LOADED
    semantic: bool = True
    steps: int | None = None
    guidance_scale: float | None = None
    fidelity: float | None = None
    solver: str | None = None


def finished(faces: Sequence[MeasuredFace], pictures: Sequence[Picture]) -> list[list[Sample]]:
    """The pictures are restorations already."""
    return [[Sample(picture)] for picture in pictures]


def noise_of(seed: int, name: str, sample: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise that depends on nothing but the seed, the face's name and the sample's number."""
    drawn = np.random.SeedSequence([seed, zlib.crc32(name.encode()), sample]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(drawn) >> 1)
    return torch.randn(shape, generator=generator)


class Restorer:
    """Runs a pipeline's variants on batches of faces.

    Args:
        pipeline: on its device.
        seed: of all noise, see `noise_of`.
        samples: restorations a face.
        at_once: restorations that are sampled and decoded together.
    """

    def __init__(self, pipeline: PrefRestorePipeline, *, seed: int = 0, samples: int = 1, at_once: int = 8) -> None:
        self.pipeline = pipeline
        self.seed, self.samples, self.at_once = seed, samples, at_once
        self._known: tuple[list[Picture], dict[bool, Conditions]] = ([], {})

    def system(self, variant: Variant) -> System:
        """The variant as a system."""

        def restore(faces: Sequence[MeasuredFace], pictures: Sequence[Picture]) -> list[list[Sample]]:
            conditions = self._conditions(pictures, variant.semantic)
            shape = tuple(conditions.lq_latents.shape[1:])
            places = [(face, k) for face in range(len(faces)) for k in range(self.samples)]
            made: list[Sample] = []
            for start in range(0, len(places), self.at_once):
                part = places[start : start + self.at_once]
                noise = torch.stack([noise_of(self.seed, faces[face].name, k, shape) for face, k in part])
                told = conditions.select(torch.tensor([face for face, _ in part], device=conditions.lq_latents.device))
                with self._adapter(variant.adapter):
                    made += self._samples(told, noise, variant)
            return [made[i * self.samples : (i + 1) * self.samples] for i in range(len(faces))]

        return restore

    def _conditions(self, pictures: Sequence[Picture], semantic: bool) -> Conditions:
        last = self._known[0]
        if len(last) != len(pictures) or any(a is not b for a, b in zip(last, pictures, strict=True)):
            self._known = (list(pictures), {})
        if semantic not in self._known[1]:
            images = self.pipeline.prepare([Image.fromarray(picture) for picture in pictures])
            queries = None
            if not semantic:
                tokens = self.pipeline.image_tokenizer.num_tokens + 1
                queries = images.new_zeros(len(images), tokens, self.pipeline.language_model.config.hidden_size)
            self._known[1][semantic] = self.pipeline.conditions(images, queries=queries)
        return self._known[1][semantic]

    def _adapter(self, name: str) -> AbstractContextManager[None]:
        transformer = self.pipeline.transformer
        if name == AS_LOADED or (not name and not adapter_names(transformer)):
            return nullcontext()
        return using_adapter(transformer, name or None)

    def _samples(self, conditions: Conditions, noise: torch.Tensor, variant: Variant) -> list[Sample]:
        latents = self.pipeline.sample(
            conditions,
            noise,
            num_inference_steps=variant.steps,
            guidance_scale=variant.guidance_scale,
            fidelity=variant.fidelity,
            solver=variant.solver,
        )
        images = self.pipeline.decode(latents, conditions).permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()
        stored = latents.float().cpu().numpy()
        return [Sample(image, latent) for image, latent in zip(images, stored, strict=True)]
