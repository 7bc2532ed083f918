"""The card that any distillation run writes, with and without a report."""

import pytest
import tiny
import tiny_tasks
from datasets import Dataset
from hub_server import hub, reached
from huggingface_hub import ModelCard, ModelCardData, constants
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification

from hf_distill.hub.provenance import Origin
from hf_distill.students import fresh_student, keep_layers

REPORT = {
    "dataset": "some reviews",
    "language": "zh",
    "rows": {"test": 1234},
    "summary": "gain +1.0 ± 0.1 points, gap to the teacher 2.0 ± 0.2: 50 ± 5 % of the gap closed",
    "machine": "a machine",
    "table": "| model | accuracy |\n| :---- | -------: |\n| distilled | 80.0 |",
    "models": [{"name": "distilled", "accuracy": 0.80004, "macro_f1": 0.7}],
}


def card(folder, **parts):
    run = tiny.trainer(folder, teacher_model=tiny.teacher(), **parts)
    run.train()
    return run


def test_without_a_report_it_says_how_and_claims_nothing(tmp_path):
    run = card(tmp_path, objective={"forward_kl": {"temperature": 3.0}, "jsd": {"weight": 0.5}}, args={"alpha": 0.3})
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert {"hf_distill", "knowledge-distillation", "generated_from_trainer"} <= set(loaded.data.tags)
    assert loaded.data.eval_results is None
    assert "alpha = 0.3, temperature 2" in text
    assert "`forward_kl` with weight 1, ForwardKL(temperature=3.0)" in text
    assert "`jsd` with weight 0.5, JSD(beta=0.5, temperature=2.0)" in text
    assert "Did the teacher help?" not in text
    assert "How it was made" not in text
    assert "More information needed" not in text
    assert "### Training results" not in text  # nothing was evaluated: Trainer leaves the section empty
    assert "learning_rate: 0.01" in text  # Trainer's own section stays


def test_data_that_a_person_names_are_named_so(tmp_path):
    run = card(tmp_path)
    run.report = REPORT
    run.create_model_card(model_name="Reviews, small", dataset="Hotel reviews")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.text.lstrip().startswith("# Reviews, small\n")
    assert "On the test rows of Hotel reviews (1,234 rows)" in loaded.text
    assert {one.dataset_name for one in loaded.data.eval_results} == {"Hotel reviews"}
    assert "some reviews" not in loaded.content


def test_a_report_becomes_a_table_and_results(tmp_path):
    run = card(tmp_path)
    run.report = REPORT
    run.create_model_card(language="zh", license="mit")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert (loaded.data.language, loaded.data.license) == ("zh", "mit")
    assert [(r.metric_type, r.metric_value) for r in loaded.data.eval_results] == [("accuracy", 0.8), ("f1", 0.7)]
    text = loaded.text
    for part in ("(1,234 rows)", REPORT["table"], "Gain +1.0 ± 0.1 points", "report.png", "1 layer of width 16"):
        assert part in text, part


def test_a_second_card_replaces_the_first(tmp_path):
    run = card(tmp_path)
    run.create_model_card()
    first = (tmp_path / "README.md").read_text(encoding="utf-8")
    run.create_model_card()
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == first


def test_a_local_teacher_is_named_without_its_folder(tmp_path):
    tiny.teacher().save_pretrained(tmp_path / "deep" / "wise-teacher")
    run = tiny.trainer(tmp_path / "run", teacher_model=str(tmp_path / "deep" / "wise-teacher"))
    run.create_model_card()
    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "Teacher: `wise-teacher`, 2 layers of width 24" in text
    assert str(tmp_path / "deep") not in text


