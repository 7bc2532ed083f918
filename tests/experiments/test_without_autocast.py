"""What is reported of models is what a user finds who loads them plainly, however they were trained."""

from functools import wraps

import numpy as np
import pytest
import tiny
import torch
from default_run import slow_but
from recipe_runs import QUIET, columns, pairs, rows, tagged_rows, texts, write
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    MarianMTModel,
)

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.models import ModelArguments, blank_bert
from hf_distill.experiments.sentence_embeddings import VectorScoring
from hf_distill.experiments.tokenizers import character_tokenizer
from hf_distill.experiments.without_autocast import as_published, plainly
from hf_distill.objectives.functional import forward_kl
from hf_distill.reports.speed import size_of

bert_chinese = recipe_module("bert_chinese")
causal_lm = recipe_module("causal_lm")
sentence_embeddings = recipe_module("sentence_embeddings")
token_tagging = recipe_module("token_tagging")
translation = recipe_module("translation")

FLAGS = [
    "--bf16", "1", "--use_cpu", "1", "--max_steps", "4", "--num_threads", "1", "--report_to", "none", *QUIET,
    "--teacher_layers", "1", "--teacher_hidden_size", "64", "--student_hidden_size", "64", "--learning_rate", "3e-3",
    "--per_device_train_batch_size", "8",
]  # fmt: skip
MODE = "float32, without autocast"


def done(recipe, folder, *flags):
    """Run a recipe under bfloat16, and say where its models are."""
    flags = ["--output_dir", str(folder / "run"), *FLAGS, *flags]
    report, job = recipe.RECIPE.main(flags), recipe.RECIPE.prepare([*flags, "--resume_from_checkpoint", "true"])
    (teacher,) = (folder / "run").glob("_teacher-*")
    return report, job, {"teacher": teacher, "student alone": folder / "run" / "_alone", "distilled": folder / "run"}


def logits(kind, folder, job):
    """The logits of the test rows, of a model that is loaded plainly, row by row."""
    model = kind.from_pretrained(folder).eval()
    assert model.dtype == torch.float32
    with torch.no_grad():
        return [model(**job.options["data_collator"]([row])).logits[0] for row in job.splits["test"]]


@pytest.mark.parametrize("cache", slow_but(["auto"], ["auto", "off"]))
def test_a_classifier(tmp_path, cache):
    path = write(tmp_path / "rows.jsonl", rows(60))
    report, job, models = done(
        bert_chinese, tmp_path, "--train_file", path, "--test_file", path, "--teacher_cache", cache
    )
    found = {n: torch.stack(logits(AutoModelForSequenceClassification, f, job)) for n, f in models.items()}
    for row in report["models"]:
        right = found[row["name"]].argmax(-1) == torch.tensor(job.splits["test"]["label"])
        assert row["accuracy"] == pytest.approx(right.double().mean().item())
        kl = forward_kl(found[row["name"]], found["teacher"]).mean().item()
        assert row["kl"] == pytest.approx(kl, rel=1e-4, abs=1e-7)
    assert report["mode"] == MODE
    assert report["machine"].endswith("float32")
    assert f"measured as they are published ({MODE})" in " ".join((tmp_path / "run" / "README.md").read_text().split())


