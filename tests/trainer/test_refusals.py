"""Bad input ends in one sentence that says what was asked, what there was and what to do, before any step."""

import copy

import pytest
import tiny
import torch
from datasets import Dataset
from torch import nn
from transformers import BertModel, DataCollatorWithPadding

from hf_distill import DistillationTrainer, SequenceClassification, Term
from hf_distill.models.facts import Facts


def assert_refused(folder, message, error=ValueError, train=False, **parts):
    """Assert that the trainer cannot be made; with ``train``, that it is made and does not do a single step."""
    student = parts.setdefault("student", tiny.bert())
    before = copy.deepcopy(student.state_dict())
    if train:
        with pytest.raises(error, match=message) as caught:
            tiny.trainer(folder, **parts).train()
    else:
        with pytest.raises(error, match=message) as caught:
            tiny.trainer(folder, **parts)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())


NAMES = {"id2label": {0: "bad", 1: "good", 2: "so"}, "label2id": {"bad": 0, "good": 1, "so": 2}}
TURNED = {"id2label": {0: "good", 1: "so", 2: "bad"}, "label2id": {"good": 0, "so": 1, "bad": 2}}


def test_other_label_counts(tmp_path):
    assert_refused(
        tmp_path,
        "has 4 labels, the student has 3: give both the same num_labels",
        teacher_model=tiny.teacher(labels=4),
    )


def test_label_names_in_another_order_offer_the_mapping_and_it_works(tmp_path):
    student, teacher = tiny.bert(**NAMES), tiny.teacher(**TURNED)
    offer = r"task=SequenceClassification\(num_labels=3, teacher_labels=\[2, 0, 1\]\)"
    assert_refused(tmp_path, offer, student=student, teacher_model=teacher)
    task = SequenceClassification(num_labels=3, teacher_labels=[2, 0, 1])
    assert tiny.trainer(tmp_path, student, teacher_model=teacher, task=task).train().global_step == 3


def test_other_label_names(tmp_path):
    other = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    assert_refused(
        tmp_path, r"names its labels \[a, b, c\], the student \[bad, good, so\]: give both the same id2label",
        student=tiny.bert(**NAMES), teacher_model=tiny.teacher(**other),
    )  # fmt: skip


def test_names_against_no_names_are_accepted(tmp_path):
    assert tiny.trainer(tmp_path, tiny.bert(**NAMES), teacher_model=tiny.teacher()).teacher is not None


def test_other_problem_types(tmp_path):
    assert_refused(
        tmp_path, "made for multi_label_classification, the student for single_label_classification: set",
        teacher_model=tiny.teacher(tiny.MULTI),
    )  # fmt: skip


