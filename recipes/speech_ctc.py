# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil a model that writes down speech frame by frame (CTC), and prove what the teacher gave.

    accelerate launch recipes/speech_ctc.py --train_file train.parquet --test_file test.parquet
    accelerate launch recipes/speech_ctc.py --train_file digits.parquet --text_column label --measure cer \
        --joined_samples 2000 --joined_with "" --speaker_column speaker --labeled_samples 150
    accelerate launch recipes/speech_ctc.py recipes/speech_ctc.yaml --hub_model_id me/student

It trains a teacher (or takes one), the student alone, and the same student under the teacher; then it writes a table,
``report.json``, a picture and the model card beside the student's weights. No recordings come with a package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoModelForCTC

from hf_distill import SpeechCollator
from hf_distill.experiments import Experiment, Recipe, run, say
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.recordings import RecordingDataArguments, load_transcripts
from hf_distill.experiments.data.spoken import SpokenArguments, spoken_splits
from hf_distill.experiments.recordings import RecordingModelArguments, blank_mels, small_mels
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.speech_recognition import (
    CTCKind,
    load_processor_of,
    speech_processor,
)
from hf_distill.experiments.transcripts import TranscriptScoring
from hf_distill.reports import chosen_frames


@dataclass
class Arguments(RecordingModelArguments, RecordingDataArguments, SpokenArguments):
    """The data and the models."""

    measure: str = field(default="wer", metadata={"help": "wer, of words; or cer, of characters, as of Chinese."})

    def check(self) -> None:
        """Refuse settings that contradict each other; see the bases."""
        self.check_spoken()
        super().check()


@dataclass
class TrainingArguments(RecipeTrainingArguments):
    """The recipe's own defaults; every argument of Trainer can be set."""

    output_dir: str = "outputs/speech_ctc"
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    learning_rate: float = 6e-3
    num_train_epochs: float = 10.0
    alpha: float | None = 1.0  # a few transcripts beside the teacher's many frames made students worse
    temperature: float = 1.0
    objective: dict | str | None = "forward_kl"
    train_sampling_strategy: str = "group_by_length"
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the recordings, and say which models learn from them.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is trained here is kept.
    """
    with args.main_process_first(desc="reading the recordings"):
        splits = spoken_splits(recipe, load_transcripts(recipe, args.seed), args.seed, recipe.sampling_rate)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    taught, known = everything(splits, "text")
    processor, finished = speech_processor(recipe, known["text"][:]), recipe.teacher_model_name_or_path
    theirs = None
    if finished and recipe.student_model_name_or_path and not recipe.finetune_teacher:
        theirs = load_processor_of(finished, f"the teacher {finished}")
    collate = SpeechCollator(
        processor,
        theirs,
        max_seconds=recipe.max_seconds,
        keep=not (finished or recipe.student_model_name_or_path),  # of small models: both read the same features
    )
    for name, rows in (("training", known), ("validation", splits["validation"]), ("test", splits["test"])):
        collate.check_texts(rows["text"][:], f"the {name} rows of {recipe.source}")
    kind = CTCKind(
        AutoModelForCTC, "FEATURE_EXTRACTION", blank=blank_mels, small=small_mels, tokenizer=processor.tokenizer
    )
    scoring = TranscriptScoring(processor, measure=recipe.measure)
    options = {
        "data_collator": collate,
        "compute_metrics": scoring.compute_metrics,
        "preprocess_logits_for_metrics": chosen_frames,
    }
    return Experiment(
        recipe, args, root, kind, splits, processor, scoring, options,
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=known,
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
