"""The recipe of causal language models: embedded reviews, own texts, conversations, an assistant, bad input."""

import copy
import json
from pathlib import Path

import causal_lm
import numpy as np
import pytest
import tiny_language
import torch
from assistant import accepted_tokens
from chat_rows import encoded_chat, encoded_text
from chinese_reviews import load_reviews
from huggingface_hub import ModelCard
from listening import foreseen, foresight
from text_tokenizer import text_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, EvalPrediction

from hf_distill.cli import main as command
from hf_distill.cli.parsing import parse_arguments

SMALL = [
    "--teacher_layers", "1", "--teacher_hidden_size", "64", "--student_layers", "1", "--student_hidden_size", "32",
    "--bf16", "0", "--num_threads", "1", "--disable_tqdm", "1", "--report_to", "none", "--save_strategy", "no",
    "--per_device_train_batch_size", "8", "--max_steps", "2", "--max_length", "24",
]  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(n):
    return [{"text": "天气很好，我们去公园看花。"[i % 5 :] + "孩子很高兴。"[: i % 6]} for i in range(n)]


def run(folder, *flags):
    return causal_lm.main(["--output_dir", str(folder / "run"), *SMALL, *flags])


def test_reviews_are_read_once_and_no_text_is_in_two_splits():
    splits = load_reviews()
    found = {name: set(rows["text"]) for name, rows in splits.items()}
    assert sum(map(len, found.values())) == sum(len(rows) for rows in splits.values()) > 16_000
    assert not found["train"] & found["test"]
    assert len(found["test"]) == pytest.approx(sum(map(len, found.values())) / 20, rel=0.1)


def test_reviews_of_a_folder(tmp_path):
    (tmp_path / "pos.txt").write_text("这本书非常非常好看\n\n这本书非常非常值得一看\n", encoding="utf-8")
    (tmp_path / "neg.txt").write_text("这本书非常非常值得一看\n太差\n", encoding="utf-8")
    assert [one for rows in load_reviews(tmp_path).values() for one in rows["text"]] == ["这本书非常非常值得一看"]


@pytest.fixture(scope="module")
def default(tmp_path_factory):
    """One run on the embedded reviews."""
    folder = tmp_path_factory.mktemp("default")
    flags = ["--max_train_samples", "64", "--max_eval_samples", "16", "--measure_assistant", "2"]
    return folder, run(folder, *flags, "--assistant_tokens", "6", "--eval_strategy", "steps", "--eval_steps", "2")


def test_the_embedded_reviews(default):
    folder, report = default
    teacher, alone, distilled = report["models"]
    assert [row["name"] for row in report["models"]] == ["teacher", "student alone", "distilled"]
    assert report["rows"] == {"train": 64, "validation": 16, "test": 16}
    assert (teacher["kl"], teacher["agreement"]) == (pytest.approx(0, abs=1e-6), 1.0)
    assert distilled["kl"] > 0
    assert alone["perplexity"] == pytest.approx(np.exp(alone["loss"]))
    assert "accepted" not in teacher
    assert all(1 <= row["steps"] <= row["tokens"] <= 12 for row in (alone, distilled))
    assert "nats lower than that of the student alone" in report["summary"]
    assert json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["models"] == report["models"]


