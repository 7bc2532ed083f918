"""Language models: which positions count, what their loss is, and that both are exact however a batch is cut."""

import copy
import logging
import math

import peft
import pytest
import tiny
import tiny_language
import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    DataCollatorForSeq2Seq,
    MixtralConfig,
    MixtralForCausalLM,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    ProphetNetForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from hf_distill import CausalLM, DistillationTrainer, Seq2SeqDistillationTrainer, Seq2SeqLM
from hf_distill.arguments import Seq2SeqDistillationTrainingArguments
from hf_distill.models.facts import Facts
from hf_distill.tasks import Task

KINDS = {"llama": (tiny_language.llama, tiny_language.texts), "t5": (tiny_language.t5, tiny_language.pairs)}


def batch(kind="llama", n=4):
    collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    return dict(collate([dict(row) for row in KINDS[kind][1](n)]))


def trainer(folder, kind, data=None, **parts):
    make, rows = KINDS[kind]
    args = parts.pop("args", {})
    both = {"llama": DistillationTrainer, "t5": Seq2SeqDistillationTrainer}
    settings = tiny.arguments(folder, Seq2SeqDistillationTrainingArguments, **args)
    return tiny.trainer(
        folder, parts.pop("student", None) or make(), data or rows(), both[kind], plain_args=settings,
        **{
            "teacher_model": tiny_language.teacher(make),
            "data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer()), **parts,
        },
    )  # fmt: skip


def step(folder, kind, size, accumulation, **parts):
    seen = tiny.Gradients()
    args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = trainer(folder, kind, callbacks=[seen], args=args, **parts)
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


def test_models_are_found_by_their_class():
    assert type(Task.of(tiny_language.llama())) is CausalLM
    assert type(Task.of(tiny_language.t5())) is Seq2SeqLM
    lora = peft.get_peft_model(tiny_language.llama(), peft.LoraConfig(target_modules=["q_proj"]))
    assert type(Task.of(lora)) is CausalLM


@pytest.mark.parametrize("kind", KINDS)
def test_the_hard_loss_is_the_models_own(kind):
    model, fed = KINDS[kind][0]().eval(), batch(kind)
    task = Task.of(model)
    outputs = model(**fed)
    total, count = task.hard(outputs, fed)
    assert count == task.counts(fed)["labels"] > 10
    assert (total / count).item() == pytest.approx(outputs.loss.item(), rel=1e-6)


def test_decoders_whose_own_loss_does_not_shift_are_read_as_they_read_themselves():
    sizes = dict(d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32, init_std=0.3)
    model, fed = BartForCausalLM(BartConfig(vocab_size=tiny_language.SIZE, **sizes)).eval(), batch()
    task, outputs = Task.of(model), model(**fed)
    assert type(task) is CausalLM
    assert task.hard(outputs, fed).mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)
    assert torch.equal(task.rows(fed), fed["labels"] != -100)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_zero_exactly_where_no_label_counts(kind):
    model, fed = KINDS[kind][0](), batch(kind)
    task = Task.of(model)
    logits = torch.randn(*task.rows(fed).shape, tiny_language.SIZE, requires_grad=True)
    task.hard({"logits": logits}, fed).total.backward()
    touched = logits.grad.abs().sum(-1) > 0
    expected = torch.zeros_like(touched)
    for i, labels in enumerate(fed["labels"].tolist()):
        for t, label in enumerate(labels):
            if label != -100:
                expected[i, t - 1 if kind == "llama" else t] = True  # position t - 1 speaks of token t
    assert torch.equal(touched, expected)
    assert torch.equal(task.rows(fed), expected)


def test_shifted_labels_are_taken_as_they_are():
    fed = batch()
    shifted = {**fed, "shift_labels": torch.nn.functional.pad(fed["labels"][:, 1:], (0, 1), value=-100)}
    del shifted["labels"]
    logits = {"logits": torch.randn(*fed["input_ids"].shape, tiny_language.SIZE)}
    assert CausalLM().hard(logits, fed) == CausalLM().hard(logits, shifted)


