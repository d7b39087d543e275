"""PrefRestorePipeline: aligned low-quality faces in, restored faces out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, DiffusionPipeline, SanaTransformer2DModel
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from prefrestore.errors import InvalidInputError
from prefrestore.semantic.instruction import ImageVocabulary, build_chats
from prefrestore.semantic.integrator import write_tokens
from prefrestore.semantic.tokenizer import SemanticTokenizer
from prefrestore.texture import flow, sampler
from prefrestore.texture.autoencoder import ResidualAutoencoder
from prefrestore.texture.conditioning import Connectors, LatentEncoder, denoise, embed_latents

ImageInput = Image.Image | np.ndarray | Tensor | Sequence[Image.Image | np.ndarray]


@dataclass
class RestorationOutput(BaseOutput):
    """images: what ``output_type`` asked for, ``num_images_per_prompt`` in a row for each face."""

    images: Any


class PrefRestorePipeline(DiffusionPipeline):
    """Pref-Restore (arXiv 2601.19506): tokens, dense latent queries, and a flow from the LQ latents to clean ones.

    Args:
        image_tokenizer: image -> discrete tokens.
        text_tokenizer: chat -> ids, image tokens included.
        language_model: causal LM that writes the clean image's tokens.
        connectors: LM states and LQ tokens -> the denoiser's condition.
        autoencoder: latents -> image (and, in training, image -> target latents).
        lq_encoder: LQ image -> estimate of the clean latent.
        transformer: the denoiser.
        face_size: side of the faces, in pixels.
        start, noise_scale, residual_std: the flow's source and parametrisation, see `prefrestore.presets.FlowConfig`.
        num_inference_steps, guidance_scale, fidelity: defaults of a call.
        answer_position: see `prefrestore.semantic.instruction.build_chats`.
        preset: name of the preset it was made from.
    """

    model_cpu_offload_seq = "image_tokenizer->language_model->lq_encoder->connectors->transformer->autoencoder"

    def __init__(
        self,
        image_tokenizer: SemanticTokenizer,
        text_tokenizer: PreTrainedTokenizerFast,
        language_model: Qwen3ForCausalLM,
        connectors: Connectors,
        autoencoder: ResidualAutoencoder | AutoencoderDC,
        lq_encoder: LatentEncoder | AutoencoderDC,
        transformer: SanaTransformer2DModel,
        face_size: int = 256,
        start: str = "lq_latent",
        noise_scale: float = 0.3,
        residual_std: float | None = None,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        fidelity: float = 0.0,
        answer_position: int | None = None,
        preset: str = "compact",
    ) -> None:
        super().__init__()
        # sha256 of the files that the components came from; whoever loads and checks them fills it in.
        self.weight_hashes: dict[str, str] = {}
        self.register_modules(
            image_tokenizer=image_tokenizer,
            text_tokenizer=text_tokenizer,
            language_model=language_model,
            connectors=connectors,
            autoencoder=autoencoder,
            lq_encoder=lq_encoder,
            transformer=transformer,
        )
        self.register_to_config(
            face_size=face_size,
            start=start,
            noise_scale=noise_scale,
            residual_std=residual_std,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            fidelity=fidelity,
            answer_position=answer_position,
            preset=preset,
        )

    @property
    def face_size(self) -> int:
        """Side of the faces that go in and come out, in pixels."""
        return int(self.config.face_size)

    @torch.no_grad()
    def encode_semantics(self, images: Tensor, prompts: Sequence[str | None]) -> Tensor:
        """LQ faces (B,3,H,W) in [-1,1] and their captions -> dense latent queries (B,N+1,D), the LM's hidden states."""
        side = self.image_tokenizer.config.image_size
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)
        tokens = self.image_tokenizer.encode(images)
        chats = build_chats(self.text_tokenizer, tokens, list(prompts), answer_position=self.config.answer_position)
        vocabulary = ImageVocabulary.of(self.text_tokenizer)
        return write_tokens(self.language_model, chats, vocabulary, self.image_tokenizer.num_tokens).queries

    @torch.no_grad()
    def encode_texture(self, images: Tensor) -> Tensor:
        """LQ faces (B,3,H,W) in [-1,1] -> scaled LQ latents (B,C,h,w), float32: the posterior mean's estimate."""
        latents = self.lq_encoder.encode(images.to(self.lq_encoder.dtype)).latent
        return latents.float() * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,H,W) in [0,1], float32."""
        latents = (latents / self.autoencoder.config.scaling_factor).to(self.autoencoder.dtype)
        return self.autoencoder.decode(latents).sample.float().add(1).div(2).clamp(0, 1)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str | None] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_images_per_prompt: int = 1,
        fidelity: float | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[Any, int, float, dict[str, Tensor]], dict[str, Tensor]] | None = None,
        queries: Tensor | None = None,
    ) -> RestorationOutput:
        """Restore aligned faces.

        Args:
            image: one face or several: PIL images, (H,W,3) arrays (uint8, or float in [0,1]), or a tensor (B,3,H,W)
                in [-1,1]; other sizes than ``face_size`` are resized.
            prompt: what the picture shows: one text for all faces, or one (or None) a face.
            num_inference_steps: Euler steps of the flow.
            guidance_scale: classifier-free guidance; 1.0 makes no second pass.
            generator: source of the noise: one for the batch, or one a face, which makes a face's result independent
                of its batch. None draws from a generator of seed 0.
            num_images_per_prompt: restorations of each face.
            fidelity: 0 keeps all the detail that the flow adds, 1 gives the posterior mean: faithful, and smooth.
            output_type: ``pil``, ``np`` (B,H,W,3 in [0,1]), ``pt`` (B,3,H,W in [0,1]) or ``latent`` (scaled).
            callback_on_step_end: diffusers' callback ``(pipeline, step, t, {"latents": x}) -> dict``.
            queries: dense latent queries (B,N+1,D) to use instead of the LM's; zeros switch the branch off.

        Raises:
            InvalidInputError: an argument is outside its range, or counts do not match.
        """
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        fidelity = self.config.fidelity if fidelity is None else fidelity
        if not 0 <= fidelity <= 1:
            raise InvalidInputError(f"fidelity lies in 0..1, not {fidelity}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InvalidInputError(f"output_type is pil, np, pt or latent, not '{output_type}'")
        if num_images_per_prompt < 1:
            raise InvalidInputError("num_images_per_prompt must be at least 1")
        times = sampler.flow_times(steps)
        images = self._prepare(image).to(self._execution_device)
        count = len(images)
        prompts = [prompt] * count if prompt is None or isinstance(prompt, str) else list(prompt)
        if len(prompts) != count:
            raise InvalidInputError(f"{count} faces came with {len(prompts)} prompts")
        generators = self._generators(generator, count)

        if queries is None:
            queries = self.encode_semantics(images, prompts)
        lq_latents = self.encode_texture(images)
        dtype = self.transformer.dtype
        lq_tokens = embed_latents(self.transformer, lq_latents.to(dtype))
        condition = self.connectors(queries.to(dtype), lq_tokens)

        shape = lq_latents.shape[1:]
        drawn = [torch.randn((num_images_per_prompt, *shape), generator=g, device=g.device) for g in generators]
        noise = torch.cat([draw.to(images.device) for draw in drawn])
        lq_latents = lq_latents.repeat_interleave(num_images_per_prompt, 0)
        condition = condition.repeat_interleave(num_images_per_prompt, 0)
        start = lq_latents if self.config.start == "lq_latent" else torch.zeros_like(lq_latents)

        def velocity_under(condition: Tensor) -> sampler.Velocity:
            def velocity(x: Tensor, t: Tensor) -> Tensor:
                output = denoise(self.transformer, x.to(dtype), t, condition, lq_latents.to(dtype)).float()
                if self.config.residual_std is None:
                    return output
                scales = {"noise_scale": self.config.noise_scale, "residual_std": self.config.residual_std}
                return flow.preconditioned_velocity(output, x, start, t, **scales)

            return velocity

        def after_step(index: int, t: float, x: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return x
            changed = callback_on_step_end(self, index, t, {"latents": x})
            return changed.get("latents", x) if changed else x

        source = flow.source(start, noise, self.config.noise_scale)
        guided = sampler.guided(velocity_under(condition), velocity_under(torch.zeros_like(condition)), scale)
        latents = sampler.euler(guided, source, times, after_step)
        latents = torch.lerp(latents, lq_latents, fidelity)
        self.maybe_free_model_hooks()
        return RestorationOutput(images=self._finish(latents, output_type))

    def _prepare(self, image: ImageInput) -> Tensor:
        """Any accepted input -> (B,3,S,S) float32 in [-1,1] on the CPU or the tensor's device."""
        size = self.face_size
        if isinstance(image, Tensor):
            if image.ndim != 4 or image.shape[1] != 3:
                raise InvalidInputError(f"a tensor of faces is B,3,H,W, not {tuple(image.shape)}")
            images = image.float()
            if images.shape[-2:] != (size, size):
                images = F.interpolate(images, size=(size, size), mode="bicubic", antialias=True)
            return images.clamp(-1, 1)
        faces = list(image) if isinstance(image, (list, tuple)) else [image]
        if not faces:
            raise InvalidInputError("there is no face to restore")
        rows = []
        for face in faces:
            array = np.asarray(face.convert("RGB")) if isinstance(face, Image.Image) else np.asarray(face)
            if array.ndim != 3 or array.shape[2] != 3:
                raise InvalidInputError(f"a face is an H,W,3 array or a PIL image, not an array of {array.shape}")
            values = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]
            values = values / 127.5 - 1 if array.dtype == np.uint8 else values * 2 - 1
            if values.shape[-2:] != (size, size):
                values = F.interpolate(values, size=(size, size), mode="bicubic", antialias=True)
            rows.append(values.clamp(-1, 1))
        return torch.cat(rows)

    @staticmethod
    def _generators(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[torch.Generator]:
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        if isinstance(generator, torch.Generator):
            return [generator] * count
        if len(generator) != count:
            raise InvalidInputError(f"{count} faces came with {len(generator)} generators")
        return list(generator)

    def _finish(self, latents: Tensor, output_type: str) -> list[Image.Image] | np.ndarray | Tensor:
        if output_type == "latent":
            return latents
        images = self.decode(latents).cpu()
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return array
        return [Image.fromarray(face) for face in (array * 255).round().astype(np.uint8)]
