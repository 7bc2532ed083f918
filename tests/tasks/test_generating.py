"""Generators: what they make of a latent is compared with their teacher's and with real ones, each row alike."""

import sys

import pytest
import tiny
import tiny_generators as tiny_g
import torch
from huggingface_hub import ModelCard
from transformers import default_data_collator

from hf_distill import (
    FunctionTeacher,
    Generating,
    LatentCollator,
    Task,
    VAEDecoder,
    encode_latents,
    latent_rows,
)
from hf_distill.training.build_teacher import build_teacher

DRAWN = {"draws": {"z": (3,)}, "columns": {"class_labels": "label"}}
KINDS = {
    "decoder": lambda: (tiny_g.decoder(4), tiny_g.decoder(8, seed=7), tiny_g.latents()),
    "vocoder": lambda: (tiny_g.hifigan(4), tiny_g.hifigan(8, seed=7), tiny_g.mels()),
    "gan": lambda: (tiny_g.Gan(4), tiny_g.Gan(8, seed=7), latent_rows(8, classes=3)),
}
TAP = {"path": "vae.decoder.mid_block", "widths": [4, 8]}
FEATURES = {"value_mse": 1.0, "tap_mse": TAP}
JUDGED = {"value_mse": 1.0, "adversarial": {"on": "sample", "hidden": 8}}
WAVES = {"value_l1": 1.0, "adversarial": {"on": "sample", "hidden": 8, "channels": 1, "axes": 1}}


def trainer(folder, kind="decoder", student=None, teacher=None, data=None, **parts):
    ours, theirs, rows = KINDS[kind]()
    gan = kind == "gan"
    collator = LatentCollator(**{**DRAWN, **parts.pop("latents", {})}) if gan else default_data_collator
    task = parts.pop("task", Generating(supervised=False) if gan else None)
    found = {"data_collator": collator, "teacher_model": teacher or theirs, "task": task, **parts}
    return tiny.trainer(folder, student or ours, data or rows, **found)


@pytest.mark.parametrize("kind", ["decoder", "vocoder"])
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_both_losses_are_means_over_what_is_made(tmp_path, kind, loss):
    student, teacher, rows = KINDS[kind]()
    batch = default_data_collator(rows)
    target = batch.pop("target")
    with torch.no_grad():
        ours, theirs = (one.eval()(**batch) for one in (student, teacher))
    wanted = {"mse": torch.nn.functional.mse_loss, "l1": torch.nn.functional.l1_loss}[loss](ours, target).item()
    run = trainer(tmp_path, kind, student, teacher, eval_dataset=rows, task=Generating(loss))
    found = run.evaluate()
    assert found["eval_loss/hard"] == pytest.approx(wanted, rel=1e-5)
    assert found["eval_loss/value_mse"] == pytest.approx((ours - theirs).square().mean().item(), rel=1e-5)
    assert found["eval_loss"] == pytest.approx((wanted + (ours - theirs).square().mean().item()) / 2, rel=1e-5)