def test_a_student_says_how_it_was_made(tmp_path):
    made = keep_layers(keep_layers(tiny.bert(layers=4), [0, 1, 3]), 2, preset="top")
    run = card(tmp_path, student=made)
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "\n- How it was made: Layers 0, 1 and 3 of `BertForSequenceClassification` were kept."
        "\n- How it was made: Layers 1 and 2 of `BertForSequenceClassification` were kept."
        "\n- Teacher: "
    ) in text
    adapted = get_peft_model(keep_layers(tiny.bert(layers=2), 1), LoraConfig(r=2, target_modules="all-linear"))
    card(tmp_path / "lora", student=adapted).create_model_card()
    assert "How it was made: Layer 0 of" in (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")


def test_a_student_that_learned_to_be_quantised_says_its_size(tmp_path):
    pytest.importorskip("torchao")
    run = card(tmp_path, args={"student_quantization": {"weights": "int4", "group_size": 8}})
    run.save_model()
    run.create_model_card()
    size = (tmp_path / "quantized" / "model.safetensors").stat().st_size / 1e6
    told = f"- It learned to compute with int4 weights in groups of 8; `quantized` holds it in {size:.2f} MB: load it"
    assert told in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_an_adapter_is_loaded_with_peft(tmp_path):
    student = get_peft_model(tiny.bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    run = card(tmp_path, student=student)
    run.create_model_card()
    assert "AutoPeftModelForSequenceClassification.from_pretrained(" in (tmp_path / "README.md").read_text()


def test_without_a_teacher_the_card_is_trainers(tmp_path):
    run = tiny.trainer(tmp_path)
    run.create_model_card()
    assert "hf_distill" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_what_only_rides_on_the_student_is_not_counted_and_not_shown(tmp_path):
    run = card(tmp_path, student=tiny.bert(width=200), objective={"hidden_mse": 1.0, "forward_kl": 1.0})
    carried = sum(p.numel() for p in run.distillation.objective.parameters())
    whole = sum(p.numel() for p in run.model.parameters())
    assert round(whole / 1e6, 2) != round((whole - carried) / 1e6, 2)
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"{(whole - carried) / 1e6:.2f} M parameters" in text
    assert "HiddenMSE(pairs=[(0, 0), (1, 2)]) (Romero" in text


def cached(patch, folder, name, commit="1" * 40, **metadata):
    """Put a model with a card where the client keeps what it has of the Hub, and load it by its id."""
    patch.setattr(constants, "HF_HUB_CACHE", str(folder))
    repository = folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    tiny.bert(layers=2).save_pretrained(snapshot)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    ModelCard.from_template(ModelCardData(**metadata), template_str="---\n{{ card_data }}\n---\n").save(
        snapshot / "README.md"
    )
    return BertForSequenceClassification.from_pretrained(name)


def carded(folder, student, teacher, **report):
    run = tiny.trainer(folder, student, teacher_model=teacher, args={"max_steps": 1})
    run.report = report
    run.create_model_card()
    return ModelCard.load(folder / "README.md")


def test_a_student_of_the_hub_names_its_base_and_inherits_what_the_base_says(tmp_path, monkeypatch):
    base = cached(monkeypatch, tmp_path / "hub", "me/base", license="mit", language=["zh", "en"])
    data = carded(tmp_path / "plain", base, tiny.teacher()).data
    assert (data.base_model, data.base_model_relation) == ("me/base", "finetune")
    assert (data.license, data.language) == ("mit", ["zh", "en"])
    short = keep_layers(base, 1)
    short.save_pretrained(tmp_path / "short")
    again = BertForSequenceClassification.from_pretrained(tmp_path / "short")
    card = carded(tmp_path / "kept", again, base)
    assert (card.data.base_model, card.data.base_model_relation) == ("me/base", "finetune")
    where = "[`me/base`](https://huggingface.co/me/base) (revision `11111111`)"
    for line in (f"Its weights began as: {where}\n", f"- Teacher: {where}, 2 layers of width 16\n", "`me/base`: mit"):
        assert line in card.text, line


def test_a_teacher_is_no_base_of_a_student_that_it_only_taught(tmp_path, monkeypatch):
    teacher = cached(monkeypatch, tmp_path / "hub", "me/big", license="other", license_name="own", language="zh")
    card = carded(tmp_path / "run", fresh_student(teacher, num_hidden_layers=1), teacher)
    assert card.data.base_model is None
    assert "base_model_relation" not in card.data
    assert (card.data.license, card.data.license_name, card.data.language) == ("other", "own", "zh")


def test_the_readme_of_the_working_folder_is_nobodys_card(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nlicense: gpl-3.0\nlanguage: fr\n---\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Origin.of("", None) == Origin("")


def test_licences_that_differ_are_told_and_none_is_set(tmp_path, monkeypatch):
    base = cached(monkeypatch, tmp_path / "hub", "me/base", license="mit")
    teacher = cached(monkeypatch, tmp_path / "hub", "me/big", license="apache-2.0")
    card = carded(tmp_path / "run", base, teacher)
    assert card.data.license is None
    assert "No licence is set" in card.text
    assert "`me/base`: mit; `me/big`: apache-2.0." in card.text
    unknown = cached(monkeypatch, tmp_path / "hub", "me/gated")
    card = carded(tmp_path / "unknown", unknown, teacher)
    assert card.data.license is None
    assert "`me/gated`: not known; `me/big`: apache-2.0." in card.text
    card = carded(tmp_path / "said", base, teacher, license="cc-by-4.0")
    assert card.data.license == "cc-by-4.0"
    assert "licence" not in card.text.lower()


def test_a_folder_is_nobodys_base_but_its_card_is_read(tmp_path):
    tiny.bert().save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("---\nlicense: mit\nlanguage: zh\n---\n")
    student = BertForSequenceClassification.from_pretrained(tmp_path / "mine")
    adapter = get_peft_model(student, LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    run = tiny.trainer(tmp_path / "run", adapter, teacher_model=tiny.teacher())
    run.save_model()  # PEFT has written a card of its own, with the folder as base model and as tag
    assert str(tmp_path) in (tmp_path / "run" / "README.md").read_text()
    run.create_model_card()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert (card.data.license, card.data.language, card.data.base_model) == ("mit", "zh", None)
    assert str(tmp_path) not in card.content


def test_the_hub_takes_what_a_report_says(tmp_path, monkeypatch):
    found = {
        "datasets": ["me/reviews"], "dataset_revision": "ab12", "split": "validation", "license": "mit",
        "pictures": {"report.png": "Accuracy", "layers.png": "Layer by layer"},
    }  # fmt: skip
    card = carded(tmp_path, None, tiny.teacher(), **REPORT, **found)
    with hub() as server, reached(server, monkeypatch, tmp_path / "cache"):
        card.validate()
        card.data.base_model = str(tmp_path)
        with pytest.raises(ValueError, match=r"base_model.*is not valid"):
            card.validate()
    (result, other) = card.data.eval_results
    assert (result.dataset_type, result.dataset_name, result.dataset_split) == (
        "me/reviews",
        "some reviews",
        "validation",
    )
    assert (result.dataset_revision, result.metric_name, other.metric_name) == ("ab12", "accuracy", "macro f1")
    assert (card.data.datasets, card.data.metrics) == (["me/reviews"], ["accuracy", "f1"])
    assert "![Accuracy](report.png)\n\n![Layer by layer](layers.png)\n" in card.text
    assert "(https://arxiv.org/abs/1503.02531)" in card.text  # the Hub finds papers by links


def test_a_score_that_is_no_number_is_no_result(tmp_path):
    rows = [{**row, "accuracy": float("nan")} for row in REPORT["models"]]
    (result,) = carded(tmp_path, None, tiny.teacher(), **{**REPORT, "models": rows}).data.eval_results
    assert result.metric_type == "f1"


def test_a_data_set_of_files_is_not_taken_for_one_of_the_hub(tmp_path):
    rows = Dataset.from_generator(lambda: iter(tiny.rows()), cache_dir=str(tmp_path / "cache"))
    run = tiny.trainer(tmp_path, data=rows, teacher_model=tiny.teacher())
    run.create_model_card()
    assert ModelCard.load(tmp_path / "README.md").data.datasets is None  # Trainer says "generator"


def test_a_task_with_a_pipeline_shows_it(tmp_path):
    for name, shown in (("masked", 'pipeline("fill-mask"'), ("spans", None)):  # the latter's was given up
        run = tiny_tasks.trainer(tmp_path / name, name)
        run.create_model_card()
        text = (tmp_path / name / "README.md").read_text()
        assert (shown in text) if shown else ("pipeline" not in text.partition("## How to use it")[2])


def test_a_pair_is_shown_as_a_pair(tmp_path):
    pairs = [{**row, "token_type_ids": [i % 2 for i in range(len(row["input_ids"]))]} for row in tiny.rows()]
    for name, data, shown in (("one", tiny.rows(), 'model("Some text'), ("two", pairs, 'model({"text": ')):
        run = tiny.trainer(tmp_path / name, data=data, teacher_model=tiny.teacher())
        run.create_model_card()
        assert shown in (tmp_path / name / "README.md").read_text(encoding="utf-8")


def test_the_step_of_the_best_model_is_told(tmp_path):
    args = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    args |= {"learning_rate": 30.0, "lr_scheduler_type": "constant"}  # so high that the first step is the best
    for best in (True, False):
        run = tiny.trainer(tmp_path / str(best), teacher_model=tiny.teacher(), eval_dataset=tiny.rows(),
                           args={**args, "load_best_model_at_end": best})  # fmt: skip
        run.train()
        run.create_model_card()
        text = (tmp_path / str(best) / "README.md").read_text(encoding="utf-8")
        losses = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
        step = min(losses, key=losses.get)
        assert step < 4
        said = f"- Its weights are those of step {step} of 4, the best by `eval_loss`: {losses[step]:.4g}\n"
        assert (said in text) is best
        assert ("Its weights are those of" in text) is best
