import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import tiny
import tiny_clip
import tiny_images
import tiny_language
import tiny_processors
import tiny_speech
import tiny_tasks
import tiny_vision_language
import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, DataCollatorWithPadding

from hf_distill import CachedTeacher, ImageTextCollator, LiveTeacher, cli
from hf_distill.cache.store import DATA, Store

WIDE = dict(cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def made(tmp_path):
    """A teacher's folder and a data set of 60 rows, three of which occur twice."""
    tiny.teacher().save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    rows = [*tiny.rows(57), *tiny.rows(3)]
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    return tmp_path, rows


def command(folder, **more):
    words = {
        "teacher_model_name_or_path": folder / "teacher", "output_dir": folder / "answers",
        "dataset_name": folder / "rows", "tokens_per_batch": 64, **more,
    }  # fmt: skip
    return ["cache", *(str(word) for name, value in words.items() for word in (f"--{name}", value))]


def taught(folder, teacher, rows, **args):
    run = tiny.trainer(
        folder, teacher_model=teacher, data=rows, data_collator=DataCollatorWithPadding(tiny.tokenizer()),
        args={"max_steps": 10, **args},
    )  # fmt: skip
    run.train()
    return tiny.losses(run)


def test_fills_a_folder_that_teaches_without_the_teacher(made, capsys):
    folder, rows = made
    assert cli.main(command(folder)) == 0
    told = capsys.readouterr().out
    assert "57 rows asked in" in told
    assert "holds 57 rows in" in told
    expected = taught(folder / "a", tiny.teacher(), rows, teacher_cache="off")
    found = taught(folder / "b", str(folder / "answers"), rows)
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-5)
    assert cli.main(command(folder)) == 0
    assert "0 rows asked in" in capsys.readouterr().out
    live = str(folder / "teacher")  # the same teacher, asked for what is missing: nothing
    assert taught(folder / "c", live, rows, teacher_cache=str(folder / "answers")) == found
    read = datasets.load_dataset(str(folder / "answers"), cache_dir=str(folder / "cache"))["train"]
    assert len(read) == 57
    card = (folder / "answers" / "README.md").read_text()
    assert "57 rows of" in card
    assert str(folder) not in card


def test_text_is_tokenised_as_training_does_it(made, capsys):
    folder, _ = made
    texts = [{"sentence": " ".join(f"w{i % 24}" for i in row["input_ids"]), "label": 1} for row in tiny.rows(20)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    settings = {
        "dataset_name": folder / "texts.jsonl",
        "text_column": "sentence",
        "max_length": 6,
        "values": "float16",
    }
    assert cli.main(command(folder, **settings)) == 0
    tokenizer = tiny.tokenizer()
    rows = [{**tokenizer(row["sentence"], truncation=True, max_length=6), "label": 1} for row in texts]
    assert len(taught(folder / "a", CachedTeacher(folder=folder / "answers"), rows)) == 10
    assert cli.main(command(folder, **{**settings, "text_column": "text"})) == 1
    told = capsys.readouterr().err
    assert "has the columns ['sentence', 'label'], ['text'] was asked for: name them with --text_column" in told


def test_cells_that_look_like_nothing_are_texts_and_empty_ones_are_left_out(made, caplog):
    folder, _ = made
    tokenizer, texts = tiny.tokenizer(), ["w1 w2", "NA", "null", "123", "w3"]
    (folder / "texts.csv").write_text("text,id\n" + "".join(f"{text},{i}\n" for i, text in enumerate([*texts, ""])))
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ["w1 w2", 123, None]))
    assert cli.main(command(folder, dataset_name=folder / "texts.csv")) == 0
    assert "1 of 6 train rows has no text and is left out (row 5)." in caplog.text
    rows = [{**tokenizer(text), "label": 1} for text in texts]
    assert len(taught(folder / "a", CachedTeacher(folder=folder / "answers"), rows)) == 10
    assert cli.main(command(folder, dataset_name=folder / "texts.jsonl", output_dir=folder / "more")) == 0
    assert len(taught(folder / "b", CachedTeacher(folder=folder / "more"), [rows[0], rows[3]] * 4)) == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("torn.jsonl", '{"text": "a"', "torn.jsonl could not be read as json"),
        (
            "ragged.csv",
            "text\na,b\n",
            "ragged.csv could not be read as csv (CSV parse error: Row #2: Expected 1 columns",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(made, capsys, name, content, message):
    (made[0] / name).write_text(content)
    assert cli.main(command(made[0], dataset_name=made[0] / name)) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "correct or convert it" in said


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_few_ids_of_a_language_model(tmp_path, capsys, kind):
    make = getattr(tiny_language, kind)
    tiny_language.teacher(make).save_pretrained(tmp_path / "teacher")
    tiny_language.tokenizer().save_pretrained(tmp_path / "teacher")
    rows = tiny_language.pairs(20) if kind == "t5" else tiny_language.texts(20)
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    few = {"top": 6, "tail": 4, "temperature": 2.0}
    assert cli.main(command(tmp_path, **few)) == 0
    assert "20 rows asked" in capsys.readouterr().out
    run = tiny.trainer(
        tmp_path / "out", make(), rows, teacher_model=str(tmp_path / "answers"), args={"max_steps": 6},
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()),
    )  # fmt: skip
    run.train()
    assert tiny.losses(run, "teacher_cache_hits") == [1.0] * 6
    assert tiny.losses(run)[-1] < tiny.losses(run)[0]
    assert (
        "the 6 highest ids and 4 drawn from the rest, at temperature 2.0"
        in (tmp_path / "answers" / "README.md").read_text()
    )


