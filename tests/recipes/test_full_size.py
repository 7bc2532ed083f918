"""The full-size settings of recipes on images, recordings, pairs and questions, each run whole with tiny models."""

from pathlib import Path

import numpy as np
import pytest
import tiny_clip
import tiny_detectors
import tiny_images
import tiny_segmenters
import tiny_speech
import tiny_waves
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForImageTextToText,
    BertTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
    RTDetrImageProcessor,
    SegformerImageProcessor,
    ViTImageProcessor,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments.data.recordings import STORED
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.experiments.vision_language import VisionLanguageArguments, blank_llava, small_processor

RECIPES = {
    name: recipe_module(name)
    for name in (
        "image_classification", "segmentation", "object_detection", "speech_classification", "speech_ctc",
        "distil_whisper", "image_text", "image_generation", "vision_language",
    )
}  # fmt: skip
HERE = ["--bf16", "0", "--push_to_hub", "0", "--dataloader_num_workers", "0", "--report_to", "none"]
SMALL = ["--max_steps", "2", "--num_threads", "1", "--disable_tqdm", "1", "--logging_steps", "1"]
ALL = 24


def saved(folder, *parts):
    for one in parts:
        one.save_pretrained(folder)
    return str(folder)


def pictures(n=ALL, side=24, bands="RGB"):
    draw = np.random.default_rng(0)
    made = [np.kron(draw.integers(0, 3, (3, 3)), np.ones((side // 3, side // 3))).astype(np.uint8) for _ in range(n)]
    return [Image.fromarray(80 * one).convert(bands) if bands == "RGB" else Image.fromarray(one) for one in made]


def written(folder, columns, **features):
    path = folder / "rows.parquet"
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return ["--train_file", str(path)]


def classified(folder):
    kinds = ViTImageProcessor(size={"height": 16, "width": 16})
    columns = {"image": pictures(), "label": [i % 3 for i in range(ALL)]}
    return [
        *written(folder, columns, image=ImageFeature(), label=ClassLabel(names=["a", "b", "c"])),
        "--teacher_model_name_or_path", saved(folder / "teacher", tiny_images.vit(), kinds),
        "--student_model_name_or_path", saved(folder / "student", tiny_images.deit(), kinds),
    ]  # fmt: skip


def mapped(folder):
    kinds = SegformerImageProcessor(size={"height": 16, "width": 16})
    columns = {"image": pictures(), "mask": pictures(bands="L")}
    return [
        *written(folder, columns, image=ImageFeature(), mask=ImageFeature()),
        "--teacher_model_name_or_path", saved(folder / "teacher", tiny_segmenters.segformer((16, 16)), kinds),
        "--student_model_name_or_path", saved(folder / "student", tiny_segmenters.segformer(), kinds),
    ]  # fmt: skip


def boxed(folder):
    kinds = RTDetrImageProcessor(size={"height": 32, "width": 32})
    objects = [{"bbox": [[2.0, 3.0, 9.0 + i % 3, 8.0]], "category": [i % 3]} for i in range(ALL)]
    told = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=["a", "b", "c"]))}
    return [
        *written(folder, {"image": pictures(), "objects": objects}, image=ImageFeature(), objects=told),
        "--teacher_model_name_or_path", saved(folder / "teacher", tiny_detectors.rtdetr(layers=2), kinds),
        "--student_model_name_or_path", saved(folder / "student", tiny_detectors.rtdetr(), kinds),
    ]  # fmt: skip


def recorded(seconds=0.15):
    waves = [tiny_waves.wav(tiny_waves.sine(seconds, 200 + 100 * (i % 3))) for i in range(ALL)]
    return [{"bytes": one, "path": None} for one in waves]


def spoken(folder):
    for number, one in enumerate(recorded()):
        kind = folder / "words" / "abc"[number % 3]
        kind.mkdir(parents=True, exist_ok=True)
        (kind / f"{number}.wav").write_bytes(one["bytes"])
    models = [tiny_speech.wav2vec2(kind=Wav2Vec2ForSequenceClassification, layers=n) for n in (2, 1)]
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    return [
        "--train_file", str(folder / "words"),
        "--teacher_model_name_or_path", saved(folder / "teacher", models[0], extractor),
        "--student_model_name_or_path", saved(folder / "student", models[1], extractor),
    ]  # fmt: skip


def lettered(folder):
    letters = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5, "B": 6, "C": 7}
    (folder / "vocab.json").write_text(str(letters).replace("'", '"'))
    processor = Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(return_attention_mask=True), Wav2Vec2CTCTokenizer(folder / "vocab.json")
    )
    columns = {"audio": recorded(), "text": ["a cab", "ab", "c"] * (ALL // 3)}
    return [
        *written(folder, columns, audio=STORED, text=Value("string")),
        "--teacher_model_name_or_path", saved(folder / "teacher", tiny_speech.wav2vec2(layers=4), processor),
        "--student_layers", "2",
    ]  # fmt: skip


def dictated(folder):
    special = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    letters = {one: i for i, one in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], unk_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.set_prefix_tokens(language="en", task="transcribe", predict_timestamps=False)
    start, end = tokenizer.convert_tokens_to_ids([special[0], "<|endoftext|>"])
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    model = tiny_speech.whisper(
        layers=3, vocab_size=len(tokenizer), max_source_positions=50, max_target_positions=140, **ids
    )
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    columns = {"audio": recorded(), "text": ["One.", "Two."] * (ALL // 2)}
    return [
        *written(folder, columns, audio=STORED, text=Value("string")),
        "--teacher_model_name_or_path", saved(folder / "teacher", model, WhisperProcessor(extractor, tokenizer)),
        "--generation_max_length", "12",
    ]  # fmt: skip


def captioned(folder):
    words = {one: i for i, one in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一二三四五六七八九十图"])}
    tokenizer = BertTokenizer(vocab=words, model_max_length=16)
    size = {"height": 8, "width": 8}
    processor = ChineseCLIPProcessor(ChineseCLIPImageProcessor(size=size, crop_size=size), tokenizer)
    captions = [f"图{'一二三四五六七八'[i % 8]}{'九十'[i // 8 % 2]}" for i in range(ALL)]
    columns = {"image": pictures(), "caption": captions}
    models = [tiny_clip.model("chinese_clip", width) for width in (32, 16)]
    return [
        *written(folder, columns, image=ImageFeature(), caption=Value("string")),
        "--teacher_model_name_or_path", saved(folder / "teacher", models[0], processor),
        "--student_model_name_or_path", saved(folder / "student", models[1], processor),
        "--max_length", "16",
    ]  # fmt: skip


def painted(folder):
    import tiny_denoisers  # which skips its test where diffusers is missing

    model = tiny_denoisers.unet(2, in_channels=3, out_channels=3, sample_size=24, num_class_embeds=None)
    model.save_pretrained(folder / "teacher" / "unet")
    tiny_denoisers.ddpm().save_pretrained(folder / "teacher" / "scheduler")
    columns = {"img": pictures(), "label": [i % 3 for i in range(ALL)]}
    return [
        *written(folder, columns, img=ImageFeature(), label=ClassLabel(names=["a", "b", "c"])),
        "--teacher_model_name_or_path", str(folder / "teacher"), "--samples", "40", "--sampling_steps", "2",
    ]  # fmt: skip


def charted(folder):
    sizes = VisionLanguageArguments(image_size=8, patch_size=4, teacher_layers=2, teacher_hidden_size=32)
    processor = small_processor(["how high is the bar ?", "high", "low"] * 2, 8, 4, 64)
    models = [AutoModelForImageTextToText.from_config(blank_llava(sizes, processor)) for _ in range(2)]
    columns = {
        "image": pictures(),
        "query": ["how high is the bar ?"] * ALL,
        "label": [["high"], ["low"]] * (ALL // 2),
    }
    return [
        *written(folder, columns, image=ImageFeature(), query=Value("string"), label=List(Value("string"))),
        "--teacher_model_name_or_path", saved(folder / "teacher", models[0], processor),
        "--student_model_name_or_path", saved(folder / "student", models[1], processor),
    ]  # fmt: skip


MADE = (classified, mapped, boxed, spoken, lettered, dictated, captioned, painted, charted)
ROWS = dict(zip(RECIPES, MADE, strict=True))


def settings(name):
    return str(Path(RECIPES[name].__file__).with_suffix(".yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_they_are_valid(name, tmp_path):
    recipe = RECIPES[name].RECIPE
    types = [RECIPES[name].Arguments, RECIPES[name].TrainingArguments]
    found, args = parse_arguments(types, [settings(name), "--bf16", "0", "--output_dir", str(tmp_path)])
    assert found.teacher_model_name_or_path
    assert args.push_to_hub
    assert args.load_best_model_at_end is (name != "image_generation")  # of which no cheap figure is a good one
    assert recipe.name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_little_job_under_them_runs_whole(name, tmp_path):
    """Every setting but the models and the rows is that of the file: warm-up, evaluation, checkpoints, best model."""
    flags = [*HERE, *SMALL, "--output_dir", str(tmp_path / "run"), *ROWS[name](tmp_path)]
    report = RECIPES[name].RECIPE.main([settings(name), *flags])
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert list((tmp_path / "run").glob("checkpoint-*"))
    assert list((tmp_path / "run").glob("*model.safetensors"))
    assert (tmp_path / "run" / "README.md").is_file()
