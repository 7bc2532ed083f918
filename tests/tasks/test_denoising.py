"""Denoisers of diffusers: what they predict is compared with a target and a teacher, each row alike."""

import ast
import sys
from pathlib import Path

import pytest
import tiny
import tiny_denoisers as tiny_d
import torch
from default_run import slow_but
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import TrainerCallback

import hf_distill
from hf_distill import Denoising, DenoisingCollator, FunctionTeacher, Task, keep_layers
from hf_distill.experiments.denoisers import DenoiserArguments, shared_scheduler
from hf_distill.models.facts import Facts
from hf_distill.training.build_teacher import build_teacher

CLASSES = {"conditions": {"class_labels": "label"}, "nothing": {"class_labels": 3}, "drop": 0.3}
KINDS = {
    "dit": lambda: (tiny_d.dit(1), tiny_d.dit(3, seed=7), tiny_d.ddpm()),
    "unet": lambda: (tiny_d.unet(1), tiny_d.unet(2, seed=7), tiny_d.ddpm("v_prediction")),
    "flow": lambda: (tiny_d.dit(1), tiny_d.dit(3, seed=7), tiny_d.flow()),
}
FEATURES = {"value_mse": 1.0, "tap_mse": {"path": "transformer_blocks.0", "teacher_path": "transformer_blocks.2"}}


def trainer(folder, kind="dit", student=None, teacher=None, data=None, collator=None, **parts):
    ours, theirs, scheduler = KINDS[kind]()
    student = student or ours
    collator = collator or DenoisingCollator(student, scheduler, **{**CLASSES, **parts.pop("noise", {})})
    return tiny.trainer(
        folder, student, data or tiny_d.latents(), teacher_model=teacher or theirs, data_collator=collator, **parts
    )


class Batches(TrainerCallback):
    """A forward hook's ear: what a model was given."""

    def __init__(self, model):
        self.given = []
        model.register_forward_pre_hook(lambda module, args, kwargs: self.given.append(dict(kwargs)), with_kwargs=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_supervised_loss_is_the_mean_square_distance_from_the_target(tmp_path, kind):
    student, _, scheduler = KINDS[kind]()
    assert type(Task.of(student)) is Denoising
    rows, collator = tiny_d.latents(), DenoisingCollator(student, scheduler, conditions={"class_labels": "label"})
    batch = collator(rows)
    with torch.no_grad():
        shown = student.eval()(**{n: v for n, v in batch.items() if n != "target"}).sample
    wanted = torch.nn.functional.mse_loss(shown, batch["target"]).item()
    run = trainer(tmp_path, kind, student, collator=collator, eval_dataset=rows, args={"alpha": 0.5})
    assert run.evaluate()["eval_loss/hard"] == pytest.approx(wanted, rel=1e-5)
    alone = tiny.trainer(tmp_path, student, rows, data_collator=collator, eval_dataset=rows)
    assert alone.label_names == ["target"]  # and not class_labels, which Trainer finds by the name
    assert alone.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", slow_but(["dit"], KINDS))
def test_the_student_comes_to_predict_what_its_teacher_does(tmp_path, kind):
    run = trainer(tmp_path, kind, eval_dataset=tiny_d.latents(), args={"alpha": 1.0, "max_steps": 40})
    before = run.evaluate()["eval_loss/value_mse"]
    run.train()
    assert run.evaluate()["eval_loss/value_mse"] < 0.7 * before


def test_teacher_and_student_read_the_same_noise_time_and_dropped_classes(tmp_path):
    run = trainer(tmp_path, args={"teacher_cache": "off"})
    ours, theirs = Batches(run.model), Batches(run.teacher.model)
    run.train()
    assert len(ours.given) == len(theirs.given) == 3
    dropped = torch.cat([one["class_labels"] for one in ours.given]) == 3
    assert 0 < dropped.sum() < len(dropped)
    for one, other in zip(ours.given, theirs.given, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("hidden_states", "timestep", "class_labels"))


def test_the_student_drops_no_class_by_itself(tmp_path):
    """DiT draws anew in each of its blocks which classes it forgets, and only in training."""
    student = tiny_d.dit(2)
    assert student.transformer_blocks[0].norm1.emb.class_embedder.dropout_prob > 0
    run = trainer(tmp_path, student=student, teacher=tiny_d.dit(2), args={"alpha": 1.0, "max_steps": 1})
    run.train()  # a copy of its teacher has nothing to learn
    assert tiny.losses(run)[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "objective"), [("dit", "value_mse"), ("dit", FEATURES), ("unet", {"tap_mse": {"path": "mid_block"}})]
)
def test_8_x_1_equals_2_x_4(tmp_path, kind, objective):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, kind, objective=objective, callbacks=[seen], args={**args, "alpha": 0.5})
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("objective", ["value_mse", FEATURES])
def test_of_k_noises_a_row_the_teacher_is_asked_k_times_and_kept_answers_teach_the_same(tmp_path, objective):
    noise, runs = {"recurring": 2}, {}
    for name in ("off", "auto"):
        args = {"teacher_cache": name, "max_steps": 6}
        runs[name] = trainer(tmp_path / name, objective=objective, noise=noise, args=args)
        runs[name].train()
    assert tiny.losses(runs["auto"]) == pytest.approx(tiny.losses(runs["off"]), rel=1e-6)
    assert tiny.losses(runs["auto"], "teacher_cache_hits") == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]