@pytest.mark.slow
def test_a_tagger(tmp_path):
    path = write(tmp_path / "rows.jsonl", tagged_rows(40))
    report, job, models = done(token_tagging, tmp_path, "--train_file", path, "--test_file", path)
    labels = [torch.tensor(row["labels"]) for row in job.splits["test"]]
    found = {name: logits(AutoModelForTokenClassification, folder, job) for name, folder in models.items()}
    for row in report["models"]:
        pairs = zip(found[row["name"]], found["teacher"], labels, strict=True)
        kl = torch.cat([forward_kl(ours[y >= 0], theirs[y >= 0]) for ours, theirs, y in pairs]).mean().item()
        assert row["kl"] == pytest.approx(kl, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_a_language_model(tmp_path):
    path = write(tmp_path / "rows.jsonl", texts(40))
    flags = ["--train_file", path, "--test_file", path, "--max_length", "24", "--student_layers", "1"]
    report, job, models = done(causal_lm, tmp_path, *flags)
    ids = [torch.tensor(row["input_ids"]) for row in job.splits["test"]]
    found = {name: logits(AutoModelForCausalLM, folder, job) for name, folder in models.items()}
    for row in report["models"]:
        both = zip(found[row["name"]], ids, strict=True)
        loss = torch.cat([F.cross_entropy(one[:-1], ids[1:], reduction="none") for one, ids in both]).mean().item()
        assert row["loss"] == pytest.approx(loss, rel=2e-6)


@pytest.mark.slow
def test_a_translator(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.jsonl", pairs(40))
    flags = [*columns(path), "--test_file", path, "--student_layers", "1"]
    under, forward = {True: set(), False: set()}, MarianMTModel.forward

    @wraps(forward)
    def watched(self, *args, **kwargs):
        under[self.training].add(torch.is_autocast_enabled("cpu"))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MarianMTModel, "forward", watched)
    report, job, models = done(translation, tmp_path, *flags, "--alpha", "0")
    assert under == {True: {True}, False: {False}}  # trained under autocast, and only measured without
    assert report["mode"] == MODE
    model = AutoModelForSeq2SeqLM.from_pretrained(models["distilled"]).eval()
    for i, one in enumerate(report["examples"][:3]):
        batch = job.options["data_collator"]([job.splits["test"][i]])
        ids = model.generate(**{k: batch[k] for k in ("input_ids", "attention_mask")}, max_length=20)
        assert job.tokenizer.decode(ids[0], skip_special_tokens=True).strip() == one["distilled"]


@pytest.mark.slow
def test_vectors(tmp_path, monkeypatch):
    seen, plain = [], VectorScoring.measurement
    monkeypatch.setattr(
        VectorScoring, "measurement", lambda self, *found: (seen.append(found[0]), plain(self, *found))[1]
    )
    texts = [row["text"] for row in rows(60)]
    tokenizer = character_tokenizer(texts)
    tokenizer.save_pretrained(tmp_path / "teacher")
    torch.manual_seed(0)
    AutoModel.from_config(
        blank_bert(ModelArguments(teacher_layers=3, teacher_hidden_size=64), tokenizer)
    ).save_pretrained(tmp_path / "teacher")
    path = write(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    flags = ["--bf16", "1", "--use_cpu", "1", "--max_steps", "4", "--num_threads", "1", "--report_to", "none", *QUIET]
    files = ["--teacher_model_name_or_path", str(tmp_path / "teacher"), "--train_file", path, "--test_file", path]
    report = sentence_embeddings.RECIPE.main([*flags, *files, "--output_dir", str(tmp_path / "run")])
    for folder, vectors in (("teacher", seen[0]), ("run", seen[2])):
        model = AutoModel.from_pretrained(tmp_path / folder).eval()
        with torch.no_grad():
            pooled = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
        np.testing.assert_allclose(vectors, torch.stack(pooled).numpy(), atol=1e-5)
    assert report["mode"] == MODE


@pytest.mark.slow
def test_a_trainer_is_as_before_when_it_was_measured(tmp_path):
    path = write(tmp_path / "rows.jsonl", rows(60))
    flags = ["--train_file", path, "--output_dir", str(tmp_path / "run"), *FLAGS, "--bf16_full_eval", "1"]
    job = bert_chinese.RECIPE.prepare(flags)
    teacher = job.run(0.0) and str(next((tmp_path / "run").glob("_teacher-*")))
    trainer = job.distilled(teacher, job.args)
    trainer.train()
    asked, model = trainer.teacher, trainer.model
    before = (model.forward, trainer.accelerator.native_amp, trainer.args.alpha, list(trainer.accelerator._models))
    with as_published(trainer, {"distilled": trainer}) as models:
        assert "_original_forward" not in vars(models["distilled"])
        assert trainer.teacher is not asked
        assert trainer.predict(job.splits["test"]).predictions.dtype == np.float32
    assert model.dtype == torch.float32  # bf16_full_eval would have cast it in its place
    assert trainer.teacher is asked
    assert before == (
        model.forward, trainer.accelerator.native_amp, trainer.args.alpha, list(trainer.accelerator._models)
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="stop"), plainly(trainer):
        raise RuntimeError("stop")
    assert model.forward == before[0]


def test_a_student_that_learned_to_be_quantised_is(tmp_path):
    """Its figures are those of the folder that a user loads quantised, its trainer goes on as it was."""
    pytest.importorskip("torchao")
    run = tiny.trainer(tmp_path, args={"student_quantization": "int8"})
    prepared = run.model
    run.train()
    run.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, subfolder="quantized").eval()
    with plainly(run) as model:
        batch = run.data_collator([{"input_ids": [5, 6, 7]}])
        assert torch.equal(model.eval()(**batch).logits, loaded(**batch).logits)
        assert size_of(model) == size_of(loaded)
        found = run.predict(tiny.rows(4)).metrics
        assert "test_loss" in found
    assert run.model is prepared
    assert size_of(model)[0] == size_of(prepared)[0]
    assert 0.5 * size_of(prepared)[1] < size_of(model)[1] < 0.8 * size_of(prepared)[1]
