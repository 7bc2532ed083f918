"""The command that makes a student."""

import json

import datasets
import numpy as np
import pytest
import tiny
import tiny_clip
import tiny_images
import tiny_language
import tiny_processors
import tiny_segmenters
import tiny_speech
import tiny_vision_language
import torch
from datasets import Dataset
from default_run import slow_but
from huggingface_hub import ModelCard
from PIL import Image
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForSemanticSegmentation,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    Wav2Vec2FeatureExtractor,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

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


def test_a_budget(teacher, capsys):
    (teacher / "texts.txt").write_text("w1 w2 w3\nw3 w4 w9\n")
    assert command(teacher, parameters=0.25, calibration_file=teacher / "texts.txt") == 0
    said = capsys.readouterr().out
    student = AutoModelForSequenceClassification.from_pretrained(teacher / "small")
    assert student.num_parameters() <= 0.25 * tiny.bert(layers=6).num_parameters()
    assert student.config.hidden_size < 16
    assert [step["step"] for step in student.config.distillation] == ["keep_layers", "shrink_width", "fit_budget"]
    assert f"{student.num_parameters():,} of at most" in said
    assert "parameters 0.25." in said
    assert "of at most" in (teacher / "small" / "README.md").read_text(encoding="utf-8")


def test_a_budget_of_whole_layers_alone(teacher):
    assert command(teacher, megabytes=0.03) == 0
    config = AutoModelForSequenceClassification.from_pretrained(teacher / "small").config
    assert (config.num_hidden_layers, config.hidden_size) == (2, 16)


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
    (dict(latency_ms=3), "latency_ms was asked for: name some texts, or images, with --calibration_file."),
    (
        dict(parameters=0.5, layers=2, hidden_size=8),
        "layers, hidden_size was asked for beside a budget",
    ),
    (dict(parameters=0.5, num_heads=2), "num_heads was asked for beside a budget"),
    (dict(parameters=9), "a student of BertForSequenceClassification of at most 9 parameters was asked for, and the"),
    (dict(layers=9), "9 layers were asked of a model with 6: ask for 1 to 6."),
    (dict(layers="middle:2"), "layers=middle:2 was given: use a count, top:4"),
    (dict(layers="top:[1]"), "was given: use a count"),
    (dict(layers="x"), "was given: use a count"),
    (dict(hidden_size=8), "hidden_size was asked for: name some texts, or images, with --calibration_file."),
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


# ---- Teachers that read images ----

STAGED = {
    "resnet": lambda: tiny_images.resnet((2, 3)),
    "convnext": lambda: tiny_images.convnext(depths=[2, 3]),
    "swin": lambda: tiny_images.swin(depths=[2, 3]),
    "segformer": lambda: tiny_segmenters.segformer(depths=(2, 3)),
}


def processor():
    return ViTImageProcessorPil(size={"height": 16, "width": 16})


def of_images(folder, model):
    model.save_pretrained(folder / "teacher")
    processor().save_pretrained(folder / "teacher")
    return folder


def pictures(n=5):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (12, 20, 3), dtype=np.uint8)) for _ in range(n)]


def photos(folder, n=5):
    (folder / "photos" / "cats").mkdir(parents=True)
    for number, picture in enumerate(pictures(n)):
        picture.save(folder / "photos" / "cats" / f"{number}.png")
    (folder / "photos" / "notes.txt").write_text("no image")
    return folder / "photos"


def looks(folder, auto=AutoModelForImageClassification):
    """The student, with what its saved processor makes of an image gone through it."""
    student = auto.from_pretrained(folder / "small")
    pixels = AutoImageProcessor.from_pretrained(folder / "small")(pictures(1), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-1] == 16
    with torch.no_grad():
        assert student.eval()(pixel_values=pixels).logits.isfinite().all()
    return student


def test_layers_of_an_image_teacher_with_its_processor(tmp_path, capsys):
    of_images(tmp_path, tiny_images.vit(layers=4))
    assert command(tmp_path, layers="top:2") == 0
    assert "A student of teacher, a ViTForImageClassification: layers top:2." in capsys.readouterr().out
    assert looks(tmp_path).config.distillation[0]["layers"] == [2, 3]
    assert "- Layers 2 and 3 of `teacher` were kept." in ModelCard.load(tmp_path / "small" / "README.md").text


