"""A term compares the stream that it names, and what it needs and counts is of that stream."""

import pytest
import torch

from hf_distill.models.facts import Facts
from hf_distill.objectives import TERMS, build
from hf_distill.objectives.attention import AttentionTerm
from hf_distill.objectives.hidden import HiddenMSE, HiddenTerm
from hf_distill.objectives.scores import ScoreTerm
from hf_distill.signals import Signals, Stream

NAMED = [name for name, term in TERMS.items() if issubclass(term, (HiddenTerm, AttentionTerm))]


@pytest.mark.parametrize("name", NAMED)
def test_every_term_on_states_or_maps_takes_a_stream(name):
    options = {"candidates": 2} if issubclass(TERMS[name], ScoreTerm) else {}
    (term,) = build({name: {"stream": "encoder", **options}}).terms.values()
    (plain,) = build({name: options}).terms.values()
    (need,) = plain.needs
    assert term.needs == {f"{need}:encoder"}
    assert term.unit == ("tokens:encoder" if plain.unit == "tokens" else plain.unit)
    assert "stream=encoder" in repr(term)
    assert "stream" not in repr(plain)
    term.set_streams(["encoder", "decoder"])
    assert (term.needs, term.unit) == (plain.needs, plain.unit)
    term.set_streams(["decoder", "encoder"])
    assert term.needs == {f"{need}:encoder"}


@pytest.mark.parametrize("name", ["minilm", "forward_kl"])
def test_terms_on_anything_else_take_none(name):
    with pytest.raises(ValueError, match=rf"{name} was given \['stream'\]: it takes weight"):
        build({name: {"stream": "encoder"}})


def test_states_mask_and_widths_are_those_of_the_stream():
    main, own = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[True, True, False]])

    def shown(value, width):
        other = Stream((torch.full((1, 3, width), value),), mask=own)
        return Signals({}, (torch.full((1, 2, 8), 9.0),), mask=main, streams={"encoder": other}, main="decoder")

    term = HiddenMSE(layers={0: 0}, stream="encoder")
    facts = (
        Facts(hidden_size=8, num_layers=5, streams={"encoder": Facts(hidden_size=w, num_layers=0)}) for w in (4, 6)
    )
    term.build(*facts)
    projection = term.projections["0_0"]
    assert projection.weight.shape == (6, 4)
    projection.weight.data.fill_(0.5)
    total, count = term(shown(1.0, 4), shown(5.0, 6), {})
    assert (total.item(), count.item()) == (2 * (0.5 * 4 - 5.0) ** 2, 2)


def test_a_model_of_whose_stream_nothing_is_known_is_refused():
    message = "hidden_mse compares hidden states, the student small's encoder has no config that gives its hidden_size"
    with pytest.raises(ValueError, match=message):
        HiddenMSE(stream="encoder").build(Facts("small", hidden_size=4, num_layers=1), Facts(hidden_size=4))