def test_without_labels_every_token_but_the_first_is_taught():
    fed = batch()
    del fed["labels"]
    lengths = fed["attention_mask"].sum(-1)
    assert torch.equal(CausalLM().rows(fed).sum(-1), lengths - 1)
    assert CausalLM().rows({"input_ids": fed["input_ids"]}).sum() == fed["input_ids"].numel() - 4
    decoder = {
        "input_ids": torch.ones(2, 3),
        "decoder_input_ids": torch.ones(2, 4),
        "attention_mask": torch.ones(2, 3),
    }
    assert Seq2SeqLM().counts(decoder)["tokens"] == 8
    assert Seq2SeqLM().counts({**decoder, "decoder_attention_mask": torch.ones(2, 4).tril()})["rows"] == 3
    vectors = {"input_ids": torch.ones(2, 3), "decoder_inputs_embeds": torch.ones(2, 4, 8)}
    assert Seq2SeqLM().counts(vectors)["tokens"] == Seq2SeqLM().counts(vectors)["rows"] == 8
    with pytest.raises(
        ValueError, match=r"what a decoder predicts, the batch has \['input_ids'\]: give it labels, or"
    ):
        Seq2SeqLM().counts({"input_ids": torch.ones(2, 3)})


@pytest.mark.parametrize("objective", ["forward_kl", {"hidden_mse": {}, "reverse_kl": 0.5}])
@pytest.mark.parametrize("kind", KINDS)
def test_8_x_1_equals_2_x_4(tmp_path, kind, objective):
    whole = step(tmp_path, kind, 8, 1, objective=objective)
    for size, accumulation in ((2, 4), (3, 3)):
        parts, gradients = step(tmp_path, kind, size, accumulation, objective=objective)
        assert parts == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(gradients, whole[1]) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_any_label_change_nothing(tmp_path, kind):
    data = [dict(row) for row in KINDS[kind][1]()]
    for row in data[2:5]:
        row["labels"] = [-100] * len(row["labels"])
    whole = step(tmp_path, kind, 8, 1, data=data)
    parts, gradients = step(tmp_path, kind, 2, 4, data=data)
    assert parts == pytest.approx(whole[0], rel=1e-5)
    assert tiny.relative(gradients, whole[1]) < 1e-5


