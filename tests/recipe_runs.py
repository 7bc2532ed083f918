"""Small runs of recipes: flags, rows of each kind, files of them."""

import csv
import gzip
import json

from datasets import Dataset

SHORT = ["--max_steps", "3", "--max_train_samples", "400", "--max_eval_samples", "100", "--report_to", "none"]
SMALL = ["--teacher_layers", "1", "--teacher_hidden_size", "64", "--student_hidden_size", "64", "--bf16", "0"]
QUIET = ["--disable_tqdm", "1"]
TINY = [
    "--max_train_samples", "300", "--max_eval_samples", "60", "--teacher_layers", "1", "--teacher_hidden_size", "64",
    "--student_hidden_size", "32", "--max_steps", "2", "--bf16", "0", "--num_threads", "1", "--disable_tqdm", "1",
    "--report_to", "none", "--per_device_train_batch_size", "16", "--save_strategy", "no",
]  # fmt: skip
TEXTS = ["这家店的面很好吃", "服务员态度太差了", "电影的结尾出人意料", "房间又小又吵", "孩子非常喜欢这本书"]


def rows(n, names=("差", "好")):
    return [{"text": TEXTS[i % 5] + TEXTS[i % 3], "label": names[i % len(names)]} for i in range(n)]


def write(path, data):
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in data)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, data[0].keys())
            writer.writeheader()
            writer.writerows(data)
    elif path.suffix == ".parquet":
        Dataset.from_list(data).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in data), encoding="utf-8")
    return str(path)


def tagged_rows(n, column="ner_tags"):
    tokens, tags = ["Anna", "Berg", "lives", "in", "Bad", "Ems", "."], "B-name I-name O O B-place I-place O".split()
    return [{"tokens": tokens[i % 3 :], column: tags[i % 3 :]} for i in range(n)]


def texts(n):
    return [{"text": "天气很好，我们去公园看花。"[i % 5 :] + "孩子很高兴。"[: i % 6]} for i in range(n)]


WORDS = {"天": "sky", "人": "man", "水": "water", "火": "fire", "山": "hill"}


def pairs(n):
    keys = list(WORDS)
    return [
        {"zh": keys[i % 5] + keys[i % 3], "en": f"{WORDS[keys[i % 5]]} {WORDS[keys[i % 3]]}", "id": i}
        for i in range(n)
    ]


def columns(path):
    return ["--train_file", path, "--source_column", "zh", "--target_column", "en"]


CONTEXT = "战国无双是由光荣开发的。" * 6 + "本作在日本发行，由光荣发行。"
START = CONTEXT.index("日本")


def question(text="日本", start=START):
    return {"question": "在哪里发行？", "context": CONTEXT, "answers": {"text": [text], "answer_start": [start]}}


def squad(rows):
    qas = [
        {"context": row["context"], "qas": [{"id": str(i), "question": row["question"], "answers": [
            {"text": t, "answer_start": s} for t, s in zip(*row["answers"].values(), strict=True)]}]}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return {"version": "1.1", "data": [{"title": "x", "paragraphs": qas}]}


def unlabeled(n, start=0):
    return [{"text": f"{TEXTS[i % 5]}第{i}天"} for i in range(start, start + n)]
