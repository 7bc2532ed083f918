# /// script
# requires-python = ">=3.11"
# dependencies = ["hf_distill[recipes]"]
# ///
"""Distil Whisper as distil-whisper was made, in one run: its encoder stays, few decoder layers learn to write.

    accelerate launch recipes/distil_whisper.py --teacher_model_name_or_path openai/whisper-tiny.en \
        --train_file train.parquet --text_column sentence
    accelerate launch recipes/distil_whisper.py recipes/distil_whisper.yaml --hub_model_id me/distil-whisper

The teacher writes the recordings down once, transcripts or not (``rollout``); where a row has one, the teacher's text
is learned from only if it is near (``keep_if``), and loops never are. The student is its whole encoder, frozen, which
is run once for both, and some of its decoder's layers. Then a table, ``report.json``, a picture and the model card
stand beside the student's weights. No recordings come with a package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict
from transformers import AutoConfig, AutoModelForSpeechSeq2Seq

from hf_distill import Seq2SeqDistillationTrainer, Seq2SeqDistillationTrainingArguments, SpeechCollator
from hf_distill.experiments import Experiment, ModelArguments, ModelKind, Recipe, run, say
from hf_distill.experiments.data.few_labels import everything
from hf_distill.experiments.data.files import described
from hf_distill.experiments.data.recordings import RecordingDataArguments, load_transcripts
from hf_distill.experiments.data.spoken import SpokenArguments, spoken_splits
from hf_distill.experiments.settings import RecipeTrainingArguments
from hf_distill.experiments.speech_recognition import load_processor_of
from hf_distill.experiments.transcription import DictationScoring, FrozenEncoderExperiment


@dataclass
class Arguments(ModelArguments, RecordingDataArguments, SpokenArguments):
    """The data and the models."""

    student_from_teacher: bool = field(default=True, metadata={"help": "Cut the student from its teacher."})
    student_layers: int | None = field(default=None, metadata={"help": "Layers of its encoder. Default: all."})
    student_decoder_layers: int | None = field(
        default=2, metadata={"help": "Layers of its decoder, as far apart as can be: of two the first and the last."}
    )
    freeze_encoder: bool = field(
        default=True,
        metadata={"help": "Train the decoder alone; teacher and student then share one encoder's states."},
    )
    max_seconds: float | None = field(
        default=None, metadata={"help": "Longer recordings are cut to so many seconds. Default: none is cut."}
    )
    measure: str = field(default="wer", metadata={"help": "wer, of words; or cer, of characters, as of Chinese."})
    normalizer: str = field(
        default="basic", metadata={"help": "Before texts are compared: basic, or english (spellings, numbers)."}
    )

    def check(self) -> None:
        """Refuse settings that contradict each other; see the bases."""
        if not self.teacher_model_name_or_path:
            raise ValueError(
                "no teacher was named, and none is made here: name one with --teacher_model_name_or_path, such as "
                "openai/whisper-large-v3."
            )
        if self.normalizer not in ("basic", "english"):
            raise ValueError(f"normalizer={self.normalizer!r} was given: use basic or english.")
        self.check_spoken()
        super().check()


@dataclass
class TrainingArguments(RecipeTrainingArguments, Seq2SeqDistillationTrainingArguments):
    """The recipe's own defaults; every argument of Seq2SeqTrainer can be set."""

    output_dir: str = "outputs/distil_whisper"
    alpha: float | None = 0.5
    temperature: float = 1.0
    objective: dict | str | None = "forward_kl"
    rollout: dict | str | None = field(default_factory=lambda: {"seq_kd": 1.0})
    teacher_cache: str = "off"  # a distribution over 51,865 tokens each is dearer to keep than to ask again
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 16
    learning_rate: float = 1e-4
    num_train_epochs: float = 5.0
    predict_with_generate: bool = True
    generation_max_length: int | None = 128
    save_strategy: str = "no"


def experiment(recipe: Arguments, args: TrainingArguments, root: Path) -> Experiment:
    """Read the recordings, and say which models write them down.

    Args:
        recipe: the data and the models.
        args: of the student's training.
        root: where a teacher that is fine-tuned here is kept.
    """
    path = recipe.teacher_model_name_or_path
    processor = load_processor_of(path, f"the teacher {path}")
    with args.main_process_first(desc="reading the recordings"):
        rate = processor.feature_extractor.sampling_rate
        splits = spoken_splits(recipe, load_transcripts(recipe, args.seed), args.seed, rate)
    say(args, f"{recipe.source}: {described(splits, recipe.tested)}")
    start = AutoConfig.from_pretrained(path).decoder_start_token_id
    collate = SpeechCollator(processor, decoder_start=start, max_seconds=recipe.max_seconds)
    kind = ModelKind(AutoModelForSpeechSeq2Seq, "SEQ_2_SEQ_LM", decoder_layers=recipe.student_decoder_layers)
    scoring = DictationScoring(processor.tokenizer, splits["test"]["text"][:], recipe.measure, recipe.normalizer)
    taught, known = everything(splits, "text")
    return (FrozenEncoderExperiment if recipe.freeze_encoder else Experiment)(
        recipe, args, root, kind, splits, processor, scoring,
        {"data_collator": collate, "compute_metrics": scoring.compute_metrics},
        student_splits=DatasetDict({**splits, "train": taught}), teacher_rows=known,
        trainer_class=Seq2SeqDistillationTrainer,
    )  # fmt: skip


RECIPE = Recipe(Arguments, TrainingArguments, experiment)

if __name__ == "__main__":
    run(RECIPE)