def test_prompt_tuning_puts_tokens_before_the_text(tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    student = peft.get_peft_model(tiny_language.llama(), config)
    run = trainer(tmp_path, "llama", student=student)
    run.train()
    assert tiny.losses(run)[-1] < tiny.losses(run)[0]


def test_other_vocabularies_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has a vocabulary of 48, the student of 32: use two models with the same"):
        trainer(tmp_path, "llama", teacher_model=tiny_language.teacher(vocab_size=48))
    with pytest.raises(ValueError, match=r"gave logits of shape \[8, \d+, 5\], the student \[8, \d+, 32\]"):
        trainer(tmp_path, "llama", teacher_model=lambda b: torch.zeros(*b["input_ids"].shape, 5)).train()
    CausalLM().check(Facts(), Facts(vocab_size=5))


def test_a_model_with_its_own_loss_is_asked_for_it(tmp_path):
    class Mine(type(tiny_language.llama())):
        def forward(self, input_ids=None, attention_mask=None, labels=None):
            return super().forward(input_ids, attention_mask, labels=labels)

    student = tiny_language.llama()
    student.__class__ = Mine
    assert Task.of(student).own_loss
    run = trainer(tmp_path, "llama", student=student)
    run.train()
    assert tiny.losses(run)[0] > 0


def test_a_mixture_of_experts_stays_balanced(tmp_path):
    """Without labels the model leaves its load-balancing loss to its caller: alpha=0 is plain Trainer's loss."""
    torch.manual_seed(0)
    experts = MixtralForCausalLM(MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, router_aux_loss_coef=0.5, output_router_logits=True,
    ))  # fmt: skip
    collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    found = {}
    for name, kind, more in [
        ("plain", Trainer, {}),
        ("alone", DistillationTrainer, {"alpha": 0.0}),
        ("taught", DistillationTrainer, {"alpha": 1.0}),
        ("thin", DistillationTrainer, {"alpha": 1.0, "fused_logits": "on"}),
        ("in parts", DistillationTrainer, {"alpha": 1.0, "gradient_accumulation_steps": 4}),
    ]:
        student, seen = copy.deepcopy(experts), tiny.Gradients()
        args = {"max_steps": 1, "per_device_train_batch_size": 8 // more.get("gradient_accumulation_steps", 1), **more}
        plain = {"plain_args": tiny.arguments(tmp_path, TrainingArguments, max_steps=1)} if name == "plain" else {}
        teacher = {} if kind is Trainer else {"teacher_model": tiny_language.teacher()}
        run = tiny.trainer(
            tmp_path, student, tiny_language.texts(), kind, args, data_collator=collate, callbacks=[seen],
            **plain, **teacher,
        )  # fmt: skip
        run.train()
        found[name] = (run.state.log_history[0], seen.first)
    assert found["alone"][0]["loss"] == pytest.approx(found["plain"][0]["loss"], rel=1e-5)
    assert tiny.relative(found["alone"][1], found["plain"][1]) < 1e-5
    taught = found["taught"][0]
    assert taught["loss/router"] > 0.5
    assert taught["loss"] == pytest.approx(taught["loss/forward_kl"] + taught["loss/router"], rel=1e-6)
    assert tiny.relative(found["thin"][1], found["taught"][1]) < 1e-5
    assert "loss/router" in found["in parts"][0]


def test_a_decoder_that_shifts_inside_of_its_forward_is_given_its_inputs(tmp_path):
    """Blenderbot makes them only beside a loss of its own; without labels it would refuse."""
    config = BlenderbotConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, pad_token_id=0,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=5, max_position_embeddings=32, dropout=0.0,
    )  # fmt: skip
    student, fed = BlenderbotForConditionalGeneration(config).eval(), batch("t5")
    task = Task.of(student)
    inputs = {name: value for name, value in fed.items() if name != "labels"}
    assert torch.equal(student(**task.inputs(student, inputs, fed)).logits, student(**fed).logits)
    trainer(tmp_path, "t5", student=student, teacher_model=BlenderbotForConditionalGeneration(config)).train()


def prophetnet(kind=ProphetNetForConditionalGeneration):
    torch.manual_seed(0)
    return kind(ProphetNetConfig(
        vocab_size=32, hidden_size=16, num_encoder_layers=1, num_decoder_layers=1, num_encoder_attention_heads=2,
        num_decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, ngram=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0, dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, init_std=0.3,
    ))  # fmt: skip


def test_a_model_that_also_predicts_later_tokens_keeps_its_own_loss(tmp_path):
    """ProphetNet's loss is not the cross-entropy of its logits, which are those of the next token alone."""
    settings = tiny.arguments(tmp_path, Seq2SeqTrainingArguments, max_steps=1)
    collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    parts = {"data_collator": collate, "plain_args": settings}
    plain = tiny.trainer(tmp_path, prophetnet(), tiny_language.pairs(), Seq2SeqTrainer, **parts)
    plain.train()
    run = trainer(tmp_path, "t5", student=prophetnet(), teacher_model=prophetnet(), args={"max_steps": 1})
    run.train()
    assert tiny.losses(run, "loss/hard")[0] == pytest.approx(tiny.losses(plain)[0], rel=1e-5)
    decoder, fed = prophetnet(ProphetNetForCausalLM), batch()
    task = Task.of(decoder)
    assert task.own_loss
    assert torch.equal(task.rows(fed), fed["labels"] != -100)  # as its own loss reads them


