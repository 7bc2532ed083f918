"""Several teachers as one: their mean, each by its name, one for each row."""

import numpy as np
import pytest
import tiny
import tiny_language
import torch
from datasets import Dataset
from reference import probabilities
from test_exact import assert_same, step

from hf_distill import CausalLM, FunctionTeacher, LiveTeacher, SequenceClassification, Several, Teacher
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.training.build_teacher import build_teacher

TASK = SequenceClassification(num_labels=3, problem_type=tiny.SINGLE)
HEADS = frozenset({"heads"})
NAMES = ("big", "small", "odd")


def models(problem=tiny.SINGLE, **config):
    sizes = {"big": (24, 2), "small": (16, 1), "odd": (20, 2)}
    shapes = {name: dict(width=width, layers=layers) for name, (width, layers) in sizes.items()}
    return {n: tiny.bert(problem=problem, seed=7 + i, **{**shapes[n], **config}) for i, n in enumerate(NAMES)}


def live(task=TASK, **config):
    return {name: LiveTeacher(model, task) for name, model in models(task.problem_type, **config).items()}


def batch(problem=tiny.SINGLE):
    return dict(tiny.DataCollatorWithPadding(tiny.tokenizer())(tiny.rows(problem=problem)))


def logits(signals):
    return signals.heads["logits"].logits


def watch(teachers):
    """What each model is called with, as often as it is called."""
    calls = {name: [] for name in teachers}
    for name, model in teachers.items():
        model.register_forward_pre_hook(lambda m, args, kwargs, n=name: calls[n].append(kwargs), with_kwargs=True)
    return calls


# ---- The mean ----


