"""Pairs of an image and a text: which models, whose loss, which pairs are no negatives, what is kept and refused."""

import pytest
import tiny
import tiny_clip
import torch
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPVisionModel

from hf_distill import Facts, FunctionTeacher, ImageText, SentenceEmbedding, Several, Task
from hf_distill.objectives import build
from hf_distill.signals import Signals

EACH = pytest.mark.parametrize("kind", tiny_clip.KINDS)
SIGMOID = ("siglip", "siglip2")


def trained(folder, kind="clip", student=None, rows=None, teacher=True, **parts):
    args = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "max_steps": -1, **parts.pop("args", {})}
    given = {"teacher_model": tiny_clip.model(kind) if teacher is True else teacher} if teacher else {}
    student = tiny_clip.model(kind, seed=1) if student is None else student
    rows = tiny_clip.pairs(8, kind) if rows is None else rows
    run = tiny.trainer(folder, student, rows, data_collator=None, args=args, **given, **parts)
    run.train()
    return run


def shown(kind="clip", seed=0, rows=None):
    model, batch = tiny_clip.model(kind, seed=seed).eval(), tiny_clip.batch(rows or tiny_clip.pairs(8, kind))
    task, outputs = Task.of(model), model(**batch)
    return model, task, batch, outputs, task.read(model, batch, outputs)


@EACH
def test_a_model_of_two_towers_is_found_and_its_loss_and_products_are_its_own(kind):
    model, task, batch, _, signals = shown(kind)
    assert isinstance(task, ImageText)
    assert task.criterion == ("sigmoid" if kind in SIGMOID else "softmax")
    assert Facts.of(model).vector_size == signals.vectors["image"].shape[1]
    wanted = model(**batch, return_loss=True)
    assert torch.allclose(task.hard(None, batch, signals).mean(), wanted.loss, atol=1e-5)
    heads = task.match(signals, signals, batch)[0].heads
    assert torch.allclose(heads["image"].logits.tensor, wanted.logits_per_image, atol=1e-4)
    assert torch.allclose(heads["text"].logits.tensor, wanted.logits_per_text, atol=1e-4)
    assert [head.labels.tolist() for head in heads.values()] == [list(range(8))] * 2


def test_one_tower_alone_is_no_pair():
    text, vision = tiny_clip.model().config.text_config, tiny_clip.model().config.vision_config
    assert isinstance(Task.of(CLIPTextModel(text)), SentenceEmbedding)
    assert not isinstance(Task.find(CLIPVisionModel(vision), taught=True), ImageText)


@EACH
def test_it_trains_evaluates_and_asks_its_teacher_once_for_a_row(tmp_path, kind):
    rows = tiny_clip.pairs(8, kind)
    run = trained(tmp_path, kind, rows=rows, eval_dataset=rows, args={"eval_strategy": "epoch"})
    assert (run.alpha, run.task.default_objective["vector_cosine"]) == (0.5, 1.0)
    assert tiny.losses(run, "teacher_cache_hits") == [0, 0, 1, 1]
    assert {"loss/hard", "loss/vector_cosine", "loss/forward_kl"} <= run.state.log_history[0].keys()
    assert {"eval_loss", "eval_loss/hard", "eval_agreement", "eval_kl"} <= run.evaluate().keys()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_kept_vectors_teach_what_live_ones_do(tmp_path, alpha):
    rows = tiny_clip.pairs(8, lengths=(4, 7))

    def collate(some):
        width = max(len(row["input_ids"]) for row in some)
        return tiny_clip.batch([
            {name: one if name == "pixel_values" else F.pad(one, (0, width - len(one))) for name, one in row.items()}
            for row in some
        ])  # fmt: skip

    def losses(cache):
        args = {"teacher_cache": cache, "alpha": alpha, "per_device_train_batch_size": 4, "num_train_epochs": 2}
        torch.manual_seed(0)
        run = tiny.trainer(
            tmp_path, tiny_clip.model(seed=1, width=12), rows, data_collator=collate,
            args={**args, "max_steps": -1}, teacher_model=tiny_clip.model(),
        )  # fmt: skip
        run.train()
        return tiny.losses(run), tiny.losses(run, "teacher_cache_hits")

    (kept, hits), (live, none) = losses("auto"), losses("off")
    assert kept == pytest.approx(live, rel=1e-5)
    assert (hits, none) == ([0, 0, 1, 1] if alpha else [], [])  # whatever the other rows of a batch are