@pytest.mark.parametrize("kind", slow_but(["resnet"], STAGED))
@pytest.mark.parametrize(("asked", "kept"), [("[[1], [0, 2]]", [[1], [0, 2]]), ("[1, 2]", [1, 2]), ("3", [1, 2])])
def test_layers_of_each_stage(tmp_path, kind, asked, kept):
    teacher = STAGED[kind]()
    of_images(tmp_path, teacher)
    assert command(tmp_path, layers=asked) == 0
    segments = kind == "segformer"
    found = looks(tmp_path, AutoModelForSemanticSegmentation if segments else AutoModelForImageClassification)
    told = found.config.distillation[0]["layers"]
    assert told == kept if asked.startswith("[[") else [len(some) for some in told] == kept
    assert list(found.config.depths) == [len(some) for some in told]


@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_the_width_of_an_image_teacher_by_images(tmp_path, source, capsys):
    of_images(tmp_path, tiny_images.vit(width=16, layers=2))
    path, more = photos(tmp_path), {}
    if source == "parquet":
        path, more = tmp_path / "rows.parquet", {"image_column": "photo"}
        Dataset.from_dict({"photo": pictures(), "kind": [0, 1, 0, 1, 0]}).to_parquet(path)
    assert command(tmp_path, hidden_size=8, intermediate_size=10, calibration_file=path, **more) == 0
    config = looks(tmp_path).config
    assert (config.hidden_size, config.intermediate_size) == (8, 10)
    assert "By importance over 85 positions, `teacher` was cut: hidden size 16 to 8" in capsys.readouterr().out


def test_only_the_first_images_are_looked_at(tmp_path, capsys):
    of_images(tmp_path, tiny_images.vit(width=16, layers=2))
    path = photos(tmp_path)
    assert command(tmp_path, hidden_size=8, calibration_file=path, calibration_samples=2) == 0
    assert "By importance over 34 positions" in capsys.readouterr().out


BAD_IMAGES = [
    ("vit", dict(layers="[[0], [1]]"), "layers [[0], [1]] were asked of a model with one stack of 2: name some of 0"),
    ("vit", dict(layers=1, vocabulary_file="no.txt"), "which reads images and has no tokens: leave it out."),
    ("vit", dict(hidden_size=8), "name some texts, or images, with --calibration_file."),
    ("vit", dict(hidden_size=8, calibration_file="{}/none"), "there is no such file or folder: check the path."),
    ("vit", dict(hidden_size=8, calibration_file="{}/empty"), "which has none: name a folder or a file that has."),
    ("vit", dict(hidden_size=8, calibration_file="{}/rows.csv"), "images were asked from 'image': name a column of"),
    ("vit", dict(hidden_size=8, calibration_file="{}/bad"), "bad/1.png has an image that cannot be decoded"),
    (
        "vit",
        dict(hidden_size=8, calibration_file="{}/bad.parquet"),
        "row 1 of {}/bad.parquet has an image that cannot",
    ),
    ("resnet", dict(layers="[[0], [5]]"), "give for each stage how many stay"),
    ("resnet", dict(layers="[1, 1, 1]"), "whose 2 stages have [2, 3] layers"),
    ("resnet", dict(layers=1), "no stage may vanish: ask for 2 to 5"),
    ("resnet", dict(layers="[[0], [true]]"), "layers=[[0], [true]] was given: use a count"),
    ("resnet", dict(layers="[1, 1]", decoder_layers=1), "decoder_layers=1 was asked of ResNetForImageClassification"),
    ("resnet", dict(hidden_size=8, calibration_file="{}/photos"), "ResNetForImageClassification"),
    ("swin", dict(hidden_size=8, calibration_file="{}/photos"), "SwinForImageClassification"),
]


