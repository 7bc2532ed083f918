"""The card that any distillation run writes, with and without a report."""

import tiny
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model

from hf_distill.students import keep_layers

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
    carried = sum(p.numel() for p in run.distillation.parameters())
    whole = sum(p.numel() for p in run.model.parameters())
    assert round(whole / 1e6, 2) != round((whole - carried) / 1e6, 2)
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"{(whole - carried) / 1e6:.2f} M parameters" in text
    assert "HiddenMSE(pairs=[(0, 0), (1, 2)]) (Romero" in text
