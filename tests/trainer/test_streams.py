"""What models show beside their main stream: an encoder and a decoder of different depths."""

import pytest
import tiny
import tiny_images
import tiny_language
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, MarianConfig, MarianMTModel, default_data_collator

from hf_distill import CachedTeacher, LiveTeacher, Several

COLLATE = DataCollatorForSeq2Seq(tiny_language.tokenizer())


def marian(width=16, encoder=1, decoder=1, seed=0):
    torch.manual_seed(seed)
    return MarianMTModel(MarianConfig(
        vocab_size=tiny_language.SIZE, d_model=width, encoder_layers=encoder, decoder_layers=decoder,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, max_position_embeddings=32, pad_token_id=0, eos_token_id=2,
        bos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None, init_std=0.3, tie_word_embeddings=True,
    ))  # fmt: skip


def t5(width=16, encoder=1, decoder=1, seed=0):
    return tiny_language.t5(width, encoder, seed, num_decoder_layers=decoder)


KINDS = {"marian": marian, "t5": t5}


def trainer(folder, student, teacher, objective, rows=None, **parts):
    return tiny.trainer(
        folder, student, tiny_language.pairs(8) if rows is None else rows, teacher_model=teacher, objective=objective,
        data_collator=COLLATE, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_a_decoder_are_paired_whatever_the_encoder_has(tmp_path, kind):
    student, teacher = KINDS[kind](encoder=3, decoder=1), KINDS[kind](encoder=1, decoder=4, seed=7)
    args = {"max_steps": 1, "alpha": 1.0, "per_device_train_batch_size": 8}
    run = trainer(tmp_path, student, teacher, "hidden_mse", args=args)
    assert run.distillation.objective.terms["hidden_mse"].pairs == [(0, 0), (1, 4)]
    batch = COLLATE([dict(row) for row in tiny_language.pairs(8)])
    with torch.no_grad():
        ours, theirs = (
            model.eval()(**batch, output_hidden_states=True).decoder_hidden_states for model in (student, teacher)
        )
    real = batch["labels"] != -100
    wanted = sum((ours[a] - theirs[b])[real].square().mean() for a, b in ((0, 0), (1, 4))) / 2
    run.train()
    assert run.state.log_history[0]["loss/hidden_mse"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_card_tells_the_depth_of_both_sides_where_they_differ(tmp_path):
    run = trainer(tmp_path, t5(), t5(24, encoder=3, decoder=2, seed=7), None, args={"max_steps": 1})
    run.train()
    run.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "T5ForConditionalGeneration`, 3 + 2 layers of width 24" in card
    assert "1 layer of width 16" in card


def test_a_decoder_that_is_given_its_inputs_alone_is_compared_at_every_position(tmp_path):
    rows = [{"input_ids": [7, 8, 9 + i], "decoder_input_ids": [0, 10 + i, 11, 12]} for i in range(4)]
    student, teacher = t5(), t5(seed=7)
    args = {"max_steps": 1, "alpha": 1.0, "per_device_train_batch_size": 4}
    spec = {"hidden_mse": {"layers": {1: 1}}}
    run = tiny.trainer(
        tmp_path, student, rows, teacher_model=teacher, objective=spec, args=args, data_collator=default_data_collator,
    )  # fmt: skip
    batch = default_data_collator(rows)
    ours, theirs = (states(model, batch, "decoder_hidden_states")[1] for model in (student, teacher))
    run.train()
    assert run.state.log_history[0]["loss/hidden_mse"] == pytest.approx(
        (ours - theirs).square().mean().item(), rel=1e-5
    )


# ---- Another stream than the main one ----


def states(model, batch, name):
    with torch.no_grad():
        return model.eval()(**batch, output_hidden_states=True, output_attentions=True)[name]


def whole():
    return dict(COLLATE([dict(row) for row in tiny_language.pairs(8)]))


def step(folder, objective, batch, accumulation, make=t5, **args):
    seen = tiny.Gradients()
    cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    student, teacher = make(encoder=2), make(encoder=4, decoder=2, seed=7)
    run = trainer(folder, student, teacher, objective, callbacks=[seen], args={"alpha": 0.7, **cut, **args})
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoders_hidden_states_are_compared_over_its_own_tokens(tmp_path, kind):
    spec = {"forward_kl": 1.0, "hidden_mse": {"stream": "encoder"}}
    parts, one = step(tmp_path, spec, 8, 1, KINDS[kind])
    batch, real = whole(), whole()["attention_mask"].bool()
    ours, theirs = (
        states(model, batch, "encoder_hidden_states")
        for model in (KINDS[kind](encoder=2), KINDS[kind](encoder=4, decoder=2, seed=7))
    )
    wanted = sum((ours[a] - theirs[b])[real].square().mean() for a, b in ((0, 0), (1, 2), (2, 4))) / 3
    assert parts["loss/hidden_mse"] == pytest.approx(wanted.item(), rel=1e-5)
    cut, many = step(tmp_path, spec, 2, 4, KINDS[kind])
    assert cut == pytest.approx(parts, rel=1e-5)
    assert tiny.relative(many, one) < 1e-5


def test_attention_of_an_encoder_is_compared_over_its_own_queries(tmp_path):
    spec = {"attention_mse": {"stream": "encoder", "layers": {2: 4}}}
    parts, one = step(tmp_path, spec, 8, 1)
    batch, real = whole(), whole()["attention_mask"].bool()
    models = t5(encoder=2), t5(encoder=4, decoder=2, seed=7)
    for model in models:
        model.set_attn_implementation("eager")
    ours, theirs = (states(model, batch, "encoder_attentions")[-1] for model in models)
    gaps = (ours - theirs).masked_fill(~real[:, None, None, :], 0).square().sum(-1).mean(1)
    assert parts["loss/attention_mse"] == pytest.approx(gaps[real].mean().item(), rel=1e-5)
    cut, many = step(tmp_path, spec, 2, 4)
    assert cut == pytest.approx(parts, rel=1e-5)
    assert tiny.relative(many, one) < 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [("hidden_cosine", {}), ("pkd", {"layers": "uniform"}), ("pooled_mse", {}), ("contrastive", {"dim": 4}),
     ("adversarial", {"hidden": 4}), ("attention_kl", {})],
)  # fmt: skip
def test_terms_on_an_encoder_train_and_differ_from_those_on_the_decoder(tmp_path, name, options):
    own, _ = step(tmp_path, {name: {"stream": "encoder", **options}}, 8, 1)
    main, _ = step(tmp_path, {name: options}, 8, 1)
    assert 0 < own[f"loss/{name}"] != pytest.approx(main[f"loss/{name}"])


@pytest.mark.parametrize("name", ["hidden_mse", "pooled_cosine", "attention_mse"])
def test_a_term_that_names_the_main_stream_equals_one_that_names_none(tmp_path, name):
    named, own = step(tmp_path, {name: {"stream": "decoder"}}, 2, 4)
    plain, other = step(tmp_path, name, 2, 4)
    assert named == plain
    assert tiny.relative(own, other) == 0


def test_an_image_models_only_stream_may_be_named(tmp_path):
    losses = []
    for options in ({}, {"stream": "vision"}):
        run = tiny.trainer(
            tmp_path, tiny_images.vit(), tiny_images.images(), teacher_model=tiny_images.vit(7, width=24, layers=4),
            data_collator=default_data_collator, objective={"hidden_mse": options}, args={"max_steps": 2},
        )  # fmt: skip
        run.train()
        losses.append(tiny.losses(run))
    assert losses[0] == losses[1]


def test_a_tuned_prompt_is_no_part_of_an_encoder(tmp_path):
    config = PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4)
    student, teacher = get_peft_model(t5(), config), t5(seed=7)
    spec = {"hidden_mse": {"stream": "encoder", "layers": {1: 1}}}
    args = {"max_steps": 1, "alpha": 1.0, "per_device_train_batch_size": 8}
    run = trainer(tmp_path, student, teacher, spec, args=args)
    batch, real = whole(), whole()["attention_mask"].bool()
    ours, theirs = (states(model, batch, "encoder_hidden_states")[1] for model in (student, teacher))
    assert ours.shape[1] == 4 + theirs.shape[1]
    run.train()
    wanted = (ours[:, 4:] - theirs)[real].square().mean().item()
    assert run.state.log_history[0]["loss/hidden_mse"] == pytest.approx(wanted, rel=1e-5)


