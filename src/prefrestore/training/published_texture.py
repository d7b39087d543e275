"""Step 2 on the published classes: its batches, its run and its export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prefrestore.training.identity import run_identity
from prefrestore.training.images import grid, to_signed
from prefrestore.training.loop import Trainer
from prefrestore.training.pairs import degraded_batch, load_training_faces, load_validation
from prefrestore.training.processes import new_accelerator
from prefrestore.training.published import (
    TextureObjective,
    begin,
    exports,
    norms_are_one,
    queries_of,
    start_hashes,
)

CAPTION_SHARE, COPY_SHARE = 0.9, 0.2


def train_texture(config: Any, model: Path) -> Trainer:
    """Train what `TextureObjective` trains, from ``model``; write the whole model in both layouts."""
    pipeline = begin(config.preset, model, seed=config.seed)
    stands_on, shared = start_hashes(pipeline, config.reference), norms_are_one(pipeline)
    accelerator = new_accelerator()
    pipeline.to(accelerator.device)
    faces = load_training_faces(config.data, pipeline.face_size)
    validation = load_validation(config.data, pipeline.face_size)
    objective = TextureObjective(pipeline)
    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    if config.compile:
        pipeline.transformer.compile()

    def make_batch(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([config.seed, 1, step])
        drawn = faces.draw(config.batch_size, seed=config.seed, step=step)
        lq, targets = (to_signed(part) for part in degraded_batch(faces.images(drawn), config.degradation, rng))
        captions = [text if rng.random() < CAPTION_SHARE else None for text in faces.captions(drawn)]
        if config.reference:
            copied = torch.from_numpy(rng.random(len(lq)) < COPY_SHARE)
            lq[copied] = targets[copied]
            captions = [None if is_copy else text for text, is_copy in zip(captions, copied.tolist(), strict=True)]
        lq, targets = lq.to(accelerator.device), targets.to(accelerator.device)
        queries = queries_of(pipeline, lq, targets, captions, reference=config.reference)
        return {"lq": lq, "targets": targets, "queries": queries.float()}

    held_out = np.asarray(validation.images[:: max(1, len(validation) // 8)][:8])
    lq, targets = degraded_batch(held_out, config.degradation, np.random.default_rng(config.seed), mirror=False)
    with torch.no_grad():
        queries = pipeline.encode_semantics(to_signed(lq).to(accelerator.device), [None] * len(lq))

    @torch.compiler.set_stance("force_eager")
    def sample() -> Image.Image:
        images = to_signed(lq).to(accelerator.device)
        conditions = pipeline.conditions(images, queries=queries)
        noise = torch.randn(conditions.lq_latents.shape, generator=torch.Generator().manual_seed(config.seed))
        restored = pipeline.decode(pipeline.sample(conditions, noise), conditions) * 2 - 1
        return grid([to_signed(lq), restored, to_signed(targets)])

    identity = run_identity("fidelity", config, faces, stands_on)
    # The batches hold what the language model says on the device, so no other process can prepare them.
    loop = config.loop("fidelity", num_workers=0)
    trainer = Trainer(objective, make_batch, loop, sample=sample, accelerator=accelerator, identity=identity)
    trainer.fit()
    trainer.export(config.output_dir, exports(pipeline, model, shares_norm=shared))
    return trainer