@pytest.mark.parametrize("vectors", [12, 10])
def test_a_folder_of_vectors_teaches_without_the_teacher(tmp_path, vectors):
    args = {"teacher_cache": str(tmp_path / "answers")}
    student = tiny_clip.model(seed=1, vectors=vectors)
    first = trained(tmp_path / "a", args=args, student=student, objective="vector_cosine")
    student = tiny_clip.model(seed=1, vectors=vectors)
    again = trained(tmp_path / "b", teacher=str(tmp_path / "answers"), student=student, objective="vector_cosine")
    assert tiny.losses(again) == pytest.approx(tiny.losses(first), rel=1e-5)


def test_equal_texts_and_equal_images_are_no_negatives():
    rows = tiny_clip.pairs(4)
    rows[1] = {**rows[1], "input_ids": rows[0]["input_ids"]}
    rows[3] = {**rows[3], "pixel_values": rows[2]["pixel_values"]}
    for kind in ("clip", "siglip"):
        model, task, batch, _, signals = shown(kind, rows=rows)
        found = task.hard(None, batch, signals).mean()
        logits = model(**batch).logits_per_text
        same = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
        if kind == "siglip":
            signs = 2 * torch.eye(4) - 1
            wanted = -(F.logsigmoid(signs * logits) * ~same).sum() / 4
        else:
            logits = logits.masked_fill(same, -torch.inf)
            wanted = sum(F.cross_entropy(one, torch.arange(4)) for one in (logits, logits.T)) / 2
        assert torch.allclose(found, wanted, atol=1e-5)
        assert task.noted() == {"negatives": 2.0}
        assert task.noted() == {}


def test_without_a_teacher_pairs_are_learned_from_alone(tmp_path):
    rows = tiny_clip.pairs(8)
    run = trained(tmp_path, teacher=None, eval_dataset=rows)
    assert tiny.losses(run, "loss/hard") == pytest.approx(tiny.losses(run))
    assert run.evaluate()["eval_loss"] > 0


def test_predictions_are_vectors_and_references_say_which_belong_together(tmp_path):
    rows = tiny_clip.pairs(6)
    rows[5] = {**rows[5], "input_ids": rows[0]["input_ids"]}
    found = {}

    def measure(predicted):
        found["predicted"] = predicted
        return {}

    trained(tmp_path, eval_dataset=rows, compute_metrics=measure).evaluate()
    images, texts = found["predicted"].predictions
    numbers = found["predicted"].label_ids
    assert (images.shape, texts.shape, numbers.shape) == ((6, 12), (6, 12), (6, 2))
    assert len(set(numbers[:, 0])) == 6
    assert numbers[5, 1] == numbers[0, 1]
    assert len(set(numbers[:, 1])) == 5


@pytest.mark.parametrize("name", ["pooled_mse", "pooled_cosine", "rkd_distance", "rkd_angle", "similarity",
                                  "similarity_kl", "contrastive", "vector_mse", "vector_cosine"])  # fmt: skip
def test_terms_on_one_vector_a_sample_read_those_of_the_model_whatever_their_length(tmp_path, name):
    run = trained(tmp_path, student=tiny_clip.model(seed=1, width=8, vectors=10), objective=name)
    assert run.distillation.objective.needs == {"vectors"}
    assert tiny.losses(run, f"loss/{name}")[0] > 0
    assert tiny.losses(run, "teacher_cache_hits")[-1] == 1


def test_pooled_terms_take_the_mean_over_images_and_texts():
    ours, theirs = (
        Signals({}, vectors={name: torch.tensor([[1.0, 3.0]]) + more for name, more in (("image", a), ("text", b))})
        for a, b in ((0.0, 0.0), (2.0, 1.0))
    )
    objective = build("pooled_mse")
    objective.set_streams(["text"])
    objective.set_vectors(["image", "text"])
    objective.build(Facts(vector_size=2), Facts(vector_size=2))
    found = objective(ours, theirs, {})["pooled_mse"]
    assert (found.total.item(), found.count.item()) == (2.5, 1)


