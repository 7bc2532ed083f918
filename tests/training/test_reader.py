"""A student that reads its teacher while it learns: exact, resumed with its noise, evaluated twice, saved plain."""

import peft
import pytest
import tiny
import tiny_images
import tiny_language
import torch
from default_run import slow_but
from safetensors.torch import load_file
from torch import nn
from transformers import BertForSequenceClassification, DataCollatorForSeq2Seq, DataCollatorWithPadding
from transformers import default_data_collator as stacked

from hf_distill import FunctionTeacher
from hf_distill.training.checkpoint import FILE
from hf_distill.training.reader import rows_that_read

HALF = {"reads": "logits", "keep": 0.5}
STATES = {"reads": "hidden[-1]", "keep": 0.5}


def made(folder, reader, student=None, **parts):
    args = {"reader": reader, **parts.pop("args", {})}
    return tiny.trainer(folder, student or tiny.bert(), args=args, **{"teacher_model": tiny.teacher(), **parts})


def collated(rows):
    return dict(DataCollatorWithPadding(tiny.tokenizer())([dict(row) for row in rows]))


def by_hand(run, batch, kept=None):
    """The student's logits if its embeddings have the teacher's last states, made even, through the projection."""
    fed = {name: value for name, value in batch.items() if name != "labels"}
    student, mask = run.model.eval(), batch["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        states = run.teacher.model(**fed, output_hidden_states=True).hidden_states[-1] * mask
        extra = run.distillation.reader.projection(nn.functional.layer_norm(states, states.shape[-1:]))
        vectors = student.get_input_embeddings()(fed.pop("input_ids"))
        return student(inputs_embeds=vectors + (extra if kept is None else extra * kept.view(-1, 1, 1)), **fed).logits


def steps(folder, reader, size, accumulation, **args):
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 4}
    run = made(folder, reader, args={**sizes, "optim": "sgd", "learning_rate": 0.3, **args})
    run.train()
    return tiny.losses(run), {name: p.detach() for name, p in run.model.named_parameters()}


@pytest.mark.parametrize("alpha", slow_but([0.5], [0.0, 0.5, 1.0]))
@pytest.mark.parametrize("reader", [HALF, STATES], ids=["logits", "states"])
def test_8_x_1_equals_2_x_4(tmp_path, reader, alpha):
    whole = steps(tmp_path, reader, 8, 1, alpha=alpha)
    assert float(whole[1]["distillation.reader.projection.weight"].abs().max()) > 1e-3
    cut = steps(tmp_path, reader, 2, 4, alpha=alpha)
    assert cut[0] == pytest.approx(whole[0], rel=1e-5)
    assert tiny.relative(cut[1], whole[1]) < 1e-5
    always = steps(tmp_path, {**reader, "keep": 1.0}, 8, 1, alpha=alpha)
    assert always[0] != pytest.approx(whole[0], rel=1e-5)  # half of the rows read


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_where_no_row_reads_a_run_is_the_one_without_a_reader(tmp_path, alpha):
    plain, none = (made(tmp_path, reader, args={"alpha": alpha}) for reader in (None, {**STATES, "keep": 0.0}))
    for run in (plain, none):
        run.train()
    assert tiny.losses(none) == tiny.losses(plain)
    ours = dict(none.model.named_parameters())
    assert all(torch.equal(p, ours[name]) for name, p in plain.model.named_parameters())


def test_a_row_reads_by_its_own_tokens_and_the_step(tmp_path):
    batch = collated(tiny.rows(64))
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    drawn = rows_that_read({"input_ids": ids}, mask, 0.5, seed=1, step=7)
    assert 16 < int(drawn.sum()) < 48
    wider = {"input_ids": nn.functional.pad(ids, (2, 3))}
    for other, same in (
        (rows_that_read(wider, nn.functional.pad(mask, (2, 3)), 0.5, 1, 7), True),
        (rows_that_read({"input_ids": ids.flip(0)}, mask.flip(0), 0.5, 1, 7).flip(0), True),
        (rows_that_read({"input_ids": ids}, mask, 0.5, 1, 8), False),
        (rows_that_read({"input_ids": ids}, mask, 0.5, 2, 7), False),
    ):
        assert torch.equal(other, drawn) == same
    assert rows_that_read({"input_ids": ids}, mask, 1.0, 1, 7).all()
    assert not rows_that_read({"input_ids": ids}, mask, 0.0, 1, 7).any()


def test_a_step_is_what_its_rows_read(tmp_path):
    run = made(tmp_path, STATES, args={"max_steps": 3, "alpha": 0.0, "learning_rate": 0.1})
    seen = []

    def compute(model, inputs, *args, **kwargs):
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        drawn = rows_that_read(batch, batch["attention_mask"].bool(), 0.5, run.args.seed, run.state.global_step)
        seen.append(nn.functional.cross_entropy(by_hand(run, batch, drawn), batch["labels"]).item())
        model.train()
        return own(model, inputs, *args, **kwargs)

    own, run.compute_loss = run.compute_loss, compute
    run.train()
    assert tiny.losses(run) == pytest.approx(seen, rel=1e-4)


