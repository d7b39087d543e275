"""A whole photo, with a stand-in for the pipeline that does something plain to each face."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.faces import align, blend
from prefrestore.faces.detect import Face
from prefrestore.pictures.photo import Photo
from prefrestore.restoration.photo import RestoreOptions, face_generator, restore_photo
from prefrestore.restoration.strength import Layers

SIZE = 64


class Pipeline:
    """Called like PrefRestorePipeline; keeps what it was asked."""

    face_size = SIZE
    config = SimpleNamespace(preset="fake", num_inference_steps=4, fidelity=0.0, guidance_scale=1.0)
    weight_hashes = {"model.safetensors": "ab" * 32}

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change
        self.calls: list[dict[str, Any]] = []

    def __call__(self, images: Any, **options: Any) -> Any:
        self.calls.append({"images": images, **options})
        faces = [self.change(face) for face in images]
        return SimpleNamespace(images=np.stack(faces).clip(0, 1).astype(np.float32))


class Noise(Pipeline):
    """Adds noise from each face's own generator, as the flow does."""

    def __init__(self) -> None:
        super().__init__(lambda face: face)

    def __call__(self, images: Any, **options: Any) -> Any:
        import torch

        made = super().__call__(images, **options)
        for face, generator in zip(made.images, options["generator"], strict=True):
            face += 0.1 * torch.randn(face.shape, generator=generator).numpy()
        return made


class Detector:
    """Finds the same faces in any picture."""

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def detect(self, rgb: Any) -> list[Face]:
        assert rgb.dtype == np.uint8 and rgb.ndim == 3
        return self.faces


def face_at(x: float, y: float, width: float, angle: float = 0.0) -> Face:
    points = align.ffhq_template(512) - (256, 300)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    box = (x - width / 2, y - width * 0.6, width, width * 1.2)
    return Face(box, points @ turn * (width / 260) + (x, y), 0.9)


def scene(height: int = 160, width: int = 240, channels: int = 3, dtype: Any = np.uint8) -> Any:
    rng = np.random.default_rng(7)
    smooth = cv2.GaussianBlur(rng.random((height, width, 3), dtype=np.float32), (0, 0), 4)
    smooth = 0.1 + 0.8 * (smooth - smooth.min()) / np.ptp(smooth)
    pixels = np.round(smooth * np.iinfo(dtype).max).astype(dtype)
    return pixels if channels == 3 else np.ascontiguousarray(pixels[..., 0])


def sharpen(face: Any) -> Any:
    return face + 2 * (face - cv2.GaussianBlur(face, (0, 0), 2))


TWO = Detector(face_at(70, 80, 40), face_at(170, 85, 50, 0.4))


def touched(photo: Any, faces: list[Face], scale: int = 1) -> Any:
    """Where any mask is above 0."""
    mask = blend.face_mask(SIZE)
    patches = []
    for face in faces:
        matrix = align.estimate_similarity(face.points, align.ffhq_template(SIZE))
        patches.append(blend.Patch(mask, align.rescale_output(matrix, scale), mask))
    return blend.coverage(patches, photo.shape[1] * scale, photo.shape[0] * scale) > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_outside_the_masks_are_the_input_s_own(dtype: Any, channels: int) -> None:
    pixels = scene(channels=channels, dtype=dtype)
    result = restore_photo(pixels, Pipeline(sharpen), detector=TWO)
    assert result.image.dtype == dtype and result.image.shape == pixels.shape
    assert len(result.restored) == 2
    mask = touched(pixels, TWO.faces)
    np.testing.assert_array_equal(result.image[~mask], pixels[~mask])
    assert (result.image[mask] != pixels[mask]).any()


@pytest.mark.parametrize("shift", [(0, 0, 0), (20, 20, 20), (20, -10, 15)])
def test_nothing_done_and_shifted_colours_both_look_like_the_input(shift: tuple[int, int, int]) -> None:
    pixels = scene()
    result = restore_photo(pixels, Pipeline(lambda face: face + np.array(shift) / 255), detector=TWO)
    difference = np.abs(result.image.astype(int) - pixels)
    assert difference.max() <= 8 and difference.mean() < 0.3


