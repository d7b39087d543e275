"""Component classes of pipeline folders that other versions saved."""

from prefrestore.pipeline.components import find_components


def test_a_class_is_found_where_it_lives_today() -> None:
    config = {
        "image_tokenizer": ["prefrestore.semantic.tokenizer", "SemanticTokenizer"],
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "unknown": ["prefrestore.somewhere", "Nobody"],
        "face_size": 64,
    }
    assert find_components(config) == {
        "image_tokenizer": ["prefrestore.models.semantic.tokenizer", "SemanticTokenizer"],
        "transformer": ["diffusers", "SanaTransformer2DModel"],
        "unknown": ["prefrestore.somewhere", "Nobody"],
        "face_size": 64,
    }
