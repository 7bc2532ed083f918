# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a Chinese BERT classifier, and prove what the teacher gave.

    accelerate launch recipes/bert_chinese.py                                   # the whole job on embedded data
    accelerate launch recipes/bert_chinese.py --train_file my.jsonl --teacher_model_name_or_path my/teacher
    accelerate launch recipes/bert_chinese.py recipes/bert_chinese.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights. ``text_classification.py`` is the script
behind it, to be read and copied: embedded Chinese words are what it reads where no data is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hf_distill.cli.recipes import recipe_module
from hf_distill.experiments import run

SAME = recipe_module("text_classification").RECIPE


@dataclass
class TrainingArguments(SAME.training_arguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/bert_chinese"


RECIPE = replace(SAME, training_arguments=TrainingArguments)

if __name__ == "__main__":
    run(RECIPE)