def test_widths_of_two_encoders_are_projected(tmp_path):
    run = trainer(tmp_path, t5(encoder=2), t5(24, encoder=3, seed=7), {"hidden_mse": {"stream": "encoder"}})
    projections = run.model.distillation.terms["hidden_mse"].projections
    assert {name: tuple(one.weight.shape) for name, one in projections.items()} == {
        "0_0": (24, 16), "1_2": (24, 16), "2_3": (24, 16),
    }  # fmt: skip
    run.train()
    assert "eval_loss/hidden_mse" in run.evaluate(run.train_dataset)


def test_a_stream_that_the_task_does_not_have_is_refused_with_those_that_it_has(tmp_path):
    message = "hidden_mse was given stream='vision', the models of this task show decoder, encoder: name one of those"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, t5(), t5(seed=7), {"hidden_mse": {"stream": "vision"}})
    with pytest.raises(ValueError, match="given stream='encoder', the models of this task show vision: name"):
        tiny.trainer(
            tmp_path, tiny_images.vit(), tiny_images.images(), teacher_model=tiny_images.vit(seed=7),
            data_collator=default_data_collator, objective={"hidden_mse": {"stream": "encoder"}},
        )  # fmt: skip


# ---- Several teachers, and answers that are kept ----


def test_one_of_several_teachers_is_heard_for_its_encoder(tmp_path):
    spec = {"forward_kl": 1.0, "inside": {"term": "hidden_mse", "teacher": "big", "stream": "encoder"}}
    both = {"big": t5(encoder=4, decoder=2, seed=7), "small": t5(seed=5)}
    args = {"max_steps": 1, "per_device_train_batch_size": 8, "alpha": 0.7}
    run = trainer(tmp_path, t5(encoder=2), both, spec, args=args)
    run.train()
    alone, _ = step(tmp_path, {"hidden_mse": {"stream": "encoder"}}, 8, 1)
    assert run.state.log_history[0]["loss/inside"] == pytest.approx(alone["loss/hidden_mse"], rel=1e-6)