@pytest.mark.parametrize("weights", [None, [1, 2, 5], {"odd": 0.5, "big": 0.0, "small": 0.5}])
@pytest.mark.parametrize("combine", ["probabilities", "logits"])
@pytest.mark.parametrize("problem", [tiny.SINGLE, tiny.MULTI])
def test_the_mean_equals_the_textbook(problem, combine, weights):
    task, made = SequenceClassification(num_labels=3, problem_type=problem), batch(problem)
    teachers = live(task)
    each = [logits(one(made, HEADS)).tensor.double() for one in teachers.values()]
    given = [1, 1, 1] if weights is None else [weights[n] for n in NAMES] if isinstance(weights, dict) else weights
    shares = [weight / sum(given) for weight in given]
    if combine == "logits":
        expected = sum(share * one for share, one in zip(shares, each, strict=True))
    else:
        expected = sum(share * probabilities(one) for share, one in zip(shares, each, strict=True)).log()
    shown = Several(teachers, weights, combine)(made, HEADS)
    torch.testing.assert_close(logits(shown).tensor.double(), expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(shown.heads["logits"].rows, task.rows(made))
    assert torch.equal(shown.mask, made["attention_mask"].bool())


def test_the_mean_of_language_models_is_taken_at_every_position():
    teachers = [LiveTeacher(tiny_language.llama(seed=seed), CausalLM()) for seed in (1, 2)]
    ids = torch.randint(7, 31, (2, 5))
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    each = [probabilities(logits(one(made, HEADS)).tensor) for one in teachers]
    shown = logits(Several(teachers)(made, HEADS))
    torch.testing.assert_close(shown.tensor.double(), (sum(each) / 2).log(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("as_list", [True, False])
def test_a_run_learns_from_the_mean(tmp_path, as_list):
    teachers = models()
    several = tiny.trainer(tmp_path, teacher_model=list(teachers.values()) if as_list else teachers)
    several.train()

    def mean(batch):
        read = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return (sum(probabilities(model(**read).logits) for model in teachers.values()) / 3).log().float()

    one = tiny.trainer(tmp_path, teacher_model=mean)
    one.train()
    assert list(several.teacher.members) == (["0", "1", "2"] if as_list else list(NAMES))
    assert tiny.losses(several) == pytest.approx(tiny.losses(one), rel=1e-5)


def test_each_expects_several_trainings():
    members = {name: CachedTeacher(one) for name, one in live().items()}
    Several(members).expect(3)
    assert [one.watch.ahead for one in members.values()] == [3, 3, 3]


def test_one_of_one_is_that_one(tmp_path):
    for how in ("probabilities", "logits"):
        found = []
        for given in (models()["big"], Several([models()["big"]], combine=how)):
            run = tiny.trainer(tmp_path, teacher_model=given)
            run.train()
            found.append(tiny.losses(run))
        assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_regression_is_averaged_as_it_is(tmp_path):
    run = tiny.trainer(
        tmp_path, tiny.bert(problem=tiny.REGRESSION), tiny.rows(problem=tiny.REGRESSION),
        teacher_model=models(tiny.REGRESSION),
    )  # fmt: skip
    run.train()
    made = batch(tiny.REGRESSION)
    shown = run.teacher(made, HEADS)
    expected = sum(logits(one).tensor for one in shown.named.values()) / 3
    torch.testing.assert_close(logits(shown).tensor, expected)
    assert "mean of their logits" in str(run.teacher)


def test_classes_in_another_order_are_put_into_the_students(tmp_path):
    order = [2, 0, 1]
    task = SequenceClassification(num_labels=3, problem_type=tiny.SINGLE, teacher_labels=order)
    teachers = live(task)
    made = batch()
    shown = Several(teachers)(made, HEADS | {"heads@odd"})
    student = TASK.signals(tiny.bert(), made, tiny.bert()(input_ids=made["input_ids"]))
    _, aligned = task.match(student, shown, made)
    assert torch.equal(logits(aligned).tensor, logits(shown).tensor[:, order])
    assert torch.equal(logits(aligned.named["odd"]).tensor, logits(shown.named["odd"]).tensor[:, order])


OFF = {"teacher_cache": "off"}  # each batch is then a call


def test_a_teacher_without_a_share_is_not_run_unless_somebody_listens(tmp_path):
    for objective, expected in (("forward_kl", 0), ({"forward_kl": 1.0, "jsd": {"teacher": "odd"}}, 3)):
        teachers = models()
        calls = watch(teachers)
        given = Several(teachers, weights={"big": 1, "small": 1, "odd": 0})
        tiny.trainer(tmp_path, teacher_model=given, objective=objective, args=OFF).train()
        assert [len(calls[name]) for name in NAMES] == [3, 3, expected]


# ---- Listening to one by its name ----


@pytest.mark.parametrize("objective", ["forward_kl", "hidden_mse"])
def test_listening_to_one_equals_a_run_with_that_teacher_alone(tmp_path, objective):
    options = {"layers": {0: 1, 1: 2}} if objective == "hidden_mse" else {}
    alone = tiny.trainer(tmp_path, teacher_model=models()["odd"], objective={objective: options})
    alone.train()
    teachers = models()
    calls = watch(teachers)
    asked = {objective: {"teacher": "odd", **options}}
    run = tiny.trainer(tmp_path, teacher_model=teachers, objective=asked, args=OFF)
    run.train()
    assert tiny.losses(run) == tiny.losses(alone)
    assert tiny.losses(run, f"loss/{objective}") == tiny.losses(alone, f"loss/{objective}")
    assert [len(calls[name]) for name in NAMES] == [0, 0, 3]  # nobody asked the others


def test_each_is_run_once_and_asked_for_what_is_heard(tmp_path):
    teachers = models()
    calls = watch(teachers)
    spec = {"forward_kl": 1.0, "hidden_mse": {"teacher": "big", "layers": {1: 2}}, "jsd": {"teacher": "big"}}
    run = tiny.trainer(tmp_path, teacher_model=teachers, objective=spec, args=OFF)
    run.train()
    assert [len(calls[name]) for name in NAMES] == [3, 3, 3]
    asked = [calls[name][0].get("output_hidden_states", False) for name in NAMES]
    assert asked == [True, False, False]
    assert run.model.distillation.terms["hidden_mse"].projections["1_2"].weight.shape == (24, 16)
    single = {"jsd": 1.0, "hidden_mse": {"layers": {1: 2}}}
    other = tiny.trainer(tmp_path, teacher_model=models()["big"], objective=single)
    other.train()
    for part in ("jsd", "hidden_mse"):  # before the first step the two students are equal
        assert tiny.losses(run, f"loss/{part}")[0] == tiny.losses(other, f"loss/{part}")[0]


def test_terms_of_one_kind_may_listen_to_different_teachers(tmp_path):
    spec = {f"kl_{name}": {"term": "forward_kl", "teacher": name} for name in NAMES}
    run = tiny.trainer(tmp_path, teacher_model=models(), objective=spec)
    run.train()
    for name, model in models().items():
        alone = tiny.trainer(tmp_path, teacher_model=model)
        alone.train()
        assert tiny.losses(run, f"loss/kl_{name}")[0] == tiny.losses(alone, "loss/forward_kl")[0]


@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_the_mean_and_its_named_teachers_are_exact_however_a_batch_is_cut(tmp_path, problem):
    soft = "logit_mse" if problem == tiny.REGRESSION else "forward_kl"
    spec = {soft: 1.0, "mse": {"term": "logit_mse", "teacher": "odd"}, "hidden_mse": {"teacher": "big"}}
    cuts = [(8, 1), (2, 4), (3, 3)]
    data = tiny.rows(8, problem)
    whole, *others = [step(tmp_path, data, *cut, problem, teacher=models(problem), objective=spec) for cut in cuts]
    for other in others:
        assert_same(other, whole)


# ---- One teacher for each row ----

CHOICE = [0, 2, 2, 1, 0, 2, 0, 1]


def chosen_rows(choice=CHOICE, **more):
    return [{**row, "source": c, **more} for row, c in zip(tiny.rows(), choice, strict=True)]


def test_each_row_is_answered_by_its_own_teacher():
    teachers = live(width=24, layers=2)
    made = {**batch(), "source": torch.tensor(CHOICE), "note": np.arange(8)}
    shown = Several(teachers, choose="source")(made, HEADS | {"hidden"})
    for row, index in enumerate(CHOICE):
        alone = teachers[NAMES[index]](batch(), HEADS | {"hidden"})
        torch.testing.assert_close(logits(shown).tensor[row], logits(alone).tensor[row], rtol=1e-5, atol=1e-6)
        for ours, theirs in zip(shown.hidden, alone.hidden, strict=True):
            torch.testing.assert_close(ours[row], theirs[row], rtol=1e-4, atol=1e-5)
    assert torch.equal(shown.mask, made["attention_mask"].bool())
    assert shown.heads["logits"].rows.tolist() == [True] * 8


def test_a_teacher_is_run_on_its_own_rows_only(tmp_path):
    teachers, student, seen = models(), tiny.bert(), []
    calls = watch({**teachers, "student": student})

    def count(batch):
        seen.append({name: len(value) for name, value in batch.items()})
        return torch.zeros(len(batch["input_ids"]), 3)

    data = Dataset.from_list(chosen_rows(note=1))
    given = Several([*teachers.values(), FunctionTeacher(count, columns=["note"])], choose="source")
    run = tiny.trainer(tmp_path, student, data, teacher_model=given, args={"max_steps": 1}, eval_dataset=data)
    assert run.teacher.columns >= {"source", "note", "input_ids"}
    run.train()
    assert [len(calls[name][0]["input_ids"]) for name in NAMES] == [3, 2, 3]
    assert seen == []  # no row is its
    assert all("source" not in call for several in calls.values() for call in several)
    assert "eval_loss/forward_kl" in run.evaluate()
    other = Dataset.from_list(chosen_rows([3] * 8, note=1))
    tiny.trainer(tmp_path, data=other, teacher_model=given, args={"max_steps": 1}).train()
    assert seen[0] == {"input_ids": 8, "attention_mask": 8, "note": 8}


@pytest.mark.parametrize("cut", [(2, 4), (4, 2), (3, 3)])
def test_a_choice_for_each_row_is_exact_however_a_batch_is_cut(tmp_path, cut):
    runs = [
        step(tmp_path, chosen_rows(), *size, teacher=Several(models(), choose="source"), alpha=0.7)
        for size in (cut, (8, 1))
    ]
    assert_same(*runs)


def test_teachers_of_one_width_show_the_hidden_states_of_their_rows(tmp_path):
    same = models(width=24, layers=2)
    run = tiny.trainer(
        tmp_path, data=chosen_rows(), teacher_model=Several(same, choose="source"), objective="hidden_mse"
    )
    run.train()
    assert all(np.isfinite(tiny.losses(run)))
    with pytest.raises(ValueError, match="the teacher 3 teachers: big, small, odd has no config that gives its"):
        tiny.trainer(
            tmp_path, data=chosen_rows(), teacher_model=Several(models(), choose="source"), objective="hidden_mse"
        )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            [0, 1, 3, 1, 0, 2, 0, 1],
            r"row 2 holds 3 in its column 'source', the teachers are 0 \(big\), 1 \(small\), 2",
        ),
        ([0, 1, 2, -1, 0, 2, 0, 1], "row 3 holds -1 in its column 'source'"),
        ([True] * 8, r"row 0 holds bool of shape \[8\] in its column 'source'.*the index of its teacher, one integer"),
        ([0.5] * 8, r"row 0 holds float\d+ of shape \[8\]"),
        ([[0]] * 8, r"row 0 holds int64 of shape \[8, 1\]"),
    ],
)
def test_a_choice_that_names_no_teacher_is_refused(tmp_path, choice, message):
    teachers, rows = Several(models(), choose="source"), chosen_rows(choice)
    with pytest.raises(ValueError, match=message) as caught:  # before the first step, where the data set can be read
        tiny.trainer(tmp_path, data=Dataset.from_list(rows), teacher_model=teachers)
    assert "\n" not in str(caught.value)
    given = Several(live(), choose="source")
    with pytest.raises(ValueError, match="in its column 'source'"):
        given({**batch(), "source": torch.tensor(choice)}, HEADS)


