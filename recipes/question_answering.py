"""Distil a model that answers questions with a part of a text, in windows where the text is long.

    accelerate launch recipes/question_answering.py                                       # a newspaper, no argument
    accelerate launch recipes/question_answering.py --train_file cmrc2018_train.json --test_file cmrc2018_dev.json
    accelerate launch recipes/question_answering.py recipes/question_answering.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.

Knows: how a text becomes windows with an answer in them. Does not know: how the models are made and trained.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from answer_scoring import AnswerScoring, Window
from chinese_words import character_tokenizer
from datasets import Dataset, DatasetDict
from question_data import QuestionDataArguments, load_questions
from recipe_run import RecipeTrainingArguments as Defaults
from recipe_run import begin, say
from text_data import described, texts_to_read
from three_models import Job, distil
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding, PreTrainedTokenizerBase
from two_models import Kind, ModelArguments, shared_tokenizer

ROOT = Path("outputs/question_answering")


@dataclass
class RecipeArguments(ModelArguments, QuestionDataArguments):
    """The data, the models and the windows."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=192, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=4.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    max_length: int = field(default=256, metadata={"help": "Tokens of a window, the question included."})
    stride: int = field(default=64, metadata={"help": "How many tokens two neighbouring windows share."})


@dataclass
class RecipeTrainingArguments(Defaults):
    """The recipe's own defaults."""

    output_dir: str = str(ROOT)
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 256
    learning_rate: float = 3e-3
    num_train_epochs: float = 3.0


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe.

    Args:
        argv: flags, or a YAML or JSON file with flags that override it; None takes the command line.

    Returns:
        What ``report.json`` holds.
    """
    started = time.time()
    return distil(prepare(argv), started)


def prepare(argv: list[str] | None = None) -> Job:
    """Read the settings and the rows.

    Args:
        argv: as in ``main``.

    Returns:
        All that the three models share.
    """
    recipe, args, root = begin([RecipeArguments, RecipeTrainingArguments], argv, ROOT)
    with args.main_process_first(desc="reading the questions"):
        questions, noted = load_questions(recipe, args.seed)
    tokenizer = shared_tokenizer(
        recipe, lambda: character_tokenizer(texts_to_read(questions, ["question", "context"]))
    )
    tokenizer.padding_side = "right"  # an answer's place is counted from a row's first token, before padding
    found = {name: windows(rows, tokenizer, recipe.max_length, recipe.stride) for name, rows in questions.items()}
    splits = DatasetDict({name: rows for name, (rows, _) in found.items()})
    noted = "; ".join(filter(None, [noted, *(fitting(n, rows, *found[n]) for n, rows in questions.items())]))
    say(args, f"{recipe.source}: {described(questions, recipe.tested)}{noted and '; '}{noted}")
    return Job(
        recipe,
        args,
        root,
        Kind(AutoModelForQuestionAnswering, "QUESTION_ANS"),
        splits,
        tokenizer,
        AnswerScoring(questions["test"], found["test"][1]),
        recipe.source,
        {"data_collator": DataCollatorWithPadding(tokenizer)},
        language="zh" if recipe.source == recipe.embedded else None,
        noted={"questions": {name: len(rows) for name, rows in questions.items()}, "answers": noted},
    )


def windows(
    questions: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> tuple[Dataset, list[Window]]:
    """Cut texts into windows, and say where in each the answer is: at its first token where it is not in the window.

    Args:
        questions: with ``question``, ``context``, ``start`` and ``stop``.
        tokenizer: of the models.
        max_length: tokens of a window, the question included.
        stride: how many tokens two neighbouring windows share.

    Returns:
        A row for each window, and where its tokens are in the text.

    Raises:
        ValueError: the tokenizer does not say where its tokens are, or a question leaves its text no room.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where its tokens are: use a model with a fast tokenizer."
        )
    asked, texts = questions["question"][:], questions["context"][:]
    longest = max(map(len, tokenizer(asked, add_special_tokens=False)["input_ids"]))
    if (room := max_length - longest - tokenizer.num_special_tokens_to_add(pair=True)) <= stride:
        raise ValueError(
            f"max_length={max_length} leaves {room} tokens of the text beside the longest question, and two windows "
            f"shall share {stride}: raise --max_length or lower --stride."
        )
    pieces = tokenizer(
        asked, texts, truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    numbers, offsets = pieces.pop("overflow_to_sample_mapping"), pieces.pop("offset_mapping")
    starts, stops, made = questions["start"][:], questions["stop"][:], []
    rows: dict[str, list] = {**pieces, "start_positions": [], "end_positions": []}
    for row, (number, places) in enumerate(zip(numbers, offsets, strict=True)):
        sides = pieces.sequence_ids(row)
        own = [tuple(place) if side == 1 else None for place, side in zip(places, sides, strict=True)]
        made.append(Window(number, own))
        start, stop = starts[number], stops[number]
        first = next((i for i, place in enumerate(own) if place and place[0] <= start < place[1]), None)
        last = next((i for i, place in enumerate(own) if place and place[0] < stop <= place[1]), None)
        inside = first is not None and last is not None
        rows["start_positions"].append(first if inside else 0)
        rows["end_positions"].append(last if inside else 0)
    return Dataset.from_dict(rows), made


def fitting(name: str, questions: Dataset, rows: Dataset, own: list[Window]) -> str:
    """Say how many texts are longer than a window, and how many answers are longer than what two windows share.

    Args:
        name: of the split.
        questions: its rows.
        rows: its windows, as ``windows`` returns them.
        own: the same.
    """
    longer = len({own[i].question for i in range(1, len(own)) if own[i - 1].question == own[i].question})
    shown = {window.question for window, start in zip(own, rows["start_positions"][:], strict=True) if start}
    cut = sum(start >= 0 for start in questions["start"][:]) - len(shown)
    if not longer and not cut:
        return ""
    cut = f", {cut:,} answers are whole in no window" if cut else ""
    return f"{name}: {longer:,} of {len(questions):,} texts are longer than a window{cut}"


if __name__ == "__main__":
    try:
        main()
        PartialState().destroy_process_group()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