def test_models_are_known_by_their_class():
    kinds = [tiny_g.decoder(), tiny_g.vae().decoder, tiny_g.hifigan(), tiny_g.univnet()]
    assert {type(Task.of(one)) for one in kinds} == {Generating}
    tasks = [Task.of(one) for one in (kinds[0], kinds[2])]
    assert [(one.library, one.auto_class) for one in tasks] == [
        ("diffusers", "AutoencoderKL"), ("transformers", "SpeechT5HifiGan"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no task is known for Gan"):
        Task.of(tiny_g.Gan())


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_comes_to_make_what_its_teacher_does(tmp_path, kind):
    rows = KINDS[kind]()[2]
    run = trainer(tmp_path, kind, eval_dataset=rows, args={"alpha": 1.0, "max_steps": 40})
    before = run.evaluate()["eval_loss/value_mse"]
    run.train()
    assert run.evaluate()["eval_loss/value_mse"] < 0.7 * before


def test_without_a_target_there_is_a_loss_to_train_and_to_evaluate(tmp_path):
    rows = tiny_g.latents(target=False)
    run = trainer(tmp_path, data=rows, eval_dataset=rows, task=Generating(supervised=False), args={"max_steps": 1})
    run.train()
    assert run.alpha == 1.0
    assert run.evaluate()["eval_loss"] == pytest.approx(run.evaluate()["eval_loss/value_mse"])


@pytest.mark.parametrize(
    ("kind", "objective"),
    [("decoder", FEATURES), ("decoder", JUDGED), ("vocoder", WAVES), ("gan", "value_mse")],
)
def test_8_x_1_equals_2_x_4(tmp_path, kind, objective):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, kind, objective=objective, callbacks=[seen], args=args)
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_rows_of_nan_are_taught_and_not_supervised_however_a_batch_is_cut(tmp_path):
    rows, found = tiny_g.latents(), []
    for number in (1, 4, 5):  # one micro-batch of two has no target at all
        rows[number]["target"] = None
    options = {"columns": {"latents": "latents"}, "target": "target"}
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, data=rows, callbacks=[seen], data_collator=LatentCollator(**options), args=args)
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5
    task, batch = Generating(), LatentCollator(**options)(rows)
    assert task.counts(batch)["labels"] == 5
    with torch.no_grad():
        made = tiny_g.decoder(4)(batch["latents"])
    each = (made - batch["target"]).square().flatten(1).mean(1)
    assert found[0][0]["loss/hard"] == pytest.approx(each[~each.isnan()].mean().item(), rel=1e-4)


def test_teacher_and_student_read_the_same_latents_and_classes(tmp_path):
    run = trainer(tmp_path, "gan", args={"max_steps": 2})
    given = {"student": [], "teacher": []}
    for name, model in (("student", run.model), ("teacher", run.teacher.model)):
        model.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: given[name].append(dict(kwargs)), with_kwargs=True
        )
    run.train()
    assert len(given["student"]) == len(given["teacher"]) == 2
    for ours, theirs in zip(*given.values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("z", "class_labels"))


@pytest.mark.parametrize("kind", ["decoder", "gan"])
def test_kept_answers_teach_the_same(tmp_path, kind):
    runs = {}
    for name in ("off", "auto"):
        latents = {"recurring": 2} if kind == "gan" else {}
        args = {"teacher_cache": name, "max_steps": 6}
        runs[name] = trainer(tmp_path / name, kind, args=args, **({"latents": latents} if latents else {}))
        runs[name].train()
    assert tiny.losses(runs["auto"]) == pytest.approx(tiny.losses(runs["off"]), rel=1e-6)
    hits = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0] if kind == "gan" else [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert tiny.losses(runs["auto"], "teacher_cache_hits") == hits


def test_where_every_epoch_has_new_latents_nothing_is_kept(tmp_path, caplog):
    run = trainer(tmp_path, "gan", args={"max_steps": 4})
    run.train()
    assert len(run.teacher.memory) == 0
    assert not caplog.records


@pytest.mark.parametrize("kind", ["decoder", "gan"])
def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, kind):
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    objective = JUDGED if kind == "decoder" else "value_mse"
    whole, again = (trainer(tmp_path / name, kind, objective=objective, args=args) for name in ("whole", "again"))
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert again.state.global_step == 6
    ours, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert tiny.losses(again) == tiny.losses(whole)


def test_a_function_may_be_the_teacher(tmp_path):
    model, found = tiny_g.decoder(8, seed=7).eval(), []
    for teacher in (model, FunctionTeacher(lambda batch: model(batch["latents"]))):
        run = trainer(tmp_path, teacher=teacher, args={"max_steps": 2})
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_predictions_have_every_row(tmp_path):
    run = trainer(tmp_path, "vocoder")
    found = run.predict(KINDS["vocoder"]()[2])
    assert found.predictions.shape == (8, 20)
    assert found.label_ids.shape == (8, 20)