def test_another_problem_type_that_only_the_labels_show(tmp_path):
    student = tiny.bert()
    student.config.problem_type = None
    assert_refused(
        tmp_path, "made for single_label_classification, the student for multi_label", train=True, student=student,
        data=tiny.rows(problem=tiny.MULTI), teacher_model=tiny.teacher(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [("alpha", -0.1), ("alpha", 1.1), ("temperature", 0.0), ("temperature", -2)]
)
def test_alpha_and_temperature_out_of_range(tmp_path, field, value):
    assert_refused(tmp_path, f"{field}={value} was given", teacher_model=tiny.teacher(), args={field: value})


def test_unknown_objective_names_the_known_ones(tmp_path):
    assert_refused(
        tmp_path, "'kl' is not known: choose one of forward_kl, ", teacher_model=tiny.teacher(), objective="kl"
    )
    assert_refused(tmp_path, "'kl' is not known", teacher_model=tiny.teacher(), args={"objective": "kl"})
    assert_refused(tmp_path, "is not valid JSON", teacher_model=tiny.teacher(), args={"objective": '{"forward_kl": }'})


def test_bad_weights(tmp_path):
    assert_refused(tmp_path, "weight -1 was given to jsd", teacher_model=tiny.teacher(), objective={"jsd": -1})


def test_alpha_without_a_teacher(tmp_path):
    assert_refused(
        tmp_path, "alpha=0.5 asks to learn from a teacher, there is none: pass teacher_model=", args={"alpha": 0.5}
    )


def test_a_data_set_without_labels(tmp_path):
    data = Dataset.from_list([{k: v for k, v in row.items() if k != "labels"} for row in tiny.rows()])
    assert_refused(
        tmp_path, "training set has the columns .*: add a 'label' column", data=data, teacher_model=tiny.teacher()
    )
    plain = list(data)  # a list does not say what it holds: the first batch does
    assert_refused(
        tmp_path, "alpha=0.5 trains on labels, the batch has", train=True, data=plain, teacher_model=tiny.teacher()
    )
    run = tiny.trainer(tmp_path, data=data, teacher_model=tiny.teacher(), args={"alpha": 1.0})
    assert run.train().global_step == 3


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_out_of_range(tmp_path, label):
    data = [{**row} for row in tiny.rows()]
    data[5]["labels"] = label
    assert_refused(
        tmp_path, f"row 5 of the training set has label {label}, the student has 3 classes",
        data=Dataset.from_list(data),
        teacher_model=tiny.teacher(),
    )  # fmt: skip


def test_integer_lists_as_labels(tmp_path):
    student = tiny.bert(problem=tiny.MULTI)
    student.config.problem_type = None
    data = [{**row, "labels": [int(x) for x in row["labels"]]} for row in tiny.rows(problem=tiny.MULTI)]
    teacher = tiny.teacher(tiny.MULTI)
    assert_refused(
        tmp_path, "make them floats for several classes", train=True, student=student, data=data, teacher_model=teacher
    )


def test_a_teacher_without_logits(tmp_path):
    headless = BertModel(tiny.bert().config)
    assert_refused(
        tmp_path, "BertModel was given as teacher, but it gives hidden states and no logits", teacher_model=headless
    )

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = headless

        def forward(self, input_ids):
            return self.inner(input_ids)

    assert_refused(
        tmp_path, "logits were asked of Wrapped, it returned last_hidden", train=True, teacher_model=Wrapped()
    )


def test_a_teacher_whose_head_was_never_trained(tmp_path):
    BertModel(tiny.teacher().config).save_pretrained(tmp_path / "base")
    assert_refused(
        tmp_path, "has no trained weights for classifier.bias, classifier.weight: fine-tune it",
        teacher_model=str(tmp_path / "base"),
    )  # fmt: skip


def test_a_function_with_other_shapes(tmp_path):
    assert_refused(
        tmp_path, r"gave logits of shape \[8, 5\], the student \[8, 3\]", train=True,
        teacher_model=lambda batch: torch.zeros(8, 5),
    )  # fmt: skip


def test_something_that_cannot_teach(tmp_path):
    assert_refused(tmp_path, "teacher_model is a int: give a model, a path or Hub id", TypeError, teacher_model=3)


def test_a_teacher_that_is_the_student(tmp_path):
    student = tiny.bert()
    assert_refused(tmp_path, r"shares \d+ parameters with the student", student=student, teacher_model=student)
    assert tiny.trainer(tmp_path, student, teacher_model=copy.deepcopy(student)).train().global_step == 3


def test_other_tokens_under_the_same_ids(tmp_path):
    teacher = tiny.teacher()
    teacher.save_pretrained(tmp_path / "teacher")
    other = type(tiny.tokenizer())(vocab={token: i for i, token in enumerate(reversed(tiny.tokenizer().get_vocab()))})
    other.save_pretrained(tmp_path / "teacher")
    ours = tiny.tokenizer()
    message = r"read the same input_ids, but \d+ of the student's 29 tokens have another id .*teacher_input_ids"
    for way in (str(tmp_path / "teacher"), type(teacher).from_pretrained(tmp_path / "teacher")):
        assert_refused(tmp_path, message, teacher_model=way, processing_class=ours)
    data = Dataset.from_list([{**row, "teacher_input_ids": [1, 2]} for row in tiny.rows()])
    assert tiny.trainer(tmp_path, data=data, teacher_model=teacher, processing_class=ours).teacher is not None
    ours.save_pretrained(tmp_path / "teacher")
    assert tiny.trainer(tmp_path, teacher_model=str(tmp_path / "teacher"), processing_class=ours).teacher is not None


def test_a_teacher_that_knows_fewer_tokens(tmp_path):
    assert_refused(
        tmp_path, "tokenizer has 29 tokens, the teacher BertForSequenceClassification knows 20",
        teacher_model=tiny.teacher(vocab_size=20), processing_class=tiny.tokenizer(),
    )  # fmt: skip


def test_distributions_of_a_regression(tmp_path):
    assert_refused(
        tmp_path, "forward_kl compares distributions, the student's problem is regression: use logit_mse",
        student=tiny.bert(problem=tiny.REGRESSION), data=tiny.rows(problem=tiny.REGRESSION), objective="forward_kl",
        teacher_model=tiny.teacher(tiny.REGRESSION),
    )  # fmt: skip


class Hidden(Term):
    needs = frozenset({"hidden"})


def test_what_a_teacher_or_the_trainer_cannot_serve(tmp_path):
    assert_refused(
        tmp_path, r"objective needs \['hidden'\], the teacher look_up serves \['heads'\]", objective=Hidden(),
        teacher_model=look_up,
    )  # fmt: skip


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


def test_a_student_without_a_task(tmp_path):
    assert_refused(
        tmp_path, "no task is known for BertModel.*pass task=", error=ValueError, student=_headless_student(),
        teacher_model=tiny.teacher(),
    )  # fmt: skip


def _headless_student():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, input_ids, labels=None):
            return self.linear(input_ids)

    Odd.__name__ = "BertModelOfMine"
    return Odd()


