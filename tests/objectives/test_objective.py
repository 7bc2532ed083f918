"""Objectives by name, their weights, and the one division."""

import pytest

from hf_distill.objectives import Objective, Term, build
from hf_distill.objectives.logits import ForwardKL


class Mine(Term):
    def __init__(self, strength=1.0):
        super().__init__()
        self.strength = strength


class NoTerm: ...


def test_build_takes_names_mappings_terms_and_objectives():
    assert build("jsd").weights == {"jsd": 1.0}
    assert build({"forward_kl": 2, "logit_mse": {"weight": 0.5}}).weights == {"forward_kl": 2.0, "logit_mse": 0.5}
    assert build(ForwardKL()).weights == {"forward_kl": 1.0}
    objective = Objective({"kl": ForwardKL()})
    assert build(objective) is objective


def test_build_imports_a_users_own_term():
    objective = build({f"{__name__}:Mine": {"weight": 3, "strength": 2.0}})
    assert objective.weights == {"Mine": 3.0}
    assert objective.terms["Mine"].strength == 2.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("forward", "'forward' is not known: choose one of forward_kl, reverse_kl, jsd"),
        ("nowhere:Name", "could not be imported"),
        (f"{__name__}:NoTerm", "not a subclass of hf_distill.Term"),
        ({"forward_kl": {"beta": 1}}, r"was given \['beta'\]: it takes weight, temperature"),
        ({"forward_kl": -1.0}, "weight -1.0 was given to forward_kl: give a number of at least 0"),
        ({"forward_kl": float("nan")}, "weight nan was given"),
        ({"forward_kl": "much"}, "weight 'much' was given"),
        ({"forward_kl": True}, "weight True was given"),
        ({"forward_kl": 0, "jsd": 0}, "every weight of .* is 0: set alpha=0"),
        ({}, "without any term"),
    ],
)
def test_a_bad_specification_is_refused_in_a_sentence(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_another_type_is_refused():
    with pytest.raises(TypeError, match="objective=3 is a int: give a name, a mapping, a Term or an Objective"):
        build(3)


def test_weights_must_name_terms():
    with pytest.raises(ValueError, match=r"weights were given for \['mse'\], but the terms are \['kl'\]"):
        Objective({"kl": ForwardKL()}, {"mse": 1.0})


def test_a_term_may_not_take_the_name_of_the_supervised_loss():
    with pytest.raises(ValueError, match="named 'hard'"):
        build({"hard": {"term": "forward_kl"}})


def test_a_term_may_listen_to_one_teacher_of_several():
    objective = build({"forward_kl": 1.0, "logit_mse": {"teacher": 1, "weight": 2.0}})
    assert objective.teachers == {"logit_mse": "1"}  # the names of a list are numbers
    assert objective.needs == {"heads"}
    assert objective.teacher_needs == {"heads", "heads@1"}
    with pytest.raises(ValueError, match=r"teachers were given for \['mse'\], but the terms are \['kl'\]"):
        Objective({"kl": ForwardKL()}, teachers={"mse": "big"})