@pytest.mark.parametrize("stored", ["L", "RGB"])
@pytest.mark.parametrize("scale", [1, 2])
def test_grey_stays_exactly_grey(stored: str, scale: int) -> None:
    grey = scene(channels=1)
    pixels = grey if stored == "L" else np.repeat(grey[..., None], 3, axis=2)

    def paint(face: Any) -> Any:
        return face * (1.0, 0.8, 0.6) + 0.1 * sharpen(face)

    options = RestoreOptions(scale=scale, background=lambda image, factor: doubled(image, factor) // 2 + (9, 0, 0))
    for chosen in (RestoreOptions(scale=scale), options):
        result = restore_photo(pixels, Pipeline(paint), detector=TWO, options=chosen)
        assert result.image.ndim == pixels.ndim
        if stored == "RGB":
            assert (result.image == result.image[..., :1]).all()


def test_a_toned_print_keeps_its_tone() -> None:
    grey = scene(channels=1)[..., None] / 255
    pixels = np.round(255 * grey * (1.0, 0.85, 0.6)).astype(np.uint8)
    result = restore_photo(
        pixels, Pipeline(lambda face: sharpen(face) * (0.7, 1, 1.2)), detector=TWO, options=RestoreOptions(faces=(0, 1))
    )
    ratio = result.image.astype(float) / np.maximum(result.image[..., :1], 1)
    assert np.abs(ratio - (1.0, 0.85, 0.6))[result.image[..., 0] > 60].max() < 0.06


def doubled(image: Any, factor: int) -> Any:
    return np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)


@pytest.mark.parametrize("scale", [2, 4])
def test_larger_outputs(scale: int) -> None:
    pixels = scene()
    alpha = np.full(pixels.shape[:2], 200, np.uint8)
    photo = Photo(pixels=pixels, alpha=alpha)
    result = restore_photo(photo, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=scale))
    height, width = pixels.shape[:2]
    assert result.photo.size == (width * scale, height * scale)
    assert result.photo.alpha is not None and result.photo.alpha.shape == (height * scale, width * scale)
    plain = cv2.resize(pixels, result.photo.size, interpolation=cv2.INTER_LANCZOS4)
    mask = touched(pixels, TWO.faces, scale)
    np.testing.assert_array_equal(result.image[~mask], plain[~mask])
    assert result.compare().shape == (height * scale, 2 * width * scale + 8, 3)


def test_faces_have_more_detail_than_an_enlargement() -> None:
    """The restored crop's own pixels reach a larger output: here 35 px of the photo are 64 of the crop."""
    pixels, small = scene(), Detector(face_at(100, 80, 18))
    fine = (np.indices((SIZE, SIZE)).sum(0) % 2)[..., None] * 0.3

    def detail(scale: int) -> float:
        options = RestoreOptions(scale=scale)
        made = restore_photo(pixels, Pipeline(lambda face: face + fine - 0.15), detector=small, options=options).image
        plain = restore_photo(pixels, Pipeline(lambda face: face), detector=small, options=options).image
        return float(np.abs(made.astype(float) - plain).max())

    assert detail(4) > 2 * detail(1)


def test_a_background_model_draws_the_rest() -> None:
    pixels = scene()
    result = restore_photo(pixels, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=2, background=doubled))
    mask = touched(pixels, TWO.faces, 2)
    np.testing.assert_array_equal(result.image[~mask], doubled(pixels, 2)[~mask])
    assert result.as_record()["background"] == {"name": "custom", "sha256": None}