def test_the_few_ids_of_a_padded_head_are_tokens(tmp_path, capsys):
    """As Qwen2.5 of 7B and 0.5B: one tokenizer of 31 tokens, heads of 48 and 32 rows."""
    tokenizer, rows = tiny_language.tokenizer(), tiny_language.texts(20)
    tiny_language.teacher(vocab_size=48).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    Dataset.from_list(rows).save_to_disk(tmp_path / "rows")
    assert cli.main(command(tmp_path, top=6, tail=4, temperature=1.0)) == 0
    assert json.loads((tmp_path / "answers" / "teacher.json").read_text())["encoding"]["tokens"] == 31
    losses = []
    for answers in (tmp_path / "answers", "off"):
        run = tiny.trainer(
            tmp_path / "out", tiny_language.llama(), rows, teacher_model=str(tmp_path / "teacher"),
            args={"max_steps": 6, "teacher_cache": str(answers), "temperature": 1.0}, processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )  # fmt: skip
        run.train()
        losses.append(tiny.losses(run))
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # drawn ids stand for the others


def test_hidden_states_too(made):
    folder, rows = made
    assert cli.main(command(folder, hidden_states=True)) == 0
    objective = {"hidden_mse": 1.0, "forward_kl": 1.0}
    runs = [
        tiny.trainer(
            folder / "out", teacher_model=teacher, data=rows, objective=objective, args={"teacher_cache": "off"},
            data_collator=DataCollatorWithPadding(tiny.tokenizer()),
        )
        for teacher in (str(folder / "answers"), tiny.teacher())
    ]  # fmt: skip
    for run in runs:
        run.train()
    found, expected = (torch.tensor(tiny.losses(run)) for run in runs)
    assert torch.allclose(found, expected, rtol=1e-5)


def test_auto_with_a_folder_is_auto_without_one(made, capsys):
    """The folder is filled at the command's own precision, and the run is one under bf16 autocast."""
    folder, rows = made
    assert cli.main(command(folder, hidden_states=True)) == 0
    assert cli.main(command(folder, output_dir=folder / "logits")) == 0

    def run(**args):
        return tiny.trainer(
            folder / "out", teacher_model=str(folder / "teacher"), data=rows, objective="auto",
            args={"max_steps": 10, "bf16": True, **args}, data_collator=DataCollatorWithPadding(tiny.tokenizer()),
        )  # fmt: skip

    with pytest.raises(ValueError, match=r"'bf16 autocast': set teacher_dtype=float32 \(--teacher_dtype float32\)"):
        run(teacher_cache=str(folder / "answers"))
    with pytest.raises(ValueError, match=r"holds logits alone: keep hidden states too \(hf-distill cache --hidden_st"):
        run(teacher_cache=str(folder / "logits"), teacher_dtype="float32")
    live, kept = (run(teacher_cache=cache, teacher_dtype="float32") for cache in ("off", str(folder / "answers")))
    for one in (live, kept):
        one.train()
        assert one.distillation.objective.told == {"forward_kl": 1.0, "hidden_mse": 1.0}
    assert tiny.losses(kept, "teacher_cache_hits") == [1.0] * 10
    assert tiny.losses(kept)[0] == pytest.approx(tiny.losses(live)[0], rel=1e-5)
    assert tiny.losses(kept) == pytest.approx(tiny.losses(live), rel=2**-8)  # the student's own rounding, then


