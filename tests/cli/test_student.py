"""The command that makes a student."""

import json

import pytest
import tiny
import tiny_language
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_distill import cli
from hf_distill.cli import student
from hf_distill.students import lineage


@pytest.fixture
def teacher(tmp_path):
    tiny.bert(layers=6).save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    return tmp_path


def command(folder, **more):
    words = {"teacher": folder / "teacher", "output": folder / "small", **more}
    return cli.main(["student", *(str(word) for name, value in words.items() for word in (f"--{name}", value))])


def test_some_layers_with_a_tokenizer_and_a_card(teacher, capsys):
    assert command(teacher, layers=3) == 0
    said = capsys.readouterr().out
    assert "A student of teacher, a BertForSequenceClassification: layers 3." in said
    assert "Layers 0, 2 and 5 of `teacher` were kept." in said
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    student = AutoModelForSequenceClassification.from_pretrained(teacher / "small")
    count = sum(p.numel() for p in student.parameters())
    assert f"{count:,}" in rows[2]
    assert student.config.num_hidden_layers == 3
    assert AutoTokenizer.from_pretrained(teacher / "small").get_vocab() == tiny.tokenizer().get_vocab()
    card = ModelCard.load(teacher / "small" / "README.md")
    assert "- Layers 0, 2 and 5 of `teacher` were kept." in card.text
    assert rows[2] in card.text
    assert "hf_distill" in card.data.tags
    assert str(teacher) not in card.content


def test_what_the_teachers_card_says_goes_for_a_part_of_it(teacher):
    said = "---\nlicense: other\nlicense_name: own\nlanguage: zh\ntags:\n- theirs\n---\n# teacher\n"
    (teacher / "teacher" / "README.md").write_text(said, encoding="utf-8")
    assert command(teacher, layers=3) == 0
    data = ModelCard.load(teacher / "small" / "README.md").data
    assert (data.license, data.license_name, data.language) == ("other", "own", "zh")
    assert (data.tags, data.base_model) == (["hf_distill", "knowledge-distillation"], None)


@pytest.mark.parametrize(("asked", "kept"), [("top:2", [4, 5]), ("lowest:2", [0, 1]), ("[1, 4]", [1, 4])])
def test_layers_by_preset_or_by_name(teacher, asked, kept):
    assert command(teacher, layers=asked) == 0
    student = AutoModelForSequenceClassification.from_pretrained(teacher / "small")
    assert student.config.distillation[0]["layers"] == kept


def test_layers_width_and_vocabulary_from_a_settings_file(teacher, capsys):
    (teacher / "texts.txt").write_text("w1 w2 w3\n\nw3 w4\n")
    (teacher / "rows.jsonl").write_text("\n".join(json.dumps({"sentence": f"w{i} w{i + 1} w2"}) for i in range(20)))
    settings = [
        f"teacher: {teacher / 'teacher'}", f"output: {teacher / 'small'}", "layers: [0, 5]", "hidden_size: 8",
        "intermediate_size: 10", f"calibration_file: {teacher / 'rows.jsonl'}", "text_column: sentence",
        f"vocabulary_file: {teacher / 'texts.txt'}",
    ]  # fmt: skip
    (teacher / "student.yaml").write_text("\n".join(settings))
    assert cli.main(["student", str(teacher / "student.yaml")]) == 0
    student = AutoModelForSequenceClassification.from_pretrained(teacher / "small")
    tokenizer = AutoTokenizer.from_pretrained(teacher / "small")
    config = student.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 8, 10)
    assert config.vocab_size == len(tokenizer) == 9
    assert [step["step"] for step in config.distillation] == ["keep_layers", "shrink_width", "trim_vocabulary"]
    assert len(lineage(student)) == 3
    with torch.no_grad():
        assert student(**tokenizer("w3 w9", return_tensors="pt")).logits.isfinite().all()