def test_univnet_is_given_its_noise(tmp_path):
    rows = [{"input_features": row["spectrogram"], "row": number} for number, row in enumerate(tiny_g.mels())]
    columns = {"columns": {"input_features": "input_features"}}
    parts = {"student": tiny_g.univnet(2), "teacher": tiny_g.univnet(4, seed=7), "data": rows}
    args = {"alpha": 1.0, "max_steps": 2}
    run = trainer(tmp_path, **parts, data_collator=LatentCollator({"noise_sequence": (5, 4)}, **columns), args=args)
    run.train()
    assert tiny.losses(run)[0] > 0
    run = trainer(tmp_path, **parts, data_collator=LatentCollator(**columns), args=args)
    with pytest.raises(ValueError, match=r"UnivNetModel was given no noise_sequence.*\(frames, 4\)"):
        run.train()


def test_latents_are_scaled_as_pipelines_do():
    """Two autoencoders that multiply the same latents by other factors read the same column."""
    model, images = tiny_g.vae().eval(), torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        wanted = model.encode(images).latent_dist.mean
        shown = model.decode(wanted).sample
    latents = encode_latents(model, images, batch_size=1)
    torch.testing.assert_close(latents, wanted * 0.5)
    torch.testing.assert_close(VAEDecoder(model)(latents), shown)
    tiny_one = tiny_g.vae(kind="AutoencoderTiny").eval()
    assert encode_latents(VAEDecoder(tiny_one), images).shape == latents.shape
    spread = tiny_g.vae(latents_mean=(1.0, 2.0), latents_std=(2.0, 4.0)).eval()
    each = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), torch.tensor([2.0, 4.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(encode_latents(spread, images), (wanted - each[0]) * 0.5 / each[1])
    torch.testing.assert_close(VAEDecoder(spread)(encode_latents(spread, images)), shown)


def test_the_encoder_stays_what_it_was(tmp_path):
    student = tiny_g.decoder(4)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    run = trainer(tmp_path, student=student, args={"max_steps": 2})
    run.train()
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"decoder", "post_quant_conv"}


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderTiny"])
def test_diffusers_loads_what_was_saved(tmp_path, kind):
    run = trainer(tmp_path, student=tiny_g.decoder(4, kind=kind), args={"max_steps": 2, "hub_model_id": "me/small"})
    run.train()
    run.save_model()
    loaded = getattr(sys.modules["diffusers"], kind).from_pretrained(str(tmp_path))
    ours = run.model.vae.state_dict()
    assert loaded.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())
    assert not (tmp_path / "model.safetensors").exists()
    run.create_model_card()
    card, text = ModelCard.load(tmp_path / "README.md"), (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.data.library_name == "diffusers"
    assert f'from diffusers import {kind}\n\nmodel = {kind}.from_pretrained("me/small")\n```' in text
    assert build_teacher(str(tmp_path), Generating()).model.state_dict().keys() == run.model.state_dict().keys()


def test_the_objective_is_no_part_of_what_is_saved(tmp_path):
    run = trainer(tmp_path, objective=FEATURES, args={"max_steps": 1})
    run.train()
    run.save_model()
    loaded = sys.modules["diffusers"].AutoencoderKL.from_pretrained(str(tmp_path))
    assert loaded.state_dict().keys() == run.model.vae.state_dict().keys()


def test_the_best_student_of_a_run_is_loaded_and_saved(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    best = {"load_best_model_at_end": True, "learning_rate": 1.0, "metric_for_best_model": "loss"}
    run = trainer(tmp_path, eval_dataset=tiny_g.latents(), args={**args, **best})
    run.train()
    run.save_model()
    assert run.state.best_model_checkpoint.endswith("checkpoint-1")  # at such a rate it falls apart
    loaded = sys.modules["diffusers"].AutoencoderKL.from_pretrained(str(tmp_path)).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in run.model.vae.state_dict().items())


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_teacher_is_loaded_from_its_folder_or_its_pipelines(tmp_path, inside):
    model = tiny_g.vae(8, seed=7)
    model.save_pretrained(tmp_path / "teacher" / inside)
    run = trainer(tmp_path / "run", teacher=str(tmp_path / "teacher"))
    ours = run.teacher.model.vae.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())