def test_where_every_epoch_has_new_noise_nothing_is_kept(tmp_path, caplog):
    run = trainer(tmp_path, args={"max_steps": 4})
    run.train()
    assert len(run.teacher.memory) == 0
    assert not caplog.records


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "alpha": 0.5}
    whole, again = (trainer(tmp_path / name, noise={"recurring": 2}, args=args) for name in ("whole", "again"))
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert again.state.global_step == 6
    ours, theirs = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert tiny.losses(again) == tiny.losses(whole)


def test_a_learned_variance_is_taught_and_not_supervised(tmp_path):
    student, teacher = (tiny_d.dit(n, seed=n, out_channels=2) for n in (1, 3))
    assert Task.of(student).values == ("prediction", "variance")
    batch = DenoisingCollator(student, tiny_d.ddpm(), conditions={"class_labels": "label"})(tiny_d.latents())
    fed = {name: value for name, value in batch.items() if name != "target"}
    with torch.no_grad():
        ours, theirs = (one.eval()(**fed).sample for one in (student, teacher))
    run = trainer(tmp_path, student=student, teacher=teacher, eval_dataset=tiny_d.latents(), noise={"drop": 0.0})
    found = run.evaluate()
    hard = (ours[:, :1] - batch["target"]).square().mean().item()
    soft = sum((ours - theirs).square().mean(dim=(0, 2, 3)).tolist())  # the prediction's and the variance's
    assert found["eval_loss/hard"] == pytest.approx(hard, rel=1e-5)
    assert found["eval_loss/value_mse"] == pytest.approx(soft, rel=1e-5)


def test_of_a_teacher_with_a_variance_a_student_without_learns_the_prediction(tmp_path):
    run = trainer(tmp_path, teacher=tiny_d.dit(3, out_channels=2), args={"max_steps": 1})
    run.train()
    assert tiny.losses(run, "loss/value_mse")[0] > 0
    run = trainer(tmp_path, student=tiny_d.dit(1, out_channels=2), args={"max_steps": 1})
    with pytest.raises(ValueError, match=r"gave a variance of shape none, the student .*: pass task=Denoising\(\)"):
        run.train()


def test_a_function_may_be_the_teacher(tmp_path):
    model, found = tiny_d.dit(3, seed=7).eval(), []
    names = ("hidden_states", "timestep", "class_labels")
    for teacher in (model, FunctionTeacher(lambda batch: model(**{name: batch[name] for name in names}).sample)):
        run = trainer(tmp_path, teacher=teacher, args={"max_steps": 2})
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_what_is_known_of_a_transformer_of_diffusers_before_it_runs():
    facts = Facts.of(tiny_d.dit(3))
    assert (facts.name, facts.num_layers, facts.num_heads, facts.hidden_size) == ("DiTTransformer2DModel", 3, 2, 16)
    assert Facts.of(tiny_d.unet()).name == "UNet2DModel"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"objective": "hidden_mse"}, "compares hidden, which models of diffusers do not show: use tap_mse"),
        ({"objective": "forward_kl"}, "compares logits, a model of AutoModel has none"),
        ({"teacher": tiny_d.dit(2, in_channels=2)}, r"shape \[1, 4, 4\] were given to DiT.*reads 2 channels"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(tmp_path, parts, told):
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, **parts).train()


