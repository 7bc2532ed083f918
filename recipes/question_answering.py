# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a model that answers questions with a part of a text, in windows where the text is long.

    accelerate launch recipes/question_answering.py                                       # a newspaper, no argument
    accelerate launch recipes/question_answering.py --train_file cmrc2018_train.json --test_file cmrc2018_dev.json
    accelerate launch recipes/question_answering.py recipes/question_answering.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding

from hf_distill.experiments import Experiment, ModelArguments, ModelKind, Recipe, run, say, shared_tokenizer
from hf_distill.experiments.data.files import described, texts_to_read
from hf_distill.experiments.data.questions import QuestionDataArguments, load_questions
from hf_distill.experiments.question_answering import AnswerScoring, fitting, windows
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.tokenizers import character_tokenizer


@dataclass
class Arguments(ModelArguments, QuestionDataArguments):
    """The data, the models and the windows."""

    teacher_layers: int = field(default=2, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=192, metadata={"help": "Its width, in heads of 64."})
    # One that stops after four epochs has ten points less, and a student of one layer matches no question with a text.
    teacher_epochs: float = field(default=8.0, metadata={"help": "Epochs of training or fine-tuning the teacher."})
    teacher_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    student_layers: int = field(default=2, metadata={"help": "Layers of a student made here."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    max_length: int = field(default=256, metadata={"help": "Tokens of a window, the question included."})
    stride: int = field(default=64, metadata={"help": "How many tokens two neighbouring windows share."})


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/question_answering"
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 256
    learning_rate: float = 3e-3  # the best of 1.5e-3, 3e-3 and 6e-3 for the student alone
    num_train_epochs: float = 6.0
    temperature: float = 1.0


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the rows, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
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
    return Experiment(
        recipe,
        args,
        root,
        ModelKind(AutoModelForQuestionAnswering, "QUESTION_ANS"),
        splits,
        tokenizer,
        AnswerScoring(questions["test"], found["test"][1]),
        {"data_collator": DataCollatorWithPadding(tokenizer)},
        language="zh" if recipe.source == recipe.embedded else None,
        notes={"questions": {name: len(rows) for name, rows in questions.items()}, "answers": noted},
    )


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
