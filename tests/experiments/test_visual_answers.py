"""Which answers are right: one pass says what writing them would, of each kind of question."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image
from transformers import AutoModelForImageTextToText

from hf_distill.experiments.question_collator import QuestionCollator
from hf_distill.experiments.scoring import Measurement
from hf_distill.experiments.vision_language import VisionLanguageArguments, blank_llava, small_processor
from hf_distill.experiments.visual_answers import AnswerScoring, likeliest

ROWS = {
    "question": ["which ?", "which ?", "how many ?", "how many ?"],
    "answer": ["7", "12", "2", "2"],
    "kind": ["which", "which", "count", "count"],
}


@pytest.fixture
def collate():
    return QuestionCollator(small_processor(["which ? how many ? 7 12 2"] * 2, 16, 8, 32))


@pytest.fixture
def scoring(collate):
    return AnswerScoring(collate, Dataset.from_dict(ROWS))


def test_one_pass_says_which_answers_are_written_greedily(collate):
    recipe = VisionLanguageArguments(teacher_layers=2, teacher_vision_layers=1, teacher_hidden_size=32)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(blank_llava(recipe, collate.processor)).eval()
    with torch.no_grad():  # or it writes the token that stands for an image
        model.get_output_embeddings().weight[collate.layout.placeholders["image"]] = 0
    draw, rows = np.random.default_rng(0), []
    for number in range(12):
        picture = Image.fromarray(draw.integers(0, 256, (16, 16), dtype=np.uint8))
        rows.append({"image": picture, "question": ROWS["question"][number % 4], "answer": None})
    written = []
    for row in rows:
        ids = model.generate(**{n: v for n, v in collate([row]).items() if n != "labels"}, max_new_tokens=2)[0, -2:]
        written.append(ids.tolist())
    batch = collate(rows)
    texts = {n: torch.tensor(ids) if n % 3 else torch.tensor([ids[0], 5]) for n, ids in enumerate(written)}
    batch = collate.layout.rewritten(batch, texts, torch.nn.Identity())
    labels = batch.pop("labels")
    with torch.no_grad():
        right = (likeliest(model(**batch).logits, labels) == labels).all(dim=-1)
    assert right.tolist() == [bool(n % 3) or ids[1] == 5 for n, ids in enumerate(written)]
    assert 0 < int(right.sum()) < 12


def test_an_answer_is_right_to_its_end_and_kinds_are_counted_each(scoring):
    labels = np.array([[-100, 7, 2], [-100, 8, 2], [5, 2, -100], [5, 2, -100]])
    teacher = labels.copy()
    teacher[0, 2] = 9
    found = scoring.measurement(np.where(labels == 8, 7, labels), labels, teacher)
    assert found.each["exact"].tolist() == [1, 0, 1, 1]
    assert found.figures == {"exact": 0.75, "agreement": 0.5, "which": 0.5, "count": 1.0}
    assert {"exact %", "which %", "count %"} <= scoring.columns.keys()


def test_the_floor_is_the_most_frequent_answer_of_each_kind(scoring):
    test = Dataset.from_dict(ROWS)
    learnt = {"answer": ["7", "7", "12", "3", "2", "2"], "kind": ["which"] * 3 + ["count"] * 3}
    assert scoring.floor(test, Dataset.from_dict(learnt)) == 0.75
    plain = test.remove_columns("kind")
    assert AnswerScoring(scoring.collator, plain).floor(plain, plain) == 0.5


def test_examples_are_shown_in_words(scoring, collate):
    rows = [{"image": Image.new("L", (16, 16)), "question": ROWS["question"][n], "answer": ROWS["answer"][n]}
            for n in range(4)]  # fmt: skip
    labels = collate(rows)["labels"].numpy()
    found = {"teacher": scoring.measurement(labels, labels, labels)}
    shown = scoring.details(found)["examples"]
    assert shown[1] == {"question": "which ?", "answer": "12", "teacher": "12"}


def test_answers_that_differ_are_shown_beside_their_picture(scoring, collate):
    pictures = [Image.new("L", (16, 16), 80 * n) for n in range(4)]
    rows = [{"image": pictures[n], **{name: ROWS[name][n] for name in ("question", "answer")}} for n in range(4)]
    labels = collate(rows)["labels"].numpy()
    others = collate([{**row, "answer": {"12": "2", "2": "2", "7": "7"}[row["answer"]]} for row in rows])
    teacher, student = labels, np.where(labels == -100, -100, others["labels"].numpy())
    test = Dataset.from_dict({**ROWS, "image": pictures}, features=Features({
        **{name: Value("string") for name in ROWS}, "image": Picture()}))  # fmt: skip
    judge = AnswerScoring(collate, test)
    found = {
        name: Measurement({}, predictions=(one, labels))
        for name, one in (("teacher", teacher), ("distilled", student))
    }
    (row,) = judge.disagreements(found, None).rows
    assert (row.row, row.text, row.right, row.kind) == (1, "which ?", "12", "teacher")
    assert row.picture.startswith("data:image/png")