@pytest.mark.parametrize("objective", [
    {"hidden_mse": 1.0}, {"hidden_mse": {"stream": "vision"}}, {"pooled_mse": {"stream": "vision"}}, "minilm",
    {"logit_mse": 1.0}, {"reverse_kl": {"temperature": 1.0}}, "dist",
])  # fmt: skip
def test_terms_on_the_towers_and_on_affinities_learn(tmp_path, objective):
    run = trained(tmp_path, student=tiny_clip.model(seed=1, width=8), objective=objective, args={"alpha": 0.5})
    assert len(tiny.losses(run)) == 4


def test_a_function_may_give_the_vectors(tmp_path):
    teacher = tiny_clip.model().eval()

    def answer(batch):
        given = {name: one for name, one in batch.items() if name in ("input_ids", "attention_mask", "pixel_values")}
        outputs = teacher(**given)
        return {"image_embeds": outputs.image_embeds, "text_embeds": outputs.text_embeds,
                "logit_scale": teacher.logit_scale.exp()}  # fmt: skip

    told = tiny.losses(trained(tmp_path, teacher=FunctionTeacher(answer)))
    assert told == pytest.approx(tiny.losses(trained(tmp_path)), rel=1e-4)


@pytest.mark.parametrize(("change", "told"), [
    (lambda row: {n: one for n, one in row.items() if n != "pixel_values"}, "and no pixel_values: let a collator"),
    (lambda row: {n: one for n, one in row.items() if n != "input_ids"}, "and no input_ids: let a collator make both"),
    (lambda row: {**row, "teacher_input_ids": row["input_ids"]}, "has teacher_input_ids and not the other of"),
])  # fmt: skip
def test_what_is_missing_of_a_pair_is_said_in_a_sentence(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        trained(tmp_path, rows=[change(row) for row in tiny_clip.pairs(8)])


@pytest.mark.parametrize(("parts", "told"), [
    ({"teacher": [tiny_clip.model(), tiny_clip.model(seed=2)]}, "needs .'vectors'., the teacher 2 teachers"),
    ({"teacher": lambda batch: torch.ones(4, 3)}, "vectors of images and of texts were asked for"),
    ({"args": {"label_smoothing_factor": 0.1}}, "ImageText has none: leave it out"),
    ({"objective": "boxes"}, "boxes"),
])  # fmt: skip
def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path, parts, told):
    with pytest.raises(ValueError, match=told):
        trained(tmp_path, **parts)


def test_each_of_several_teachers_may_be_listened_to(tmp_path):
    both = {"vector_cosine": {"teacher": "a"}, "forward_kl": {"teacher": "b", "temperature": 1.0}}
    several = Several({"a": tiny_clip.model(seed=2), "b": tiny_clip.model(seed=3)})
    found = trained(tmp_path, teacher=several, objective=both).state.log_history[0]
    for name, seed in (("vector_cosine", 2), ("forward_kl", 3)):
        alone = trained(tmp_path, teacher=tiny_clip.model(seed=seed), objective={name: {}} if seed == 2 else
                        {name: {"temperature": 1.0}}).state.log_history[0]  # fmt: skip
        assert found[f"loss/{name}"] == pytest.approx(alone[f"loss/{name}"], rel=1e-5)


def test_all_rows_can_be_asked_for_before_the_first_step(tmp_path):
    run = trained(tmp_path, args={"teacher_prepass": True})
    assert tiny.losses(run, "teacher_cache_hits") == [1, 1, 1, 1]


def test_two_images_a_text_are_refused():
    batch = tiny_clip.batch(tiny_clip.pairs(4))
    batch["pixel_values"] = torch.cat([batch["pixel_values"]] * 2)
    with pytest.raises(ValueError, match="8 images for 4 texts"):
        ImageText().labels(batch)


def test_a_criterion_that_is_none_is_refused():
    with pytest.raises(ValueError, match="criterion='hinge' was given to ImageText: use softmax or sigmoid"):
        ImageText("hinge")
