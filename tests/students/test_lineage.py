"""How a student was made, in its configuration and in words."""

import json

import tiny
from transformers import AutoModelForSequenceClassification, BertConfig

from hf_distill.students import keep_layers, lineage, trim_vocabulary


def test_steps_add_up_and_survive_saving(tmp_path):
    teacher = tiny.bert(layers=4)
    teacher.save_pretrained(tmp_path / "deep" / "wise-teacher")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "deep" / "wise-teacher")
    loaded.config._commit_hash = "0123456789abcdef"
    student = keep_layers(loaded, [1, 3])
    student, _ = trim_vocabulary(student, tiny.tokenizer(), ["w1 w2"])
    student.save_pretrained(tmp_path / "student")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert lineage(again) == [
        "Layers 1 and 3 of `wise-teacher` (revision `01234567`) were kept.",
        "Of the 32 tokens of `wise-teacher` (revision `01234567`) the 7 that a corpus needs were kept.",
    ]
    assert str(tmp_path) not in json.dumps(again.config.distillation)
    assert lineage(loaded) == lineage(teacher) == []


def test_a_name_on_the_hub_stays_whole():
    teacher = tiny.bert(layers=2)
    teacher.config._name_or_path = "google-bert/bert-base-chinese"
    assert keep_layers(teacher, 1).config.distillation == [
        {
            "step": "keep_layers",
            "teacher": "google-bert/bert-base-chinese",
            "revision": None,
            "layers": [0],
            "depth": 2,
        }
    ]


def test_a_student_does_not_write_into_its_teachers_past():
    first = keep_layers(tiny.bert(layers=3), 2)
    second = keep_layers(first, 1)
    second.config.distillation[0]["layers"].append(9)
    assert [len(model.config.distillation) for model in (first, second)] == [1, 2]
    assert first.config.distillation[0]["layers"] == [0, 2]


def test_a_step_that_is_not_known_is_still_said():
    steps = [{"step": "dreamt", "teacher": "big", "of": 3}, {"step": "keep_layers", "teacher": "big"}]
    assert lineage(BertConfig(distillation=steps)) == ["`dreamt` was done to `big` with {'of': 3}.",
                                                       "`keep_layers` was done to `big`."]  # fmt: skip
    assert lineage(object()) == []