def test_batches_do_not_matter() -> None:
    pixels = scene()
    many = Detector(*(face_at(30 + 25 * i, 60 + 10 * (i % 3), 24) for i in range(8)))
    images, sizes = [], []
    for batch in (1, 3, 8):
        pipeline = Noise()
        options = RestoreOptions(batch_size=batch, seed=5)
        images.append(restore_photo(pixels, pipeline, detector=many, options=options).image)
        sizes.append([len(call["images"]) for call in pipeline.calls])
    assert sizes == [[1] * 8, [3, 3, 2], [8]]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_the_seed_and_the_number_of_the_face_make_the_noise() -> None:
    import torch

    draws = [torch.randn(4, generator=face_generator(*key)) for key in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    pixels = scene()
    alone = restore_photo(pixels, Noise(), detector=TWO, options=RestoreOptions(faces=[1]))
    both = restore_photo(pixels, Noise(), detector=TWO)
    np.testing.assert_array_equal(alone.restored[0].after, both.restored[1].after)
    other = restore_photo(pixels, Noise(), detector=TWO, options=RestoreOptions(seed=1))
    assert (other.image != both.image).any()


def test_choices_reach_the_pipeline() -> None:
    pipeline = Pipeline(sharpen)
    options = RestoreOptions(prompt=["a", None], steps=9, fidelity=0.3, guidance_scale=1.5, batch_size=1)
    result = restore_photo(scene(), pipeline, detector=TWO, options=options)
    assert [call["prompt"] for call in pipeline.calls] == [["a"], [None]]
    assert {call["num_inference_steps"] for call in pipeline.calls} == {9}
    assert {call["fidelity"] for call in pipeline.calls} == {0.3}
    record = result.as_record()
    assert (record["steps"], record["fidelity"], record["guidance_scale"]) == (9, 0.3, 1.5)
    assert {"dtype", "solver"} <= record.keys()  # both change the bytes
    pipeline = Pipeline(sharpen)
    result = restore_photo(scene(), pipeline, detector=TWO, options=RestoreOptions(prompt="all"))
    assert pipeline.calls[0]["prompt"] == "all" and "fidelity" not in pipeline.calls[0]
    assert result.as_record()["steps"] == 4


def test_skipped_faces_stay_and_say_why() -> None:
    pixels = scene()
    small = face_at(30, 30, 12)
    result = restore_photo(pixels, Pipeline(sharpen), detector=Detector(small, face_at(150, 80, 50)))
    assert [face.status for face in result.faces] == ["skipped", "restored"]
    assert "too small" in (result.faces[0].reason or "") and result.faces[0].after is None
    mask = touched(pixels, [face_at(150, 80, 50)])
    np.testing.assert_array_equal(result.image[~mask], pixels[~mask])
    forced = restore_photo(pixels, Pipeline(sharpen), detector=Detector(small), options=RestoreOptions(faces=[0]))
    assert len(forced.restored) == 1


def test_no_face_leaves_the_photo_alone() -> None:
    pixels = scene()
    pipeline = Pipeline(sharpen)
    result = restore_photo(pixels, pipeline, detector=Detector())
    np.testing.assert_array_equal(result.image, pixels)
    assert result.faces == () and pipeline.calls == []


@pytest.mark.parametrize("side", [16, SIZE, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_aligned_face_fills_the_output(side: int, channels: int) -> None:
    pixels = scene(side, side, channels)
    result = restore_photo(pixels, Pipeline(sharpen), options=RestoreOptions(aligned=True))
    assert result.image.shape[:2] == (max(side, SIZE),) * 2 and result.image.ndim == pixels.ndim
    assert result.faces[0].status == "restored" and result.faces[0].box == (0, 0, side, side)
    if side == SIZE:
        assert result.faces[0].before is not None
        np.testing.assert_array_equal(result.faces[0].before, result.before.rgb8())
    with pytest.raises(InvalidInputError, match="square"):
        restore_photo(pixels[:-1], Pipeline(sharpen), options=RestoreOptions(aligned=True))


def test_options_that_do_not_fit_the_photo() -> None:
    with pytest.raises(InvalidInputError, match="no face 2"):
        restore_photo(scene(), Pipeline(sharpen), detector=TWO, options=RestoreOptions(faces=[0, 2]))
    with pytest.raises(InvalidInputError, match="3 prompts"):
        restore_photo(scene(), Pipeline(sharpen), detector=TWO, options=RestoreOptions(prompt=["a"] * 3))
    huge = np.broadcast_to(np.uint8(0), (8000, 8000))
    with pytest.raises(InvalidInputError, match="million pixels"):
        restore_photo(huge, Pipeline(sharpen), detector=TWO, options=RestoreOptions(scale=4))


def test_a_pipeline_that_returns_something_else() -> None:
    with pytest.raises(PrefRestoreError, match="shape"):
        restore_photo(scene(), Pipeline(lambda face: face[:32]), detector=TWO)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("faces", [None, (0,)])
def test_numbers_that_are_not_finite_fail_the_photo(value: float, faces: Any) -> None:
    def broken(face: Any) -> Any:
        spoilt = face.copy()
        spoilt[3, 4, 1] = value
        return spoilt

    class Raw(Pipeline):
        def __call__(self, images: Any, **options: Any) -> Any:
            return SimpleNamespace(images=np.stack([self.change(face) for face in images]).astype(np.float32))

    with pytest.raises(PrefRestoreError, match="face 0.*not finite"):
        restore_photo(scene(), Raw(broken), detector=TWO, options=RestoreOptions(faces=faces))


def test_a_face_cut_by_the_edge_is_left_alone_unless_it_is_named() -> None:
    pixels = scene()
    cut = Detector(face_at(4, 80, 50), face_at(150, 80, 50))
    result = restore_photo(pixels, Pipeline(sharpen), detector=cut)
    assert [(face.status, face.rule) for face in result.faces] == [("skipped", "edge"), ("restored", "default")]
    np.testing.assert_array_equal(result.image[:, :40], pixels[:, :40])
    named = restore_photo(pixels, Pipeline(sharpen), detector=cut, options=RestoreOptions(faces=[0]))
    assert named.faces[0].status == "restored" and any("edge" in said for said in named.warnings)


def test_strength_acts_to_the_pixel() -> None:
    pixels = scene()
    loose = {"keep_likeness": False}

    def shown(**options: Any) -> Any:
        return restore_photo(pixels, Pipeline(sharpen), detector=TWO, options=RestoreOptions(**loose, **options))

    full, half, none = (shown(strength=value) for value in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(none.image, pixels)
    assert not none.restored and {face.rule for face in none.faces} == {"strength"}
    np.testing.assert_array_equal(full.image, shown().image)
    layers = Layers(without=pixels, full=full.image, places=full.patches)
    np.testing.assert_array_equal(half.image, layers.at(0.5))
    low, high = np.minimum(pixels, full.image), np.maximum(pixels, full.image)
    assert ((half.image >= low) & (half.image <= high)).all()
    assert (half.image != pixels).any() and (half.image != full.image).any()
    one = shown(strength={0: 0.0})
    left = np.s_[:, :115]  # between the two faces
    np.testing.assert_array_equal(one.image[left], pixels[left])
    np.testing.assert_array_equal(one.image[:, 115:], full.image[:, 115:])
    assert [face.strength for face in one.faces] == [0, 1]
    with pytest.raises(InvalidInputError, match="no face 2"):
        shown(strength={2: 0.5})


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_strength_of_an_aligned_face(strength: float) -> None:
    pixels = scene(SIZE, SIZE)
    options = RestoreOptions(aligned=True, strength=strength, keep_likeness=False)
    result = restore_photo(pixels, Pipeline(sharpen), options=options)
    full = restore_photo(pixels, Pipeline(sharpen), options=RestoreOptions(aligned=True, keep_likeness=False)).image
    if strength != 0.5:
        np.testing.assert_array_equal(result.image, pixels if strength == 0 else full)
    else:
        assert (result.image != pixels).any() and (result.image != full).any()


class Embedder:
    """Tells people by how much their faces vary: a stand-in for an identity network."""

    def embed(self, rgb: Any, points: Any = None) -> Any:
        light = float(rgb.astype(np.float64).std()) / 255
        return np.array([np.cos(30 * light), np.sin(30 * light)], np.float32)


def test_weak_likeness_lowers_the_strength_and_says_so() -> None:
    pixels = scene()

    def other(face: Any) -> Any:
        return face + 0.4 * (np.indices((SIZE, SIZE)).sum(0) % 4 < 2)[..., None] - 0.2

    def shown(keep: bool) -> Any:
        options = RestoreOptions(keep_likeness=keep)
        return restore_photo(pixels, Pipeline(other), detector=TWO, options=options, embedder=Embedder())

    kept, loose = shown(keep=True), shown(keep=False)
    assert all(face.strength == 1 for face in loose.faces)
    assert {face.rule for face in kept.faces} == {"likeness"}
    assert all(face.strength < 1 for face in kept.faces)
    for mine, free in zip(kept.faces, loose.faces, strict=True):
        assert mine.similarity is None or mine.similarity > free.similarity
        assert any("lowered" in said for said in mine.warnings)
    assert kept.as_record()["faces"][0]["rule"] == "likeness"


def test_a_faded_face_is_shown_to_the_model_with_contrast_and_stays_faded() -> None:
    faded = np.round(140 + (scene().astype(float) - 140) * 0.2).astype(np.uint8)
    seen: list[Any] = []

    def look(face: Any) -> Any:
        seen.append(np.ptp(face))
        return face

    result = restore_photo(faded, Pipeline(look), detector=TWO)
    assert min(seen) > 0.5
    assert np.abs(result.image.astype(int) - faded).max() <= 2


def test_a_mosaic_is_shown_to_the_model_without_its_cells() -> None:
    small = cv2.resize(scene(), (30, 20), interpolation=cv2.INTER_AREA)
    cells = np.repeat(np.repeat(small, 8, axis=0), 8, axis=1)
    seen: list[float] = []

    def look(face: Any) -> Any:
        seen.append(np.abs(np.diff(face, axis=1)).max())
        return face

    restore_photo(cells, Pipeline(look), detector=TWO)
    assert len(seen) == 2 and max(seen) < np.abs(np.diff(cells / 255, axis=1)).max() / 2