@pytest.mark.parametrize(("kind", "flags", "expected"), BAD_IMAGES, ids=range(len(BAD_IMAGES)))
def test_what_cannot_be_cut_of_an_image_teacher_is_one_sentence(tmp_path, capsys, kind, flags, expected):
    of_images(tmp_path, {"vit": tiny_images.vit, **STAGED}[kind]())
    photos(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    pictures(1)[0].save(tmp_path / "bad" / "0.png")
    whole = (tmp_path / "bad" / "0.png").read_bytes()
    (tmp_path / "bad" / "1.png").write_bytes(whole[:60])
    rows = Dataset.from_dict({"image": [{"bytes": whole, "path": None}, {"bytes": whole[:60], "path": None}]})
    rows.cast_column("image", datasets.Image(decode=False)).to_parquet(tmp_path / "bad.parquet")
    (tmp_path / "rows.csv").write_text("image\na.png\n")
    flags = {name: str(value).format(tmp_path) if "{}" in str(value) else value for name, value in flags.items()}
    capsys.readouterr()
    assert command(tmp_path, **flags) == 1
    *bars, said = capsys.readouterr().err.splitlines()
    assert not any("Error" in bar for bar in bars)
    assert said.startswith("hf-distill student: ")
    assert expected.replace("{}", str(tmp_path)) in said
    assert not (tmp_path / "small").exists()


def test_an_image_teacher_without_a_processor_is_refused(tmp_path, capsys):
    tiny_images.vit(layers=4).save_pretrained(tmp_path / "teacher")
    assert command(tmp_path, layers=2) == 1
    said = capsys.readouterr().err
    assert "there is no image processor that can be loaded beside it (preprocessor_config.json): save the one" in said
    assert said.count("\n") == 1


def test_an_image_teacher_of_timm_that_is_missing_is_told(tmp_path, capsys):
    (tmp_path / "teacher").mkdir()
    config = {"model_type": "timm_wrapper", "architecture": "resnet18", "architectures": ["ViTForImageClassification"]}
    (tmp_path / "teacher" / "config.json").write_text(json.dumps(config))
    assert command(tmp_path, layers=2) == 1
    said = capsys.readouterr().err
    assert "teacher has a backbone of timm, which is not installed: pip install timm, or use a checkpoint" in said
    assert said.count("\n") == 1


def of_both(folder, kind, whole=True):
    """A teacher of images and texts, with its processor or the tokenizer of it alone."""
    processor = getattr(tiny_processors, kind)()
    {"clip": tiny_clip.model, "llava": lambda: tiny_vision_language.model("llava")}[kind]().save_pretrained(
        folder / "teacher"
    )
    (processor if whole else processor.tokenizer).save_pretrained(folder / "teacher")
    return processor


def answers(model, processor, texts):
    """What a model of images and texts says of what its processor makes."""
    made = processor(text=texts, images=tiny_processors.pictures(len(texts)), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model.eval()(**{name: value for name, value in made.items() if name != "token_type_ids"})
    return found.logits_per_image if hasattr(found, "logits_per_image") else found.logits


@pytest.mark.parametrize(("kind", "auto"), [("clip", AutoModel), ("llava", AutoModelForImageTextToText)])
def test_layers_of_both_towers_with_the_processor_of_both(tmp_path, kind, auto, capsys):
    processor = of_both(tmp_path, kind)
    assert command(tmp_path, layers="top:1", vision_layers="[0]") == 0
    assert "layers top:1, vision layers [0]." in capsys.readouterr().out
    student, saved = auto.from_pretrained(tmp_path / "small"), AutoProcessor.from_pretrained(tmp_path / "small")
    told = student.config.distillation[0]
    assert (told["layers"], told["vision_layers"]) == ([1], [0])
    assert (student.config.get_text_config().num_hidden_layers, student.config.vision_config.num_hidden_layers) == (
        1,
        1,
    )
    assert type(saved) is type(processor)
    assert saved.image_processor.to_dict() == processor.image_processor.to_dict()
    text = ["<image> w1 w2", "w3 <image>"] if kind == "llava" else ["w1 w2", "w3"]
    torch.testing.assert_close(answers(student, saved, text), answers(student, processor, text))


def test_the_tower_of_images_alone_is_cut(tmp_path):
    of_both(tmp_path, "clip")
    assert command(tmp_path, vision_layers=1) == 0
    config = AutoModel.from_pretrained(tmp_path / "small").config
    assert (config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers) == (2, 1)


@pytest.mark.parametrize(("kind", "auto"), [("clip", AutoModel), ("llava", AutoModelForImageTextToText)])
def test_the_vocabulary_of_a_model_of_both_is_cut_with_its_processor(tmp_path, kind, auto):
    processor = of_both(tmp_path, kind)
    (tmp_path / "texts.txt").write_text("w1 w2\nw3\n")
    assert command(tmp_path, vocabulary_file=tmp_path / "texts.txt") == 0
    student, saved = auto.from_pretrained(tmp_path / "small"), AutoProcessor.from_pretrained(tmp_path / "small")
    text = ["<image> w1 w2", "w3 <image>"] if kind == "llava" else ["w1 w2", "w3"]
    found, wanted = answers(student, saved, text), answers(auto.from_pretrained(tmp_path / "teacher"), processor, text)
    size = student.config.get_text_config().vocab_size
    assert size == len(saved.tokenizer) < len(processor.tokenizer)
    if kind == "llava":
        wanted = wanted[..., [processor.tokenizer.convert_tokens_to_ids(saved.tokenizer.convert_ids_to_tokens(i))
                              for i in range(size)]]  # fmt: skip
    torch.testing.assert_close(found, wanted)


def test_a_teacher_of_images_and_texts_without_a_whole_processor_keeps_its_tokenizer(tmp_path, caplog):
    of_both(tmp_path, "clip", whole=False)
    assert command(tmp_path, layers=1) == 0
    assert "beside it there is no whole processor but a BertTokenizer, with which the student is saved" in caplog.text
    assert AutoTokenizer.from_pretrained(tmp_path / "small").get_vocab()["w44"] == 48


@pytest.mark.parametrize("kind", ["ast", "wav2vec2"])
def test_layers_of_an_audio_teacher_with_its_feature_extractor(tmp_path, kind):
    auto, model, extractor = {
        "ast": (
            AutoModelForAudioClassification,
            tiny_speech.ast(),
            ASTFeatureExtractor(num_mel_bins=8, max_length=16),
        ),
        "wav2vec2": (AutoModel, tiny_speech.wav2vec2(), Wav2Vec2FeatureExtractor(padding_value=0.5)),
    }[kind]
    model.save_pretrained(tmp_path / "teacher")
    extractor.save_pretrained(tmp_path / "teacher")
    assert command(tmp_path, layers=1) == 0
    assert auto.from_pretrained(tmp_path / "small").config.num_hidden_layers == 1
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "small").to_dict() == extractor.to_dict()


@pytest.mark.parametrize(
    ("kind", "flags", "expected"),
    [
        (
            "clip",
            dict(layers="top:1", vision_layers="lowest:1"),
            "layers by top and vision_layers by lowest were asked",
        ),
        ("clip", dict(vision_layers=3), "3 layers were asked of a model's vision tower with 2: ask for 1 to 2."),
        ("clip", dict(hidden_size=8, calibration_file="{}/t.txt"), "the width of CLIPModel was to be cut"),
        ("ast", dict(vocabulary_file="{}/t.txt"), "beside which there is no tokenizer to read its texts by: leave it"),
        (
            "bare",
            dict(layers=1),
            "reads input_values, and there is no processor that can be loaded beside it: save the",
        ),
        ("bert", dict(vision_layers=1), "0 stacks of layers read images beside a text"),
    ],
)
def test_what_cannot_be_cut_of_other_teachers_is_one_sentence(tmp_path, capsys, kind, flags, expected):
    if kind == "clip":
        of_both(tmp_path, kind)
    elif kind == "bert":
        tiny.bert(layers=2).save_pretrained(tmp_path / "teacher")
        tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    else:
        {"ast": tiny_speech.ast, "bare": tiny_speech.wav2vec2}[kind]().save_pretrained(tmp_path / "teacher")
    if kind == "ast":
        ASTFeatureExtractor(num_mel_bins=8, max_length=16).save_pretrained(tmp_path / "teacher")
    (tmp_path / "t.txt").write_text("w1 w2\n")
    assert command(tmp_path, **{name: str(value).format(tmp_path) for name, value in flags.items()}) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hf-distill student: ")
    assert expected in said
    assert not (tmp_path / "small").exists()