def test_a_denoiser_that_is_not_known_is_refused():
    model = tiny_d.diffusers.UNet1DModel(sample_size=16, block_out_channels=(8, 8, 16))
    with pytest.raises(ValueError, match="no task is known for UNet1DModel"):
        Task.of(model)


def same(ours, theirs):
    state, other = ours.state_dict(), theirs.state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


def test_diffusers_loads_what_was_saved(tmp_path):
    run = trainer(tmp_path, objective={"tap_mse": {**FEATURES["tap_mse"], "widths": [16, 16]}}, args={"max_steps": 2})
    run.train()
    run.save_model()
    loaded = tiny_d.diffusers.AutoModel.from_pretrained(str(tmp_path))
    ours = {name: value for name, value in run.model.state_dict().items() if not name.startswith("distillation")}
    assert len(ours) < len(run.model.state_dict())  # the projection stays at home
    assert loaded.state_dict().keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())
    assert not (tmp_path / "model.safetensors").exists()


def test_the_best_student_of_a_run_is_loaded_and_saved(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    best = {"load_best_model_at_end": True, "learning_rate": 1.0, "metric_for_best_model": "loss"}
    run = trainer(tmp_path, eval_dataset=tiny_d.latents(), args={**args, **best})
    run.train()
    run.save_model()
    assert run.state.best_model_checkpoint.endswith("checkpoint-1")  # at such a rate it falls apart
    assert same(tiny_d.diffusers.AutoModel.from_pretrained(str(tmp_path)), run.model)


@pytest.mark.parametrize("inside", ["", "transformer"])
def test_a_teacher_is_loaded_from_its_folder_or_its_pipelines(tmp_path, inside):
    model = tiny_d.dit(3, seed=7)
    model.save_pretrained(tmp_path / "teacher" / inside)
    run = trainer(tmp_path / "run", teacher=str(tmp_path / "teacher"))
    assert same(run.teacher.model, model)
    with pytest.raises(ValueError, match="nowhere could not be read as a model of diffusers"):
        trainer(tmp_path / "run", teacher=str(tmp_path / "nowhere"))


def test_the_card_says_how_diffusers_loads_the_student(tmp_path):
    student = keep_layers(tiny_d.dit(3), [0, 2])
    run = trainer(tmp_path, student=student, args={"hub_model_id": "me/small"})
    run.train()
    run.create_model_card()
    loaded, text = ModelCard.load(tmp_path / "README.md"), (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (loaded.data.library_name, loaded.data.pipeline_tag) == ("diffusers", "unconditional-image-generation")
    assert 'from diffusers import AutoModel\n\nmodel = AutoModel.from_pretrained("me/small")\n```' in text
    assert "Layers 0 and 2 of `DiTTransformer2DModel` were kept." in text
    assert "2 layers of width 16" in text
    assert "tokenizer" not in text


def test_without_diffusers_a_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        ImportError, match=r'is loaded by diffusers, which is not .*pip install "hf_distill.diffusers."'
    ):
        build_teacher(str(tmp_path), Denoising())
    with pytest.raises(ImportError, match=r'this recipe needs diffusers, .*pip install "hf_distill.diffusers."'):
        shared_scheduler(DenoiserArguments())


def test_diffusers_is_imported_inside_of_functions_alone():
    """It takes seconds, and may not be there."""
    files = [*Path(hf_distill.__file__).parent.rglob("*.py"), *Path(__file__).parents[2].glob("recipes/*.py")]
    tops = [node for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body]
    named = {node.module for node in tops if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
    assert "torch" in named
    assert not {name for name in named if name.split(".")[0] == "diffusers"}


@pytest.mark.parametrize("folder", ["teacher_quantization", "untrained"])
def test_a_teacher_that_cannot_be_loaded_so_is_refused(tmp_path, folder):
    model = tiny_d.dit(2)
    model.save_pretrained(tmp_path)
    if folder == "teacher_quantization":
        with pytest.raises(ValueError, match="teacher_quantization='torchao_int8' was given for a model of"):
            build_teacher(str(tmp_path), Denoising(), quantization="torchao_int8")
        return
    state = {n: v for n, v in model.state_dict().items() if not n.startswith("proj_out_2")}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"no trained weights for proj_out_2.bias, proj_out_2.weight: train it first"):
        build_teacher(str(tmp_path), Denoising())