def test_the_report_is_that_of_the_saved_student(default):
    folder, report = default
    model = AutoModelForCausalLM.from_pretrained(folder / "run").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "run")
    test = load_reviews()["test"].shuffle(seed=42).select(range(16))["text"]
    total, count = 0.0, 0
    for text in test:
        ids = torch.tensor([encoded_text(tokenizer, text, 24)["input_ids"]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.double().item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert report["models"][2]["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_card(default):
    card = ModelCard.load(default[0] / "run" / "README.md")
    assert card.data.pipeline_tag == "text-generation"
    assert {one.metric_type for one in card.data.eval_results} == {"accuracy", "perplexity"}
    for part in ("| distilled", "accepted a step", "forward_kl", "AutoModelForCausalLM", "perplexity"):
        assert part in card.text, part
    assert str(default[0]) not in card.text


def test_metrics_of_evaluation_are_those_of_float64():
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[0, 5:], labels[2, :4] = -100, -100
    found = foresight(EvalPrediction(foreseen((logits,), labels).numpy(), labels.numpy()))
    pairs = [(logits[b, t].double(), labels[b, t + 1]) for b in range(3) for t in range(6) if labels[b, t + 1] != -100]
    losses = [-one.log_softmax(-1)[label].item() for one, label in pairs]
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean([one.argmax() == label for one, label in pairs]))


def test_a_text_begins_and_ends_and_a_long_one_does_not_end():
    made = text_tokenizer(["天气很好"], begins=True)
    row = encoded_text(made, "天气", 9)
    assert made.convert_ids_to_tokens(row["input_ids"]) == ["<s>", "▁", "天", "气", "</s>"]
    assert row["labels"] == row["input_ids"]
    assert encoded_text(made, "天气很好", 4)["input_ids"][-1] != made.eos_token_id


def chat(*turns):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(turns)]


def test_only_the_last_answer_of_a_conversation_is_supervised():
    made = tiny_language.tokenizer()
    row = encoded_chat(made, chat("w1 w2", "w3", "w4", "w5 w6"), 99)
    kept = [i for i, label in enumerate(row["labels"]) if label != -100]
    assert made.decode([row["labels"][i] for i in kept]) == "w5 w6 </s>"
    assert [row["labels"][i] for i in kept] == [row["input_ids"][i] for i in kept]
    assert made.decode(row["input_ids"][: kept[0]]) == "user : w1 w2 assistant : w3 </s> user : w4 assistant :"
    assert encoded_chat(made, chat("w1"), 99)["input_ids"] == []


@pytest.fixture
def models(tmp_path):
    """A teacher and a student with a chat template."""
    for name, made in (("teacher", tiny_language.teacher()), ("student", tiny_language.llama())):
        made.save_pretrained(tmp_path / name)
        tiny_language.tokenizer().save_pretrained(tmp_path / name)
    names = (f"--{name}_model_name_or_path={tmp_path / name}" for name in ("teacher", "student"))
    return [*names]


def test_conversations_and_prompts_without_an_answer(tmp_path, models, capsys):
    rows = tiny_language.chats(40)
    rows[3:5] = [{"messages": one["messages"][:1]} for one in rows[3:5]]  # both fall to the training rows
    report = run(tmp_path, *models, "--train_file", write(tmp_path / "chats.jsonl", rows), "--measure_assistant", "1")
    assert "rows; left out with nothing to learn: 2 train" in capsys.readouterr().out
    assert report["rows"]["train"] == 36
    assert report["models"][1]["tokens"] >= 1


def test_kept_answers_of_the_very_rows_that_are_learned(tmp_path, models, capsys):
    path, folder = write(tmp_path / "chats.jsonl", tiny_language.chats(40)), tmp_path / "answers"
    flags = [*models, "--train_file", path]
    assert run(tmp_path, *flags, "--rows_dir", str(tmp_path / "rows")) is None
    asked = ["--teacher_model_name_or_path", str(tmp_path / "teacher"), "--dataset_name", str(tmp_path / "rows")]
    command(["cache", *asked, "--output_dir", str(folder), "--top", "4", "--tail", "4", "--temperature", "1.0"])
    assert "38 rows asked" in capsys.readouterr().out
    files = sorted(folder.rglob("*.parquet"))
    report = run(tmp_path, *flags, "--teacher_cache", str(folder), "--skip_alone")
    assert sorted(folder.rglob("*.parquet")) == files  # nothing had to be asked again
    assert report["models"][0]["kl"] == pytest.approx(0, abs=1e-6)  # measured with whole answers


def test_a_student_is_trained_in_float32_whatever_it_was_saved_in(tmp_path, models):
    tiny_language.llama().to(torch.bfloat16).save_pretrained(tmp_path / "student")
    run(tmp_path, *models, "--train_file", write(tmp_path / "chats.jsonl", tiny_language.chats(40)), "--skip_alone")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").dtype == torch.float32


def test_an_assistant_changes_the_steps_and_not_the_text():
    teacher, other = tiny_language.teacher().eval(), tiny_language.llama().eval()
    for model in (teacher, other):
        model.generation_config.eos_token_id = None
    ids, before = [torch.tensor([[5, 6, 7]]), torch.tensor([[9, 8]])], dict(vars(other.generation_config))
    own = accepted_tokens(teacher, copy.deepcopy(teacher), ids, 12, ahead=3)
    assert (own["tokens"], own["steps"]) == (24, 6)  # three proposed and one more, each time
    assert own["accepted"] == 3.0
    helped = accepted_tokens(teacher, other, ids, 12, ahead=3)
    assert helped["tokens"] == 24
    assert helped["accepted"] < 3.0
    assert dict(vars(other.generation_config)) == before


@pytest.mark.parametrize("size", [28, 40])
def test_an_assistant_whose_head_is_padded_to_another_length(size):
    teacher, other = tiny_language.teacher().eval(), tiny_language.llama(vocab_size=size).eval()
    teacher.generation_config.eos_token_id = None
    other.generation_config.eos_token_id = None
    with torch.no_grad():  # the ids that the other lacks are the likeliest
        for model, rows in ((other, slice(32, None)), (teacher, slice(size, None))):
            padding = model.lm_head.weight[rows]
            padding.copy_(9 * model.lm_head.weight[: len(padding)])
    found = accepted_tokens(teacher, other, [torch.tensor([[5, 6, 7]])], 12, ahead=3)
    assert found["tokens"] == 12
    assert 3 <= found["steps"] <= 12
    assert other.config.vocab_size == size


BAD = {
    "a missing file": (["--train_file", "nowhere.jsonl"], "nowhere.jsonl, there is no such file"),
    "a missing column": (["--train_file", "{folder}/good.jsonl", "--text_column", "title"], r"\['title'\] was asked"),
    "no chat template": (["--train_file", "{folder}/chats.jsonl"], "the tokenizer has no chat template"),
    "prompts alone": (
        ["--train_file", "{folder}/prompts.jsonl", "--student_model_name_or_path", "{folder}/student"],
        "none of the 19 train rows has an answer of the assistant at its end",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_a_sentence_before_anything_is_trained(tmp_path, what):
    write(tmp_path / "good.jsonl", texts(20))
    write(tmp_path / "chats.jsonl", tiny_language.chats(20))
    write(tmp_path / "prompts.jsonl", [{"messages": one["messages"][:1]} for one in tiny_language.chats(20)])
    tiny_language.tokenizer().save_pretrained(tmp_path / "student")
    flags, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_own_texts_and_the_full_size_settings(tmp_path):
    assert (
        run(tmp_path, "--train_file", write(tmp_path / "t.jsonl", texts(40)), "--skip_alone")["dataset"] == "t.jsonl"
    )
    path = str(Path(causal_lm.__file__).with_suffix(".yaml"))
    types = [causal_lm.RecipeArguments, causal_lm.RecipeTrainingArguments]
    recipe, args = parse_arguments(types, [path, "--bf16", "0", "--output_dir", str(tmp_path)])
    assert recipe.teacher_model_name_or_path == "Qwen/Qwen2.5-7B-Instruct"
    assert (args.teacher_cache, args.teacher_dtype) == ("outputs/qwen_answers", "bfloat16")