def test_an_evaluation_is_of_the_student_and_once_more_of_all_that_read(tmp_path):
    run = made(tmp_path, STATES, args={"alpha": 0.0, "learning_rate": 0.1, "per_device_eval_batch_size": 8})
    run.compute_metrics = lambda shown: {"right": float((shown.predictions.argmax(-1) == shown.label_ids).mean())}
    run.train()
    batch = collated(tiny.rows())
    with torch.no_grad():
        plain = run.model.eval()(**{n: v for n, v in batch.items() if n != "labels"}).logits
    found = run.evaluate(tiny.rows())
    for prefix, logits in (("eval", plain), ("eval_read", by_hand(run, batch))):
        loss = nn.functional.cross_entropy(logits, batch["labels"]).item()
        assert found[f"{prefix}_loss"] == found[f"{prefix}_loss/hard"] == pytest.approx(loss, rel=1e-5)
        assert found[f"{prefix}_right"] == (logits.argmax(-1) == batch["labels"]).float().mean()
    assert abs(found["eval_loss"] - found["eval_read_loss"]) > 1e-3
    assert torch.allclose(torch.tensor(run.predict(tiny.rows()).predictions), plain, atol=1e-6)
    assert not [name for name in found if name.startswith("eval_read") and name.endswith("_time")]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_resumed_run_equals_the_uninterrupted_one_with_its_noise(tmp_path, alpha):
    def run(folder):
        args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
        fading = {"reads": "hidden[-1]", "keep": {"kind": "linear", "start": 1.0, "end": 0.0, "until": 1.0}}
        student = tiny.bert(hidden_dropout_prob=0.2)
        return made(folder, fading, student, args={**args, "alpha": alpha, "teacher_cache": "auto"})

    whole = run(tmp_path / "whole")
    whole.train()
    resumed = run(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert tiny.losses(resumed) == tiny.losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_saved_student_is_plain_and_a_checkpoint_has_the_readers_weights(tmp_path, alpha):
    run = made(tmp_path, HALF, args={"max_steps": 2, "save_strategy": "steps", "save_steps": 2, "alpha": alpha})
    run.train()
    run.save_model(str(tmp_path / "saved"))
    plain = tiny.bert().state_dict()
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == plain.keys()
    assert not (tmp_path / "saved" / FILE).exists()
    again, batch = BertForSequenceClassification.from_pretrained(tmp_path / "saved"), collated(tiny.rows())
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, run.model.eval()(**batch).logits)
    kept = load_file(tmp_path / "checkpoint-2" / FILE)
    assert {name: list(value.shape) for name, value in kept.items()} == {
        "reader.projection.weight": [16, 3], "reader.projection.bias": [16],
    }  # fmt: skip
    assert load_file(tmp_path / "checkpoint-2" / "model.safetensors").keys() == plain.keys()


def test_a_kept_teacher_equals_a_live_one(tmp_path):
    args = {"max_steps": -1, "num_train_epochs": 3, "eval_strategy": "epoch", "per_device_train_batch_size": 8}
    live = made(tmp_path / "live", STATES, args={**args, "teacher_cache": "off"}, eval_dataset=tiny.rows())
    kept = made(tmp_path / "kept", STATES, args={**args, "teacher_cache": "auto"}, eval_dataset=tiny.rows())
    for run in (live, kept):
        run.train()
    assert len(kept.teacher.memory) == 8
    for key in ("loss", "eval_loss", "eval_read_loss"):
        assert tiny.losses(kept, key) == pytest.approx(tiny.losses(live, key), rel=1e-5)


@pytest.mark.parametrize("problem", tiny.PROBLEMS)
def test_every_problem_is_read(tmp_path, problem):
    run = made(
        tmp_path,
        HALF,
        tiny.bert(problem=problem),
        data=tiny.rows(problem=problem),
        teacher_model=tiny.teacher(problem),
    )
    run.train()
    assert run.evaluate(tiny.rows(problem=problem))["eval_read_loss"] > 0
    assert float(run.distillation.reader.projection.weight.detach().abs().max()) > 0


