"""PrefRestorePipeline: aligned low-quality faces in, restored faces out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import AutoencoderDC, DiffusionPipeline, SanaTransformer2DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from prefrestore.errors import InvalidInputError
from prefrestore.models.adapter import preference_apart
from prefrestore.models.offload import at_work
from prefrestore.models.semantic.queries import SemanticBranch
from prefrestore.models.semantic.ta_tok import TATok
from prefrestore.models.semantic.token_sampling import TokenSampling
from prefrestore.models.semantic.tokenizer import SemanticTokenizer
from prefrestore.models.texture import flow, sampler
from prefrestore.models.texture.autoencoder import ResidualAutoencoder
from prefrestore.models.texture.conditioning import Conditions, Connectors, conditional_velocity, embed_latents
from prefrestore.models.texture.input_skip import InputSkip
from prefrestore.models.texture.last_octave import FACTOR, LastOctave, core_view, finished
from prefrestore.models.texture.lq_encoder import LatentEncoder, lq_latents
from prefrestore.models.texture.steering import Steering, steered
from prefrestore.pipeline import inputs
from prefrestore.pipeline.components import find_components
from prefrestore.pipeline.inputs import ImageInput, RestorationOutput
from prefrestore.pipeline.published import hub, procedure


class PrefRestorePipeline(DiffusionPipeline):
    """Pref-Restore (arXiv 2601.19506): tokens, dense latent queries, and a flow from the LQ latents to clean ones.

    Args:
        image_tokenizer, text_tokenizer: image -> discrete tokens; chat -> ids, image tokens included.
        language_model: causal LM that writes the clean image's tokens.
        connectors: LM states and LQ tokens -> the denoiser's condition.
        autoencoder: latents -> image (and, in training, image -> target latents).
        lq_encoder: makes the LQ latents an estimate of the clean ones (`prefrestore.models.texture.lq_encoder`).
        transformer: the denoiser.
        input_skip: what lets bands of the LQ face through to the restored one, or None.
        last_octave: what makes restored faces twice as large, or None; all else works at the size without it.
        steering: what makes prompts act on the LQ latents, or None.
        face_size: side of the faces that the other components work on, in pixels.
        start, noise_scale, residual_std: the flow's source and parametrisation (`presets.FlowConfig`).
        num_inference_steps, guidance_scale, fidelity, solver: defaults of a call.
        answer_position: see `prefrestore.models.semantic.instruction.build_chats`.
        preset: name of the preset it was made from.
    """

    _optional_components = ["lq_encoder", "input_skip", "last_octave", "steering"]
    model_cpu_offload_seq = (
        "image_tokenizer->language_model->lq_encoder->steering"
        "->connectors->transformer->autoencoder->input_skip->last_octave"
    )

    def __init__(
        self,
        image_tokenizer: SemanticTokenizer | TATok,
        text_tokenizer: PreTrainedTokenizerFast,
        language_model: Qwen3ForCausalLM,
        connectors: Connectors,
        autoencoder: ResidualAutoencoder | AutoencoderDC,
        lq_encoder: LatentEncoder | AutoencoderDC | None,
        transformer: SanaTransformer2DModel,
        input_skip: InputSkip | None = None,
        last_octave: LastOctave | None = None,
        steering: Steering | None = None,
        face_size: int = 256,
        start: str = "lq_latent",
        noise_scale: float = 0.3,
        residual_std: float | None = None,
        num_inference_steps: int = 1,
        guidance_scale: float = 1.0,
        fidelity: float = 0.0,
        solver: str = "euler",
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
            input_skip=input_skip,
            last_octave=last_octave,
            steering=steering,
        )
        self.register_to_config(
            face_size=face_size,
            start=start,
            noise_scale=noise_scale,
            residual_std=residual_std,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            fidelity=fidelity,
            solver=solver,
            answer_position=answer_position,
            preset=preset,
        )

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers'; this package's components are found by their class, wherever a folder says they lived."""
        return find_components(super().load_config(*args, **kwargs))

    @classmethod
    def from_pretrained(cls, name: Any, *, preference: bool = True, **kwargs: Any) -> PrefRestorePipeline:
        """Also of the published layout (`published.hub`); ``preference`` False leaves its adapter out."""
        if (arguments := hub.load_published(name, preference=preference, **kwargs)) is not None:
            return cls(**arguments)
        pipeline = super().from_pretrained(name, **kwargs)
        if preference:
            hub.add_preference(pipeline, name, **kwargs)
        return pipeline

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """As diffusers', and the preference adapter in its own folder: the denoiser's file is the base's."""
        with preference_apart(self, save_directory):
            super().save_pretrained(save_directory, **kwargs)

    @property
    def face_size(self) -> int:
        """Side of the faces that go in and come out, in pixels."""
        return int(self.config.face_size) * (1 if self.last_octave is None else FACTOR)

    def semantic_branch(self) -> SemanticBranch:
        """The tokenizer, the chat and the language model as one."""
        parts = {name: getattr(self, name) for name in ("image_tokenizer", "text_tokenizer", "language_model")}
        return SemanticBranch(**parts, answer_position=self.config.answer_position)

    @torch.no_grad()
    def encode_semantics(self, images: Tensor, prompts: Sequence[str | None], **decoding: Any) -> Tensor:
        """LQ faces (B,3,H,W) in [-1,1] and their captions -> dense latent queries (B,N+1,D), the LM's hidden states.

        ``decoding``: ``constrained``, ``sampling`` of `prefrestore.models.semantic.decoding.write_tokens`.
        """
        images = inputs.prepare_faces(images, self.image_tokenizer.config.image_size).to(self._execution_device)
        return self.semantic_branch().write(images, prompts, **decoding).queries

    @torch.no_grad()
    def encode_texture(self, images: Tensor, queries: Tensor | None = None) -> Tensor:
        """LQ faces (B,3,H,W) in [-1,1], queries for an LQ encoder that takes them -> LQ latents, see `lq_latents`."""
        return lq_latents(self.autoencoder, self.lq_encoder, images, queries)

    @torch.no_grad()
    def decode(self, latents: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Scaled latents (B,C,h,w) -> images (B,3,H,W) in [0,1], float32; without ``conditions`` of the core alone."""
        latents = (latents / self.autoencoder.config.scaling_factor).to(self.autoencoder.dtype)
        with at_work(self.autoencoder):
            images = self.autoencoder.decode(latents).sample.float()
        if conditions is not None and conditions.images is not None:
            images = finished(images, conditions.images, self.input_skip, self.last_octave)
        return images.add(1).div(2).clamp(0, 1)

    def prepare(self, image: ImageInput) -> Tensor:
        """Any accepted faces -> (B,3,S,S) float32 in [-1,1] on the pipeline's device; see `__call__`."""
        return inputs.prepare_faces(image, self.face_size).to(self._execution_device)

    @torch.no_grad()
    def conditions(
        self, images: Tensor, prompts: Sequence[str | None] | None = None, queries: Tensor | None = None
    ) -> Conditions:
        """What the denoiser is told about faces (B,3,S,S) in [-1,1]: computed once, shared by all their samples.

        Args:
            images: from `prepare`.
            prompts: a caption, or None, a face.
            queries: dense latent queries (B,N+1,D) to use instead of the LM's.
        """
        core = core_view(images, self.last_octave)
        if queries is None:
            queries = self.encode_semantics(core, prompts or [None] * len(images))
        lq_latents = self.encode_texture(core, queries)
        lq_latents = steered(self.steering, lq_latents, self.language_model, self.text_tokenizer, prompts or ())
        dtype = self.transformer.dtype
        lq_tokens = embed_latents(self.transformer, lq_latents.to(dtype))
        with at_work(self.connectors):
            condition = self.connectors(queries.to(dtype), lq_tokens)
        # One layout in memory, or faces that were selected from a batch could round otherwise than the batch.
        shown = images if self.input_skip or self.last_octave else None
        return Conditions(lq_latents=lq_latents.contiguous(), condition=condition.contiguous(), images=shown)

    def source_mean(self, conditions: Conditions) -> Tensor:
        """The mean of the flow's source (B,C,h,w): the LQ latents, or zeros."""
        return conditions.lq_latents if self.config.start == "lq_latent" else torch.zeros_like(conditions.lq_latents)

    def source(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """The flow's end at t = 1 for standard normal noise (B,C,h,w)."""
        noise = noise.to(conditions.lq_latents.device)
        return flow.source(self.source_mean(conditions), noise, self.config.noise_scale)

    def velocity(self, conditions: Conditions, guidance_scale: float = 1.0) -> sampler.Velocity:
        """The flow's velocity (x (B,C,h,w), t (B,)) -> (B,C,h,w) under the conditions; differentiable."""

        def under(told: Conditions) -> sampler.Velocity:
            mean, residual_std = self.source_mean(told), self.config.residual_std
            return conditional_velocity(self.transformer, told, mean, residual_std=residual_std)

        return sampler.guided(under(conditions), under(conditions.unconditional()), guidance_scale)

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        noise: Tensor,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        fidelity: float | None = None,
        solver: str | None = None,
        callback: sampler.Callback | None = None,
    ) -> Tensor:
        """Standard normal noise (B,C,h,w) -> scaled latents of restored faces; arguments as in `__call__`."""
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        fidelity = self.config.fidelity if fidelity is None else fidelity
        solver = self.config.solver if solver is None else solver
        if not 0 <= fidelity <= 1:
            raise InvalidInputError(f"fidelity lies in 0..1, not {fidelity}")
        if solver not in sampler.SOLVERS:
            raise InvalidInputError(f"the solver is one of {', '.join(sampler.SOLVERS)}, not '{solver}'")
        times, source = sampler.flow_times(steps), self.source(conditions, noise)
        with at_work(self.transformer):
            latents = sampler.SOLVERS[solver](self.velocity(conditions, scale), source, times, callback)
        return torch.lerp(latents, conditions.lq_latents, fidelity)

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
        solver: str | None = None,
        reference: bool = False,
        sample_tokens: bool = False,
    ) -> RestorationOutput:
        """Restore aligned faces.

        Args:
            image: one face or several: PIL images, (H,W,3) arrays (uint8, or float in [0,1]), or a tensor (B,3,H,W)
                in [-1,1]; other sizes than ``face_size`` are resized.
            prompt: what the picture shows: one text for all faces, or one (or None) a face.
            num_inference_steps, guidance_scale: of the solver; classifier-free guidance, 1.0 makes no second pass.
            generator: source of the noise: one for the batch, or one a face, which makes a face's result independent
                of its batch. None draws from a generator of seed 0.
            num_images_per_prompt: restorations of each face; all share one pass of the LM and of the LQ encoder.
            fidelity: 0 keeps all the detail that the flow adds, 1 gives the posterior mean: faithful, and smooth.
            output_type: ``pil``, ``np`` (B,H,W,3 in [0,1]), ``pt`` (B,3,H,W in [0,1]) or ``latent`` (scaled).
            callback_on_step_end: diffusers' callback ``(pipeline, step, t, {"latents": x}) -> dict``.
            queries: dense latent queries (B,N+1,D) to use instead of the LM's; zeros switch the branch off.
            solver: ``euler``, or ``dpm`` (second-order multistep).
            reference: the published inference, see `prefrestore.pipeline.published.procedure`.
            sample_tokens: draw the tokens from ``generator``, before the noise, as `TokenSampling` does; else greedy.

        Raises:
            InvalidInputError: an argument is outside its range, or counts do not match.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise InvalidInputError(f"output_type is pil, np, pt or latent, not '{output_type}'")
        if num_images_per_prompt < 1:
            raise InvalidInputError("num_images_per_prompt must be at least 1")
        images = self.prepare(image)
        prompts = inputs.one_prompt_each(prompt, len(images))
        generators = inputs.one_generator_each(generator, len(images))
        semantic = core_view(images, self.last_octave)
        if reference:
            semantic, images = procedure.views(image, self.image_tokenizer.config.image_size, self.face_size)
        if queries is None:
            sampling = TokenSampling(generators=generators) if sample_tokens else None
            queries = self.encode_semantics(semantic, prompts, constrained=not reference, sampling=sampling)
        conditions = self.conditions(images.to(self._execution_device), prompts, queries)
        shape = (num_images_per_prompt, *conditions.lq_latents.shape[1:])
        noise = torch.cat([torch.randn(shape, generator=g, device=g.device) for g in generators])

        def after_step(index: int, t: float, x: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return x
            return (callback_on_step_end(self, index, t, {"latents": x}) or {}).get("latents", x)

        chosen = procedure.sampling(reference, num_inference_steps, guidance_scale, fidelity, solver)
        told = conditions.repeat(num_images_per_prompt)
        latents = self.sample(told, noise, *chosen, callback=after_step)
        output = latents if output_type == "latent" else inputs.as_output(self.decode(latents, told).cpu(), output_type)
        self.maybe_free_model_hooks()
        return RestorationOutput(images=output)