def test_every_refusal_is_one_sentence(made, capsys):
    folder, _ = made
    assert cli.main(command(folder)) == 0
    tiny.bert(width=24, layers=2, seed=9).save_pretrained(folder / "other")
    tiny.tokenizer().save_pretrained(folder / "other")
    told = {
        "holds the answers of": dict(teacher_model_name_or_path=folder / "other"),
        "there is no such file": dict(dataset_name=folder / "nothing.csv"),
        "but its precision is 'float32', this run has 'bfloat16'": dict(teacher_dtype="bfloat16"),
        "leave the encoding out": dict(values="int8"),
        "values='int3' is not known": dict(values="int3"),
        "teacher_dtype=float99 was given, which is no precision": dict(teacher_dtype="float99"),
        "max_samples=0 was given: give 1 or more": dict(max_samples=0),
    }
    capsys.readouterr()
    for words, change in told.items():
        assert cli.main(command(folder, **change)) == 1
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "\n" not in error
    assert cli.main(["melt"]) == 1
    assert "no command 'melt'" in capsys.readouterr().err
    assert cli.main([]) == 0
    assert "hf-distill COMMAND" in capsys.readouterr().out


@pytest.fixture
def pairs(tmp_path):
    """A teacher of two towers, and 8 images with two captions each, but for the last, which has one."""
    tiny_clip.model(seed=7).save_pretrained(tmp_path / "teacher")
    tiny_processors.clip().save_pretrained(tmp_path / "teacher")
    said = [[f"w{i} w{i + 1}", f"w{2 * i} w9 w{i}"] for i in range(7)] + [["w40"]]
    features = datasets.Features({"img": datasets.Image(), "said": [datasets.Value("string")]})
    rows = Dataset.from_dict({"img": tiny_processors.pictures(8), "said": said}, features=features)
    rows.save_to_disk(tmp_path / "rows")
    return tmp_path, rows, {"image_column": "img", "text_column": "said"}


def learnt_of_pairs(folder, teacher, rows, columns, **args):
    run = tiny.trainer(
        folder, tiny_clip.model(), rows, teacher_model=teacher,
        data_collator=ImageTextCollator(tiny_processors.clip(), **columns),
        args={"remove_unused_columns": False, "max_steps": 6, "per_device_train_batch_size": 4, "alpha": 0.5, **args},
    )  # fmt: skip
    run.train()
    return tiny.losses(run), tiny.losses(run, "teacher_cache_hits")


def test_pairs_of_images_and_texts_teach_without_the_teacher(pairs, capsys):
    folder, rows, columns = pairs
    assert cli.main(command(folder, **columns)) == 0
    assert "15 rows asked in" in capsys.readouterr().out  # each caption beside its image
    assert "vectors of images and texts" in (folder / "answers" / "README.md").read_text(encoding="utf-8")
    expected, _ = learnt_of_pairs(folder / "a", tiny_clip.model(seed=7), rows, columns, teacher_cache="off")
    found, hits = learnt_of_pairs(folder / "b", str(folder / "answers"), rows, columns)
    assert found == pytest.approx(expected, rel=1e-5)
    assert hits == [1] * 6  # whichever caption an epoch takes
    kept = {"teacher_cache": str(folder / "answers"), "teacher_dtype": "float32"}
    beside, hits = learnt_of_pairs(folder / "c", str(folder / "teacher"), rows, columns, **kept)
    assert beside == pytest.approx(expected, rel=1e-5)
    assert hits == [1] * 6
    assert cli.main(command(folder, **columns)) == 0
    assert "0 rows asked in" in capsys.readouterr().out