def test_a_vocoder_is_loaded_and_said_to_be_loaded_by_its_class(tmp_path):
    tiny_g.hifigan(8, seed=7).save_pretrained(tmp_path / "teacher")
    args = {"max_steps": 1, "hub_model_id": "me/small"}
    run = trainer(tmp_path / "run", "vocoder", teacher=str(tmp_path / "teacher"), args=args)
    run.train()
    run.create_model_card()
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert 'from transformers import SpeechT5HifiGan\n\nmodel = SpeechT5HifiGan.from_pretrained("me/small")' in text


@pytest.mark.parametrize(
    ("kind", "parts", "told"),
    [
        ("decoder", {"objective": "hidden_mse"}, "compares hidden, which generators do not show: use tap_mse"),
        ("decoder", {"objective": {"adversarial": {"on": "image"}}}, "compares the values 'image', of which Gen"),
        ("vocoder", {"objective": {"adversarial": {"on": "sample"}}},
         r"judge sample of 3 channels and 2 axes, the student shows \[1, 20\]: give channels=1 and axes=1"),
        ("decoder", {"objective": "forward_kl"}, "compares logits, a model of AutoencoderKL has none"),
        ("decoder", {"data": tiny_g.latents(channels=3)}, r"shape \[3, 4, 4\] were given to .*decodes 2 channels"),
        ("decoder", {"data": tiny_g.latents(target=False)}, "alpha=0.5 trains on labels, .*a 'target' column, or"),
        ("decoder", {"data": [{**row, "target": 1} for row in tiny_g.latents()]}, r"the target is int64 \[8\]: Gen"),
        ("decoder", {"data": [{**row, "target": torch.ones(3, 4, 4)} for row in tiny_g.latents()]},
         r"the student made samples of the shape \[3, 8, 8\], the target is \[3, 4, 4\]: give images"),
        ("vocoder", {"data": [{"spectrogram": torch.ones(5, 3)}] * 8, "args": {"alpha": 1.0}},
         r"shape \[8, 5, 3\] was given to SpeechT5HifiGan, which reads \[B, T, 4\]"),
        ("gan", {"args": {"alpha": 0.5}}, "alpha=0.5 trains on labels"),
        ("gan", {"data": [{"label": 1}] * 8}, "no 'row', by which its latents are drawn"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_in_one_sentence(tmp_path, kind, parts, told):
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, kind, **parts).train()


def test_whole_autoencoders_are_refused_before_the_first_step(tmp_path):
    for parts in ({"student": tiny_g.vae(4)}, {"teacher": tiny_g.vae(8)}):
        with pytest.raises(ValueError, match=r"AutoencoderKL is a whole autoencoder, which reads images: pass VAEDec"):
            trainer(tmp_path, **parts)


@pytest.mark.parametrize(
    ("kind", "teacher", "told"),
    [
        ("vocoder", lambda: tiny_g.hifigan(8, rates=(2, 4)), r"of shape \[8, 1, 40\], the student \[8, 1, 20\]: give"),
        ("gan", lambda: tiny_g.Gan(8, side=5), r"of shape \[8, 1, 5, 5\], the student \[8, 1, 4, 4\]: give"),
    ],
)
def test_a_teacher_of_another_size_is_refused_in_one_sentence(tmp_path, kind, teacher, told):
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, kind, teacher=teacher(), args={"alpha": 1.0}).train()


def test_what_is_no_sample_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"a sample was asked of the student, it returned a tensor of shape \[3\]"):
        Generating().hard(torch.ones(3), {"target": torch.ones(3, 2)})
    with pytest.raises(ValueError, match="loss='l3' was given to Generating: use mse or l1"):
        Generating("l3")
    with pytest.raises(TypeError, match="a Linear was given to VAEDecoder: give an autoencoder of diffusers"):
        VAEDecoder(torch.nn.Linear(1, 1))


def test_without_diffusers_a_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        ImportError, match=r'is loaded by diffusers, which is not .*pip install "hf_distill.diffusers."'
    ):
        build_teacher(str(tmp_path), Generating())


def test_a_folder_of_something_else_is_no_decoder(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    diffusers.UNet1DModel(sample_size=16, block_out_channels=(8, 8, 16)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a UNet1DModel: name the folder of an autoencoder of diffusers"):
        build_teacher(str(tmp_path), Generating())