def test_padding_before_a_text_predicts_nothing():
    """The first token of a text would be taught in a batch with a longer text, and only there."""
    found = []
    for side in ("right", "left"):
        tokenizer = tiny_language.tokenizer()
        tokenizer.padding_side = side
        rows = [{**row, "labels": list(row["input_ids"])} for row in tiny_language.texts(4)]
        fed = dict(DataCollatorForSeq2Seq(tokenizer)(rows))
        found.append(CausalLM().counts(fed))
        assert not (CausalLM().rows(fed) & (fed["attention_mask"] == 0)).any()
    assert found[0] == found[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_is_the_same_on_whichever_side_is_padded(tmp_path, smoothing):
    rows, found = [{**row, "labels": list(row["input_ids"])} for row in tiny_language.texts()], []
    for side in ("right", "left"):
        tokenizer = tiny_language.tokenizer()
        tokenizer.padding_side = side
        args = {"max_steps": 1, "label_smoothing_factor": smoothing}
        run = trainer(tmp_path, "llama", rows, data_collator=DataCollatorForSeq2Seq(tokenizer), args=args)
        run.train()
        found.append([tiny.losses(run, f"loss/{name}")[0] for name in ("hard", "forward_kl")])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_which_nothing_is_learned_are_counted_and_told_once(tmp_path, kind, caplog):
    data = [dict(row) for row in KINDS[kind][1]()]
    whole = trainer(tmp_path, kind, data)
    whole.train()
    assert not tiny.losses(whole, "rows_without_labels")
    assert not caplog.messages
    for row in data[2:5]:
        row["labels"] = [-100] * len(row["labels"])
    run = trainer(tmp_path, kind, data, args={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4})
    run.train()
    assert tiny.losses(run, "rows_without_labels") == [3 / 8] * 3
    assert sum("3 of 8 training rows have no label" in message for message in caplog.messages) == 1
    hidden = trainer(tmp_path, kind, data, objective={"forward_kl": 1.0, "hidden_mse": 1.0}, args={"max_steps": 1})
    hidden.train()
    assert not tiny.losses(hidden, "rows_without_labels")  # whose states are taught


@pytest.mark.parametrize(("alpha", "told"), [(0.5, 1), (0.0, 0)])
def test_the_exponential_of_a_blend_is_said_to_be_no_perplexity(tmp_path, caplog, alpha, told):
    run = tiny.trainer(
        tmp_path, tiny_language.llama(), tiny_language.texts(), teacher_model=tiny_language.teacher(),
        args={"alpha": alpha}, data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        run.evaluate(tiny_language.texts())
        found = run.evaluate(tiny_language.texts())
    assert caplog.text.count("so exp(eval_loss) is no perplexity: take eval_perplexity") == told
    assert found["eval_perplexity"] == pytest.approx(math.exp(found["eval_loss/hard"]), rel=1e-5)  # one batch
    assert (found["eval_loss"] == pytest.approx(found["eval_loss/hard"])) is (alpha == 0.0)


def test_both_streams_of_an_encoder_decoder_are_counted_and_shown():
    task, fed = Seq2SeqLM(), batch("t5")
    counts = {unit: count.item() for unit, count in task.counts(fed).items()}
    assert tuple(counts) == task.units
    assert counts["tokens:encoder"] == fed["attention_mask"].sum() != counts["tokens:decoder"]
    assert counts["tokens:decoder"] == counts["tokens"] == (fed["labels"] != -100).sum()
    bare = {name: value for name, value in fed.items() if name != "attention_mask"}
    assert task.counts(bare)["tokens:encoder"] == fed["input_ids"].numel()
    model = tiny_language.t5().eval()
    with torch.no_grad():
        outputs = model(**fed, output_hidden_states=True, output_attentions=True)
    shown = task.read(model, fed, outputs)
    for name in ("encoder", "decoder"):
        stream = shown.stream(name)
        assert all(a is b for a, b in zip(stream.hidden, outputs[f"{name}_hidden_states"], strict=True))
        assert all(a is b for a, b in zip(stream.attention, outputs[f"{name}_attentions"], strict=True))
        assert stream.mask.sum() == counts[f"tokens:{name}"]


def test_a_task_of_one_stream_counts_what_it_counted():
    fed = batch("llama")
    assert tuple(CausalLM().counts(fed)) == CausalLM().units == ("rows", "tokens", "samples", "labels")