def test_a_pairs_length_says_how_many_run_at_once(pairs, monkeypatch):
    folder, _, columns = pairs
    sizes, call = [], LiveTeacher.__call__
    monkeypatch.setattr(
        LiveTeacher,
        "__call__",
        lambda one, batch, needs: sizes.append(len(batch["input_ids"])) or call(one, batch, needs),
    )
    assert cli.main(command(folder, **columns, pad_to_max_length=True, max_length=16, tokens_per_batch=64)) == 0
    assert sizes[-4:] == [4, 4, 4, 3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"image_column": "image"},
            "'image' was asked for: name one with --image_column",
        ),
        ({"text_column": "text"}, "'text' was asked for: name one with --text_column"),
        ({"image_column": "said"}, "no images (datasets.Image): name another with --image_column, or cast it."),
        ({"top": 4, "temperature": 1.0}, "top=4 was given for a CLIPModel, which shows vectors of images and texts"),
        ({"onnx": True}, "onnx=True was given for a CLIPModel, which shows vectors of images and texts"),
        (
            {"text_column": "number"},
            "holds Value('int64'), no texts or lists of them: name another with --text_column.",
        ),
        ({"text_column": "holes"}, "row 2 has no text under 'holes', or not each of them: leave such rows out."),
        ({"tokenizer_name": "{}/words"}, "which does not hold both an image_processor and a tokenizer: pass the proc"),
    ],
)
def test_what_is_no_pair_is_one_sentence(pairs, capsys, change, told):
    folder, rows, columns = pairs
    rows = rows.add_column("number", [0] * 8).add_column("holes", [["w1"], ["w2"], [], *[["w3"]] * 5])
    rows.save_to_disk(folder / "more")
    tiny_processors.clip().tokenizer.save_pretrained(folder / "words")
    change = {name: str(value).format(folder) for name, value in change.items()}
    assert cli.main(command(folder, dataset_name=folder / "more", **{**columns, **change})) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("hf-distill cache: ")
    assert told in said


