"""What is known of models of two towers before they run."""

import pytest
import tiny_clip

from hf_distill.models.image_text import tower_columns


@pytest.mark.parametrize("kind", tiny_clip.KINDS)
def test_each_column_of_a_pair_is_read_by_one_tower(kind):
    own = tower_columns(tiny_clip.model(kind))
    row = tiny_clip.pairs(1, kind)[0]
    images = {name for name in row if name.startswith("pixel_") or name == "spatial_shapes"}
    assert own["image"] & row.keys() == images
    assert own["text"] & row.keys() == row.keys() - images
    assert not own["image"] & own["text"]