def test_a_batch_without_its_choice_is_refused():
    with pytest.raises(
        ValueError, match=r"choose='source' was asked for, the batch has \['attention_mask', 'input_ids"
    ):
        Several(live(), choose="source")(batch(), HEADS)


# ---- What may be given, and what is refused ----


def test_models_paths_functions_and_teachers_go_together(tmp_path):
    tiny.teacher().save_pretrained(tmp_path)
    ready = LiveTeacher(tiny.teacher(), dtype=None)
    given = [str(tmp_path), tiny.teacher(), ready]
    several = build_teacher(given, TASK, dtype=torch.bfloat16)
    assert isinstance(several, Teacher)
    dtypes = [one.dtype for one in several.members.values()]
    assert dtypes == [torch.bfloat16, torch.bfloat16, None]
    assert several.members["2"] is ready
    mixed = build_teacher((tiny.teacher(), lambda batch: None), TASK)
    assert [type(one) for one in mixed.members.values()] == [LiveTeacher, FunctionTeacher]
    with pytest.raises(ValueError, match="was given for a function"):
        build_teacher([lambda batch: None], TASK, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="was given for a Several, which is not loaded here"):
        build_teacher(mixed, TASK, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="a model is quantised while it is loaded"):
        build_teacher([tiny.teacher()], TASK, quantization="torchao_int8")
    with pytest.raises(TypeError, match=r"teacher_model is a int: .* or a list of these"):
        build_teacher([3], TASK)