@pytest.mark.parametrize("kind", ["images", "places", "vit", "waves"])
def test_a_teacher_that_reads_more_than_the_texts_is_refused_at_the_start(tmp_path, capsys, kind):
    models = {"vit": tiny_images.vit, "waves": tiny_speech.wav2vec2}
    models.get(kind, lambda: tiny_vision_language.model("llava"))().save_pretrained(tmp_path / "teacher")
    tiny_processors.llava().save_pretrained(tmp_path / "teacher")
    rows = {"text": ["w1 <image>" if kind == "places" else "w1"] * 2}
    if kind == "images":
        rows["images"] = [[picture] for picture in tiny_processors.pictures(2)]
    Dataset.from_dict(rows).save_to_disk(tmp_path / "rows")
    assert cli.main(command(tmp_path)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    what = {
        "images": "reads images among texts, of which the rows hold some (images), hf-distill cache reads texts alone",
        "places": "reads images among texts, of which the rows hold some (input_ids), hf-distill cache reads texts",
        "vit": "teacher reads pixel_values, hf-distill cache reads texts, and pairs of an image and a text",
        "waves": "teacher reads input_values, hf-distill cache reads texts, and pairs of an image and a text",
    }[kind]
    assert what in said
    assert said.endswith("let a training with teacher_cache=FOLDER and teacher_prepass=True fill the folder.")


def test_texts_alone_of_a_teacher_that_could_read_images_are_kept(tmp_path, capsys):
    tiny_vision_language.model("llava").save_pretrained(tmp_path / "teacher")
    tiny_processors.llava().save_pretrained(tmp_path / "teacher")
    Dataset.from_dict({"text": ["w1 w2", "w3"]}).save_to_disk(tmp_path / "rows")
    assert cli.main(command(tmp_path)) == 0
    assert "2 rows asked in" in capsys.readouterr().out


def test_a_teacher_that_sees_padding_needs_rows_of_one_length(made, capsys):
    from hf_distill.cache.prefill import fill

    folder, rows = made

    class Absolute(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny.teacher()

        def forward(self, input_ids, attention_mask=None):
            return self.inner(input_ids, attention_mask).logits + 0.1 * input_ids.shape[1]

    for message in ("sees padding and the rows are padded to the longest of each batch", ""):
        run = tiny.trainer(folder, teacher_model=Absolute())
        run.teacher.always = True
        fixed = {} if message else {"padding": "max_length", "max_length": 12}
        collator = DataCollatorWithPadding(tiny.tokenizer(), **fixed)
        if message:
            with pytest.raises(ValueError, match=message):
                fill(run.teacher, rows, collator, tokens=64)
        else:
            assert fill(run.teacher, rows, collator, tokens=64) == 57


@pytest.mark.slow
def test_a_full_disk_says_so_and_nothing_is_lost(made, capsys):
    folder, _ = made
    program = (
        "import resource, signal, sys; from hf_distill import cli; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); sys.exit(cli.main(sys.argv[1:]))"
    )
    found = subprocess.run([sys.executable, "-c", program, *command(folder)], **WIDE)
    assert found.returncode == 1
    assert "could not be written to the end: free space there and start again" in found.stderr
    assert cli.main(command(folder)) == 0
    assert "57 rows asked" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_one_killed_and_started_again_hold_every_row_once(made, capsys):
    folder, rows = made
    many = [*tiny.rows(1500, seed=5), *rows]
    Dataset.from_list(many).save_to_disk(folder / "many")
    words = command(folder, dataset_name=folder / "many", tokens_per_batch=32)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    small_files = "import sys\nfrom hf_distill import cli\nfrom hf_distill.cache import spool\n"
    (folder / "fill.py").write_text(small_files + "spool.FLUSH_ROWS = 16\nsys.exit(cli.main(sys.argv[1:]))")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(folder / "fill.py")]
    launch, pipes = [sys.executable, *launch], dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen([*launch, *words], env=env, start_new_session=True, **pipes) as process:
        for _ in range(600):
            if len(list((folder / "answers" / DATA).glob("*.parquet"))) >= 6 or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, 9)
        process.communicate()
    before = values(folder / "answers")
    assert 0 < len(before) < 1557
    found = subprocess.run([*launch, *words], env=env, **WIDE)
    assert found.returncode == 0, found.stderr[-3000:]
    assert f"holds {len({str(row['input_ids']) for row in many})} rows" in found.stdout
    read = [key for keys, _ in Store(folder / "answers").news() for key in keys]
    assert len(read) == len(set(read)) == len({str(row["input_ids"]) for row in many})
    after = values(folder / "answers")
    assert all((after[key] == value).all() for key, value in before.items())
    assert (
        cli.main(command(folder, output_dir=folder / "alone", dataset_name=folder / "many", tokens_per_batch=32)) == 0
    )
    one = values(folder / "alone")
    assert one.keys() == after.keys()
    assert all(abs(one[key] - after[key]).max() < 1e-5 for key in one)


def values(folder):
    return {key: block.row("heads/logits", i) for keys, block in Store(folder).news() for i, key in enumerate(keys)}


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason='needs pip install -e ".[onnx]"')
@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_gives_the_same_logits(made):
    folder, _ = made
    assert cli.main(command(folder)) == 0
    assert cli.main(command(folder, output_dir=folder / "onnx", onnx=True)) == 0
    one, two = values(folder / "answers"), values(folder / "onnx")
    assert one.keys() == two.keys()
    assert all(abs(one[key] - two[key]).max() < 1e-5 for key in one)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="ONNX Runtime is installed")
def test_without_onnx_runtime_the_extra_is_named(made, capsys):
    assert cli.main(command(made[0], onnx=True)) == 1
    assert 'pip install "hf_distill[onnx]"' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embedding", "spans"])
def test_a_folder_of_other_tasks(tmp_path, name, capsys):
    """Of a model without a head the hidden states are kept, of one with two heads both."""
    case = tiny_tasks.CASES[name]
    case.teacher().save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    Dataset.from_list(tiny_tasks.plain(12)).save_to_disk(tmp_path / "rows")
    assert cli.main(command(tmp_path, values="float16")) == 0
    assert "12 rows asked in" in capsys.readouterr().out
    found = []
    for teacher in (case.teacher(), str(tmp_path / "answers")):
        run = tiny_tasks.trainer(tmp_path, name, tiny_tasks.plain(12), teacher_model=teacher, args={"alpha": 1.0})
        run.train()
        found.append(tiny.losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-2)