@pytest.mark.parametrize("reads", ["hidden[-1]", "logits"])
@pytest.mark.parametrize("lora", [False, True])
def test_a_decoder_reads_position_by_position(tmp_path, reads, lora):
    student, seen, args = tiny_language.llama(), tiny.Gradients(), {"reader": {"reads": reads, "keep": 1.0}}
    if lora:
        student = peft.get_peft_model(student, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    run = tiny.trainer(
        tmp_path, student, tiny_language.texts(), teacher_model=tiny_language.teacher(), callbacks=[seen],
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), args=args,
    )  # fmt: skip
    run.train()
    assert float(seen.first["distillation.reader.projection.weight"].abs().max()) > 1e-6
    assert run.evaluate(tiny_language.texts())["eval_read_loss"] > 0
    run.save_model(str(tmp_path / "saved"))
    saved = load_file(next((tmp_path / "saved").glob("*model.safetensors")))
    assert not [name for name in saved if "reader" in name]


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


def test_the_answers_of_a_function_are_read(tmp_path):
    run = made(tmp_path, HALF, teacher_model=FunctionTeacher(look_up))
    run.train()
    projection = run.distillation.reader.projection.weight
    assert projection.shape[1] == 3
    assert float(projection.detach().abs().min()) > 1e-6  # a third of each class, told as logarithms, is no zero


@pytest.mark.parametrize(
    ("told", "reader"),
    [
        (r"reader=\{'keep': 0.5\} was given: give what is read", {"keep": 0.5}),
        (r"reader=\{'reads': 'logits', 'kept': 1\} was given", {"reads": "logits", "kept": 1}),
        (r"reader reads 'states', which is nothing that a teacher shows: use hid", "states"),
        (r"reader was given keep=1.5: it is the share of the rows that read", {"reads": "logits", "keep": 1.5}),
        (r"reader was given keep=\{.*\}: it is the share", {"reads": "logits", "keep": {"value": 2.0}}),
        (r"reader was given keep=True", {"reads": "logits", "keep": True}),
        (r"keep: a schedule of kind 'steep' was", {"reads": "logits", "keep": {"kind": "steep"}}),
        (r"reader='\{.*' is not valid JSON", '{"reads": '),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_where_the_arguments_are_made(tmp_path, told, reader):
    with pytest.raises(ValueError, match=told):
        tiny.arguments(tmp_path, reader=reader)


@pytest.mark.parametrize(
    ("told", "reader", "parts"),
    [
        (r"reader lets the student read \['hidden'\] of its teacher, look_up serves", STATES, look_up),
        (r"reader lets the student read hidden\[7\], .* shows 3 of them: name", "hidden[7]", {}),
        (r"reader lets the student read vectors\[text\], of vectors .* shows none", "vectors[text]", {}),
        (r"student read attention\[0\], of which .* does not say how wide it is", "attention[0]", {}),
        (r"reader was asked for with torch_compile, which", HALF, {"args": {"torch_compile": True}}),
        (r"reader was asked for with accumulate_negatives", HALF, {"args": {"accumulate_negatives": True}}),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_step(tmp_path, told, reader, parts):
    parts = parts if isinstance(parts, dict) else {"teacher_model": FunctionTeacher(parts)}
    with pytest.raises(ValueError, match=told):
        made(tmp_path, reader, **parts)


def test_a_model_without_an_embedding_of_tokens_is_refused(tmp_path):
    images = {"data": tiny_images.images(8), "data_collator": stacked}
    both = tiny_images.vit(), tiny_images.vit(width=24, layers=3, seed=7)
    with pytest.raises(ValueError, match="reader was asked for ViTForImageClassification, which has no one embedding"):
        made(tmp_path, "logits", both[0], teacher_model=both[1], **images)


def test_an_encoder_decoder_is_refused(tmp_path):
    both = {"data": tiny_language.pairs(), "data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer())}
    with pytest.raises(ValueError, match=r"reader was asked for T5For.*, which has no one embedding of tokens"):
        made(tmp_path, "hidden[-1]", tiny_language.t5(), teacher_model=tiny_language.t5(seed=7), **both)


def test_what_is_of_other_tokens_is_refused_in_a_sentence(tmp_path):
    data = [{**row, "teacher_input_ids": [5, 6, *row["input_ids"]]} for row in tiny.rows()]
    data = [{**row, "teacher_attention_mask": [1] * len(row["teacher_input_ids"])} for row in data]

    def collate(rows):
        own = [{k.removeprefix("teacher_"): v for k, v in row.items() if k.startswith("teacher_")} for row in rows]
        theirs = {f"teacher_{name}": value for name, value in collated(own).items()}
        return {**collated([{k: v for k, v in row.items() if "teacher_" not in k} for row in rows]), **theirs}

    run = made(tmp_path, STATES, data=data, data_collator=collate)
    with pytest.raises(ValueError, match=r"reader reads hidden\[-1\] of shape .*, the student embedded"):
        run.train()


def test_a_reader_without_a_teacher_is_told(tmp_path, caplog):
    made(tmp_path, HALF, teacher_model=None)
    assert "reader={'reads': 'logits', 'keep': 0.5} stands in the arguments, but there is no teacher" in caplog.text