def test_several_gpus_in_one_process(tmp_path):
    args = tiny.arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match="2 GPUs were found in one process"):
        DistillationTrainer(tiny.bert(), args, train_dataset=tiny.rows(), teacher_model=tiny.teacher())


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1], [1, 2, 3]])
def test_a_label_mapping_that_is_no_permutation(labels):
    with pytest.raises(ValueError, match="does not name each of the 3 classes once"):
        SequenceClassification(num_labels=3, teacher_labels=labels)


def test_an_unknown_problem_type():
    with pytest.raises(ValueError, match="problem_type='ranking' is not known: use single_label_classification"):
        SequenceClassification(num_labels=3, problem_type="ranking")


def test_facts_of_a_teacher_that_is_not_known_refuse_nothing():
    SequenceClassification(num_labels=3).check(Facts(), Facts())


def longer(rows, length=9):
    return [*rows, {**rows[0], "input_ids": [5] * length, "attention_mask": [1] * length}]


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_row_that_is_longer_than_a_model_reads_is_refused_before_any_step(tmp_path, who):
    pair = {"student": tiny.bert(), "teacher": tiny.teacher()}
    pair[who] = tiny.bert(max_position_embeddings=8)
    told = f"row 8 of the training set is 9 tokens long, the {who} BertFor.* was made for 8 positions: cut the rows"
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, pair["student"], Dataset.from_list(longer(tiny.rows())), teacher_model=pair["teacher"])


def test_only_rows_that_are_chosen_and_not_cut_are_looked_at(tmp_path):
    data = Dataset.from_list(longer(tiny.rows()))
    pair = tiny.bert(max_position_embeddings=8), tiny.teacher()
    tiny.trainer(tmp_path, pair[0], data.select(range(8)), teacher_model=pair[1]).train()
    cut = DataCollatorWithPadding(tiny.tokenizer())
    run = tiny.trainer(
        tmp_path, pair[0], data, teacher_model=pair[1],
        data_collator=lambda rows: {name: one[:, :8] if one.ndim > 1 else one for name, one in cut(rows).items()},
    )  # fmt: skip
    assert run.train().global_step == 3


def test_a_longer_text_in_a_list_is_refused_when_it_comes(tmp_path):
    run = tiny.trainer(
        tmp_path, tiny.bert(max_position_embeddings=8), longer(tiny.rows(7)), teacher_model=tiny.teacher()
    )
    with pytest.raises(ValueError, match=r"the batch is 9 tokens long, the student .* was made for 8 positions"):
        run.train()


def test_tokens_that_the_teacher_does_not_have_are_named(tmp_path):
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(vocab_size=20))
    with pytest.raises(
        ValueError, match=r"the teacher .* for the tokens 0 to 19: give it tokens of its own \(columns"
    ):
        run.train()
    assert run.teacher.teacher.limits.every


def test_tokens_that_the_student_does_not_have_are_named(tmp_path):
    run = tiny.trainer(tmp_path, tiny.bert(vocab_size=20), teacher_model=tiny.teacher())
    with pytest.raises(ValueError, match=r"the student .* for the tokens 0 to 19: call model.resize_token_embeddings"):
        run.train()
