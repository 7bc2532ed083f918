"""What a model shows is found by the name of its stream."""

import pytest
import torch

from hf_distill.signals import Signals, Stream

SHOWN = Signals(
    {}, hidden=(torch.zeros(1, 3, 4),), mask=torch.ones(1, 3).bool(), grids=((1, 2),), main="decoder",
    streams={"encoder": Stream((torch.zeros(1, 5, 4),), mask=torch.ones(1, 5).bool())},
)  # fmt: skip


def test_the_main_stream_is_found_by_its_name_and_by_none():
    for name in (None, "decoder"):
        stream = SHOWN.stream(name)
        assert (stream.hidden, stream.mask, stream.grids) == (SHOWN.hidden, SHOWN.mask, ((1, 2),))
    assert SHOWN.stream("encoder") is SHOWN.streams["encoder"]


def test_a_stream_that_is_not_shown_is_refused_with_those_that_are():
    message = "the stream 'vision' was asked for, the model shows decoder, encoder: name one of those"
    with pytest.raises(ValueError, match=message):
        SHOWN.stream("vision")