def test_two_trainers_may_take_the_same(tmp_path):
    given = Several(models())
    runs = [tiny.trainer(tmp_path, teacher_model=given, args={"teacher_dtype": "bfloat16"}) for _ in range(2)]
    for run in runs:
        run.train()
    assert tiny.losses(runs[0]) == tiny.losses(runs[1])
    assert given.members == {}  # the trainers loaded it for themselves


def test_several_of_several_are_one_more(tmp_path):
    inner = Several(models(), combine="logits")
    run = tiny.trainer(
        tmp_path, teacher_model={"all": inner, "one": tiny.teacher()}, objective={"jsd": {"teacher": "all"}}
    )
    run.train()
    alone = tiny.trainer(tmp_path, teacher_model=inner, objective="jsd")
    alone.train()
    assert tiny.losses(run) == tiny.losses(alone)
    odd = {"all": Several({"fine": models()["big"], "bad": tiny.bert(labels=4)}), "one": tiny.teacher()}
    with pytest.raises(ValueError, match=r"the teacher bad \(BertForSequenceClassification\) has 4 labels"):
        tiny.trainer(tmp_path, teacher_model=odd)


def test_what_is_known_is_what_all_share():
    facts = Several(live()).facts
    assert facts.name == "3 teachers: big, small, odd"
    assert (facts.hidden_size, facts.num_layers, facts.vocab_size, facts.num_heads) == (None, None, 32, 2)
    assert facts.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    several = Several(live())
    assert several.serves >= {"heads", "hidden@big", "attention@odd", "heads@small"}
    assert "hidden" not in several.serves
    assert Several({**live(), "table": FunctionTeacher(lambda b: 0)}, choose="source").serves == HEADS
    assert several.inputs({**batch(), "note": 1}).keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teachers": []}, "several teachers were asked for, there is none"),
        ({"combine": "mode"}, "combine='mode' is not known: use 'probabilities' or 'logits'"),
        ({"weights": [1, 2]}, r"weights=\[1, 2\] were given, the teachers are big, small, odd: give one number each"),
        ({"weights": {"big": 1}}, "the teachers are big, small, odd: give one number each"),
        ({"weights": [1, -1, 1]}, "weight -1 was given to a teacher: give a number of at least 0"),
        ({"weights": [1, float("nan"), 1]}, "weight nan was given"),
        ({"weights": [1, float("inf"), 1]}, "weight inf was given"),
        ({"weights": [1, True, 1]}, "weight True was given"),
        ({"weights": [0, 0, 0]}, "the weights of the teachers big, small, odd are all 0"),
        ({"choose": "source", "weights": [1, 1, 1]}, "choose='source' lets one teacher answer each row, but weights"),
        ({"choose": "source", "combine": "logits"}, "leave one of the two out"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Several(**{"teachers": dict.fromkeys(NAMES), **options})
    assert "\n" not in str(caught.value)


class Sharded(LiveTeacher):
    def prepare(self, trainer):
        super().prepare(trainer)
        self.collective = True


def four_labels():
    return {**models(), "odd": tiny.bert(labels=4)}


def as_other_words():
    names = {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    return {"big": tiny.teacher(), "odd": tiny.teacher(**names)}


@pytest.mark.parametrize(
    ("teachers", "objective", "message"),
    [
        (models, {"jsd": {"teacher": "large"}}, "jsd listens to the teacher 'large', but the teachers are big, small"),
        (tiny.teacher, {"jsd": {"teacher": "large"}}, "but BertForSequenceClassification is the only one: name one"),
        (models, "hidden_mse", r"needs \['hidden'\], the teacher 3 teachers: .* serves .*\"teacher\": \"big"),
        (
            lambda: {**models(), "table": lambda batch: torch.zeros(8, 3)}, {"hidden_mse": {"teacher": "table"}},
            r"hidden_mse needs \['hidden'\] of the teacher 'table', which serves \['heads'\] by itself",
        ),
        (
            lambda: Several(models(), choose="source"), {"jsd": {"teacher": "big"}},
            r"jsd needs \['heads'\] of the teacher 'big', which serves \[\] by itself: .* or leave choose out",
        ),
        (models, "logit_mse", r"logit_mse compares raw logits, which the mean of .* combine=\"logits\""),
        (four_labels, None, r"the teacher odd \(BertForSequenceClassification\) has 4 labels, the student has 3"),
        (
            lambda: {**models(), "odd": tiny.bert(problem=tiny.MULTI, labels=3)}, None,
            r"the teacher odd \(.*\) was made for multi_label_classification, the student for single",
        ),
        (
            lambda: Several([Sharded(tiny.teacher()), tiny.teacher()], choose="source"), None,
            "choose='source' was asked for, but a teacher is sharded, and ranks would call it unequally often",
        ),
        (lambda: [tiny.teacher(vocab_size=20)], None, "tokenizer has 29 tokens, the teacher .* knows 20"),
    ],
)  # fmt: skip
def test_what_cannot_be_taught_is_refused_before_the_first_step(tmp_path, teachers, objective, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny.trainer(tmp_path, teacher_model=teachers(), objective=objective, processing_class=tiny.tokenizer())
    assert "\n" not in str(caught.value)


def test_named_labels_of_every_teacher_are_compared_with_the_students(tmp_path):
    names = {"id2label": {0: "x", 1: "z", 2: "y"}, "label2id": {"x": 0, "z": 1, "y": 2}}
    with pytest.raises(
        ValueError, match=r"the teacher odd \(.*\) orders its labels \[x, y, z\], the student \[x, z, y\]"
    ):
        tiny.trainer(tmp_path, tiny.bert(**names), teacher_model=as_other_words())


def test_probabilities_of_a_regression_are_refused(tmp_path):
    with pytest.raises(ValueError, match="combine='probabilities' was asked for, the student's problem is regression"):
        tiny.trainer(
            tmp_path, tiny.bert(problem=tiny.REGRESSION), tiny.rows(problem=tiny.REGRESSION),
            teacher_model=Several(models(tiny.REGRESSION), combine="probabilities"),
        )  # fmt: skip


def test_teachers_that_answer_in_different_shapes_are_refused(tmp_path):
    given = [lambda batch: torch.zeros(8, 3), lambda batch: torch.zeros(8, 4)]
    with pytest.raises(ValueError, match=r"the teacher 0 gave logits of shape \[8, 3\], the teacher 1 \[8, 4\]"):
        tiny.trainer(tmp_path, teacher_model=given).train()


def test_models_that_nobody_loaded_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the 3 teachers: big, small, odd hold models that nobody loaded"):
        Several(models()).prepare(tiny.trainer(tmp_path))


@pytest.mark.parametrize(
    ("options", "objective", "who"),
    [
        ({}, "forward_kl", "broken"),
        ({"combine": "logits"}, "logit_mse", "broken"),
        ({"weights": [1, 0]}, {"forward_kl": 1.0, "jsd": {"teacher": "broken"}}, "broken"),
        ({}, {"jsd": {"teacher": "broken"}}, "broken"),
        ({"choose": "source"}, "forward_kl", "2 teachers: fine, broken"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nothing_is_trained_on_a_fault_of_any_of_them(tmp_path, options, objective, who, value):
    def broken(batch):
        found = torch.zeros(len(batch["input_ids"]), 3)
        found[1, 2] = value
        return found

    given = Several({"fine": tiny.teacher(), "broken": broken}, **options)
    rows = chosen_rows([0, 1, 0, 1, 0, 0, 0, 0])
    run = tiny.trainer(tmp_path, data=rows, teacher_model=given, objective=objective, args={"max_steps": 1})
    with pytest.raises(
        ValueError, match=rf"the teacher {who} gave infinite or NaN logits for rows \[\d\] of the batch"
    ):
        run.train()


def test_the_card_names_each(tmp_path):
    objective = {"forward_kl": 1.0, "hidden_mse": {"teacher": "big"}}
    run = tiny.trainer(tmp_path, teacher_model=Several(models(), [2, 1, 1]), objective=objective)
    run.train()
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for line in (
        "- Teacher `big`: `BertForSequenceClassification`, 2 layers of width 24\n",
        "- Teacher `odd`: `BertForSequenceClassification`, 2 layers of width 20\n",
        "- Together: the mean of their probabilities, with the shares `big` 0.5, `small` 0.25, `odd` 0.25\n- Loss",
        "- Soft term: `hidden_mse` with weight 1, HiddenMSE(",
        ", from the teacher `big` (Romero",
    ):
        assert line in text, line


# ---- Kept ----


@pytest.mark.parametrize("objective", ["forward_kl", {"forward_kl": 1.0, "hidden_mse": {"teacher": "odd"}}])
def test_each_is_kept_by_itself_and_the_run_is_the_same(tmp_path, objective):
    settings = {"max_steps": 8, "per_device_train_batch_size": 4}
    plain = tiny.trainer(tmp_path, teacher_model=models(), objective=objective, args={**settings, **OFF})
    plain.train()
    teachers = models()
    calls = watch(teachers)
    folder = str(tmp_path / "answers")
    for cache, asked in (("auto", True), (folder, True), (folder, False)):
        before = [len(calls[name]) for name in NAMES]
        run = tiny.trainer(
            tmp_path, teacher_model=teachers, objective=objective, args={**settings, "teacher_cache": cache}
        )
        run.train()
        assert torch.allclose(torch.tensor(tiny.losses(run)), torch.tensor(tiny.losses(plain)), rtol=1e-5)
        assert tiny.losses(run, "teacher_cache_hits")[2:] == [1.0] * 6
        more = [len(calls[name]) - n for name, n in zip(NAMES, before, strict=True)]
        assert more == ([2 + 5] * 3 if asked else [0] * 3)  # two batches, and the first of them to find out
    assert sorted(path.name for path in (tmp_path / "answers").iterdir()) == sorted(NAMES)


def test_with_a_choice_each_keeps_its_own_rows_and_a_checkpoint_has_them(tmp_path):
    data = [{**row, "source": i % 3} for i, row in enumerate(tiny.rows(12))]
    settings = {"max_steps": 9, "per_device_train_batch_size": 4}
    runs = {}
    for cache in ("off", "auto"):
        args = {**settings, "teacher_cache": cache, "save_strategy": "steps", "save_steps": 6}
        given = Several(models(), choose="source")
        runs[cache] = tiny.trainer(tmp_path / cache, data=Dataset.from_list(data), teacher_model=given, args=args)
        runs[cache].train()
    found, expected = (torch.tensor(tiny.losses(runs[cache])) for cache in ("auto", "off"))
    assert torch.allclose(found, expected, rtol=1e-5)
    assert tiny.losses(runs["auto"], "teacher_cache_hits")[3:] == [1.0] * 6
    checkpoint = tmp_path / "auto" / "checkpoint-6"
    assert len(list(checkpoint.glob("teacher_answers-*_00000.parquet"))) == 3
    teachers = models()
    calls = watch(teachers)
    again = tiny.trainer(
        tmp_path / "again",
        data=Dataset.from_list(data),
        teacher_model=Several(teachers, choose="source"),
        args=settings,
    )
    again.train(resume_from_checkpoint=str(checkpoint))
    assert tiny.losses(again) == tiny.losses(runs["auto"])
    assert [len(calls[name]) for name in NAMES] == [0, 0, 0]