def test_pairs_of_texts_are_read_as_pairs(teacher, monkeypatch):
    data = [{"text": f"w{i}", "pair": f"w{i + 12} w1", "n": i} for i in range(8)]
    (teacher / "rows.jsonl").write_text("\n".join(map(json.dumps, [*data, {"text": "w9", "pair": None, "n": 9}])))
    read, plain = [], student.batches_of
    monkeypatch.setattr(student, "batches_of", lambda *a: (read.extend(found := plain(*a)), found)[1])
    files = {"calibration_file": teacher / "rows.jsonl", "vocabulary_file": teacher / "rows.jsonl"}
    assert command(teacher, **files, intermediate_size=10, text_pair_column="pair") == 0
    tokenizer = tiny.tokenizer()
    expected = [tokenizer(row["text"], row["pair"])["input_ids"] for row in data]
    rows = zip(read[0]["input_ids"], read[0]["attention_mask"], strict=True)
    assert [row[mask.bool()].tolist() for row, mask in rows] == expected
    kept = AutoTokenizer.from_pretrained(teacher / "small").get_vocab()
    assert {"w3", "w15", "w1"} <= kept.keys()
    assert not {"w9", "w23"} & kept.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rows.jsonl", "has the columns ['text'], 'pair' was asked for: name one with --text_column and --text_pair"),
        ("texts.txt", "text_pair_column=pair was given, and"),
    ],
)
def test_a_second_text_that_is_not_there(teacher, capsys, name, message):
    (teacher / name).write_text('{"text": "w1"}\n')
    assert command(teacher, vocabulary_file=teacher / name, text_pair_column="pair") == 1
    assert message in capsys.readouterr().err


def test_an_encoder_decoder(tmp_path):
    tiny_language.t5(layers=4).save_pretrained(tmp_path / "teacher")
    tiny_language.tokenizer().save_pretrained(tmp_path / "teacher")
    assert command(tmp_path, decoder_layers="lowest:1") == 0
    student = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "small")
    assert (student.config.num_layers, student.config.num_decoder_layers) == (4, 1)


def test_a_model_is_never_written_over(teacher, capsys):
    assert command(teacher, layers=3) == 0
    before = (teacher / "small" / "model.safetensors").read_bytes()
    assert command(teacher, layers=2) == 1
    assert "is there already and holds something: name a new folder" in capsys.readouterr().err
    assert (teacher / "small" / "model.safetensors").read_bytes() == before


BAD = [
    (dict(), "no part of the teacher was asked for: give --layers"),
    (dict(layers=9), "9 layers were asked of a model with 6: ask for 1 to 6."),
    (dict(layers="middle:2"), "layers=middle:2 was given: use a count, top:4"),
    (dict(layers="top:[1]"), "was given: use a count"),
    (dict(layers="x"), "was given: use a count"),
    (dict(hidden_size=8), "hidden_size was asked for: name some texts with --calibration_file."),
    (dict(hidden_size=8, calibration_file="no.txt"), "texts were asked from no.txt, there is no such file"),
    (dict(vocabulary_file="no.txt"), "texts were asked from no.txt, there is no such file"),
    (dict(layers="top:1", decoder_layers="lowest:1"), "one preset is for both"),
    (dict(layers=1, decoder_layers=1), "which has one stack of layers"),
]


@pytest.mark.parametrize(("flags", "expected"), BAD)
def test_errors_are_one_sentence_and_leave_nothing(teacher, capsys, flags, expected):
    assert command(teacher, **flags) == 1
    said = capsys.readouterr().err
    assert said.startswith("hf-distill student: ")
    assert expected in said
    assert said.count("\n") == 1
    assert not (teacher / "small").exists()


def test_a_column_that_is_not_there(teacher, capsys):
    (teacher / "rows.jsonl").write_text(json.dumps({"sentence": "w1"}))
    assert command(teacher, vocabulary_file=teacher / "rows.jsonl") == 1
    assert "has the columns ['sentence'], 'text' was asked for: name one with --text_column" in capsys.readouterr().err