def test_each_row_has_the_encoder_of_its_own_teacher(tmp_path):
    teachers = [LiveTeacher(t5(seed=seed)) for seed in (7, 8)]
    task = tiny.trainer(tmp_path, t5(), tiny_language.pairs(8), data_collator=COLLATE).task
    for one in teachers:
        one.task = task
    choice = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    needs = frozenset({"heads", "hidden:encoder"})
    shown = Several(teachers, choose="source")({**whole(), "source": choice}, needs).stream("encoder")
    each = [one(whole(), needs).stream("encoder") for one in teachers]
    assert torch.equal(shown.mask, whole()["attention_mask"].bool())
    for row, one in enumerate(choice.tolist()):
        for ours, theirs in zip(shown.hidden, each[one].hidden, strict=True):
            assert torch.allclose(ours[row][shown.mask[row]], theirs[row][shown.mask[row]], atol=1e-5)


def test_of_other_streams_nothing_is_kept_and_that_is_told_once(tmp_path, caplog):
    spec = {"forward_kl": 1.0, "hidden_mse": {"stream": "encoder"}}
    teacher = CachedTeacher(LiveTeacher(t5(encoder=4, decoder=2, seed=7)), always=True)
    args = {"max_steps": 3, "per_device_train_batch_size": 8, "alpha": 0.7}
    run = trainer(tmp_path, t5(encoder=2), teacher, spec, args=args)
    run.train()
    told = [one.message for one in caplog.records if "are not kept" in one.message]
    assert len(told) == 1
    assert "an objective needs hidden:encoder of it, and only the main stream's can be. It is asked each" in told[0]
    assert len(teacher.memory) == 0
    alone, _ = step(tmp_path, spec, 8, 1)
    assert run.state.log_history[0]["loss/hidden_mse"] == pytest.approx(alone["loss/hidden_mse"], rel=1e-6)


def test_a_folder_without_its_teacher_is_refused_for_another_stream(tmp_path):
    folder, big = tmp_path / "answers", t5(encoder=2, decoder=2, seed=7)
    filled = CachedTeacher(LiveTeacher(big), folder)
    trainer(tmp_path / "a", t5(), filled, {"forward_kl": 1.0, "hidden_mse": 1.0}).train()
    message = "hidden_mse compares the stream encoder, of which a folder of answers holds nothing: pass the teacher"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path / "b", t5(), CachedTeacher(folder=folder), {"hidden_mse": {"stream": "encoder"}})
