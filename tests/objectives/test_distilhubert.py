"""Several layers predicted from one: the paper's equation, and five lines that train a student by it."""

import pytest
import tiny
import tiny_speech
import torch
from transformers import HubertModel

from hf_distill import keep_layers
from hf_distill.models.facts import Facts
from hf_distill.objectives import build
from hf_distill.objectives.distilhubert import DistilHuBERT
from hf_distill.signals import Signals

MASK = torch.tensor([[True, True, False], [True, False, False]])


def shown(width, layers, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = tuple(torch.randn(2, 3, width, generator=generator, requires_grad=True) for _ in range(layers + 1))
    return Signals({}, hidden=states, mask=MASK)


def reference(term, student, teacher, cosine):
    """Equation 1, added over real positions, the mean over the layers that are predicted."""
    total = 0.0
    for ours, theirs in term.pairs:
        weight = term.projections[f"{ours}_{theirs}"].weight.double()
        for b, t in MASK.nonzero().tolist():
            h, w = weight @ student.hidden[ours][b, t].double(), teacher.hidden[theirs][b, t].double()
            alike = (h @ w) / (h.norm() * w.norm())
            total = total + (h - w).abs().sum() / len(w) - cosine * torch.log(1 / (1 + torch.exp(-alike)))
    return total / len(term.pairs)


@pytest.mark.parametrize("cosine", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("width", [4, 6])
def test_values_and_gradients_agree_with_the_paper(cosine, width):
    torch.manual_seed(0)
    term = DistilHuBERT(cosine=cosine)
    term.build(Facts(hidden_size=4, num_layers=2), Facts(hidden_size=width, num_layers=6))
    assert term.pairs == [(2, 2), (2, 4), (2, 6)]
    student, teacher = shown(4, 2), shown(width, 6, seed=1)
    total, count = term(student, teacher, {})
    wanted = reference(term, student, teacher, cosine)
    assert count == 3
    assert total.item() == pytest.approx(wanted.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(one, student.hidden[2])[0] for one in (total, wanted))
    assert torch.allclose(ours, theirs.float(), rtol=1e-5, atol=1e-7)


def test_another_weight_of_the_direction_is_refused():
    with pytest.raises(ValueError, match="cosine=-1 was given to distilhubert: it weighs the direction"):
        build({"distilhubert": {"cosine": -1}})


@pytest.mark.slow
def test_five_lines_train_a_student_of_the_teachers_first_layers(tmp_path):
    tiny_speech.hubert(seed=7, kind=HubertModel, layers=4).save_pretrained(tmp_path / "teacher")
    rows = [{"input_values": row["input_values"]} for row in tiny_speech.recordings()]
    student = keep_layers(HubertModel.from_pretrained(tmp_path / "teacher"), [0, 1])
    run = tiny.trainer(
        tmp_path / "run", student, rows, teacher_model=str(tmp_path / "teacher"), data_collator=tiny_speech.collate,
        args={"max_steps": 20},
    )  # fmt: skip
    run.train()
    assert run.distillation.objective.terms["distilhubert"].pairs == [(2, 1), (2, 3), (2, 4)]
    assert tiny.losses(run)[-1] < 0.8 * tiny.losses(run)[0]
