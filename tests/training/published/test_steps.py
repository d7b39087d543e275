"""Steps 1 to 3 on the published classes at tiny widths: what they train, what they write, and that they resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from steps_run import Ran, restored, run
from tiny_checkpoint import ARCHITECTURE, Tiny

from prefrestore.pipeline.pipeline import PrefRestorePipeline

First = tuple[Path, Ran]


def changed(before: Path, after: Path) -> set[str]:
    """Names of the assembled model's tensors that differ; both folders have the same."""
    held = [
        {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
        for folder in (before, after)
    ]
    return {
        key for key in held[1] if key not in held[0] or not torch.equal(held[0][key], held[1][key].to(held[0][key]))
    }


def same_in_both_layouts(output: Path) -> torch.Tensor:
    """The restoration by the trained model, which is the same from both of its folders."""
    ours = restored(output / "pipeline")
    torch.testing.assert_close(ours, restored(output / "assembled"))
    return ours


def test_step_1_trains_what_it_should_and_writes_both_layouts(first: First, tiny: Tiny) -> None:
    output, ran = first
    assert len(ran.losses) == 3
    for row in ran.losses:
        assert row["loss"] == pytest.approx(row["cross_entropy"] + row["flow"], rel=1e-4)
    names = changed(tiny.assembled, output / "assembled")
    trained = ("model.sana.caption_projection", "model.diffusion_connector", "lm_head", "model.embed_tokens")
    kinds = (*trained, "model.layers", "model.norm", "model.vae_connector.3.weight")
    assert names and not [name for name in names if not name.startswith(kinds)]
    for kind in kinds:
        assert any(name.startswith(kind) for name in names), kind
    # What only the published loader needs is still there.
    state = {k for file in (output / "assembled").glob("*.safetensors") for k in load_file(file)}
    assert "model.vision_tower.vision_tower.decoder.blocks.0.attn.weight" in state
    trained_picture = same_in_both_layouts(output)
    assert not torch.equal(trained_picture, restored(tiny.assembled))


def test_step_2_goes_on_from_step_1(first: First, preset: str, faces: Path, tmp_path: Path) -> None:
    model = first[0] / "assembled"
    ran = run("fidelity", faces, preset, model, tmp_path / "out")
    assert ran.trainer.step == 3
    for row in ran.losses:
        assert row["loss"] == pytest.approx(row["flow"] + row["latent"], rel=1e-4)
    names = changed(model, tmp_path / "out" / "assembled")
    kinds = (
        "model.sana.transformer_blocks.",
        "model.vae_connector.0",
        "model.vae_connector.2",
        "model.sana_vae.encoder.",
    )
    assert names and not [name for name in names if not name.startswith(kinds)]
    for kind in kinds:
        assert any(name.startswith(kind) for name in names), kind
    same_in_both_layouts(tmp_path / "out")


@pytest.mark.parametrize("reference", [False, True])
def test_step_3_in_both_ways(tiny: Tiny, preset: str, faces: Path, tmp_path: Path, reference: bool) -> None:
    ran = run("preference", faces, preset, tiny.assembled, tmp_path, reference=reference)
    assert ran.trainer.step == 3 and all(np.isfinite(row["loss"]) for row in ran.losses)
    aligned = restored(tiny.assembled, lora=tmp_path / "preference")
    assert not torch.equal(aligned, restored(tiny.assembled))


@pytest.mark.parametrize(
    "stage", ["semantic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fidelity", "preference"))]
)
def test_a_stopped_run_resumes_to_the_same_losses(
    tiny: Tiny, preset: str, faces: Path, first: First, tmp_path: Path, stage: str
) -> None:
    # Step 1's whole run is there already.
    whole = first[1] if stage == "semantic" else run(stage, faces, preset, tiny.assembled, tmp_path / "whole")
    begun = run(stage, faces, preset, tiny.assembled, tmp_path / "cut", max_minutes=0)
    assert begun.trainer.step == 1
    resumed = run(stage, faces, preset, tiny.assembled, tmp_path / "cut")
    assert resumed.trainer.step == 3
    losses = begun.losses + resumed.losses
    assert [row.keys() for row in losses] == [row.keys() for row in whole.losses]
    for ours, theirs in zip(losses, whole.losses, strict=True):
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-5)
    for name, value in whole.trainer.trained.items():
        torch.testing.assert_close(resumed.trainer.trained[name], value, rtol=1e-5, atol=1e-7)


def test_the_last_positions_end_with_the_closing_of_the_chat(tiny: Tiny) -> None:
    """The reference's queries: of the whole sequence with its end, the last N+1 states."""
    from prefrestore.models.semantic.instruction import ImageVocabulary, build_chats
    from prefrestore.models.semantic.integrator import teacher_forced
    from prefrestore.training.published import closing_ids

    pipeline = PrefRestorePipeline.from_pretrained(tiny.assembled, architecture=ARCHITECTURE)
    tokens = torch.arange(32).reshape(2, 16)
    chats = build_chats(pipeline.text_tokenizer, tokens.flip(1), ["A man.", None])
    vocabulary, closing = ImageVocabulary.of(pipeline.text_tokenizer), closing_ids(pipeline.text_tokenizer)
    assert pipeline.text_tokenizer.decode(closing) == "<|im_end|>\n"
    model = pipeline.language_model
    with torch.no_grad():
        told = teacher_forced(model, chats, tokens, vocabulary, closing)
        usual = teacher_forced(model, chats, tokens, vocabulary)
        tail = torch.tensor([[vocabulary.end, *closing]]).expand(2, -1)
        ids = torch.cat([chats.input_ids, vocabulary.to_ids(tokens), tail], 1)
        row = ids[0:1]  # the captioned chat is the longer one: no padding
        assert bool(chats.mask[0].all())
        states = model.model(input_ids=row).last_hidden_state
        logits = model.lm_head(states)[0]
    torch.testing.assert_close(told.queries[0], states[0, -17:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(usual.queries[0], states[0, -17 - len(tail[0]) : -len(tail[0])], atol=1e-4, rtol=1e-4)
    start = row.shape[1] - 16 - len(tail[0])
    by_hand = torch.nn.functional.cross_entropy(logits[start - 1 : -1], row[0, start:], reduction="none")
    torch.testing.assert_close(told.image_loss[0], by_hand[:16], atol=1e-4, rtol=1e-4)


def test_the_reference_takes_its_times_from_the_rollouts_steps() -> None:
    from types import SimpleNamespace

    from prefrestore.preference.policy import NftObjective

    objective = SimpleNamespace(settings=SimpleNamespace(reference=True, sample_steps=30, time_exponent=1.0))
    drawn = NftObjective.times(objective, 60, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    # Rollouts visit 1, 29/30, ..., 2/30 and end at 1/30: 29 times, each twice before any comes a third time.
    wanted = torch.tensor([1 - i / 30 for i in range(29)])
    torch.testing.assert_close(drawn[:29].sort(descending=True).values, wanted)
    torch.testing.assert_close(drawn[29:58].sort(descending=True).values, wanted)
    assert not torch.equal(drawn[:29], drawn[29:58])
