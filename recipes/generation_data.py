"""Where the rows of recipes of models that write come from, and what makes tokens of them.

Knows: files, the Hub, tokenizers. Does not know: what a row is made of, models, training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_files import read_rows
from datasets import DatasetDict, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPLITS = ("train", "validation", "test")
PAD, BEGIN, END, UNKNOWN = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


@dataclass
class GenerationArguments:
    """Where the rows come from, and the models."""

    dataset_name: str | None = field(default=None, metadata={"help": "A data set on the Hub, or a folder of one."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "json, jsonl, jsonl.gz, csv or parquet."})
    validation_file: str | None = field(
        default=None, metadata={"help": "The same; default: 5 %% of the training rows."}
    )
    test_file: str | None = field(default=None, metadata={"help": "The same; default: the validation rows."})
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Use this many training rows, drawn by seed."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use this many rows of the other splits."})
    vocab_size: int = field(
        default=0, metadata={"help": "Tokens of a tokenizer made here, by byte-pair encoding. Default: characters."}
    )
    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a teacher is trained here, once, and kept."}
    )
    teacher_layers: int = field(default=3, metadata={"help": "Layers of a teacher that is trained from nothing."})
    teacher_hidden_size: int = field(default=192, metadata={"help": "Its width, in heads of 64."})
    teacher_epochs: float = field(default=3.0, metadata={"help": "Epochs of training it."})
    teacher_learning_rate: float = field(default=1e-3, metadata={"help": "Its peak learning rate."})
    student_model_name_or_path: str | None = field(
        default=None, metadata={"help": "A path or Hub id. Default: a small model of the teacher's kind."}
    )
    student_layers: int = field(default=1, metadata={"help": "Layers of a student made here."})
    student_hidden_size: int = field(default=64, metadata={"help": "Its width, in heads of 64."})
    student_from_teacher: bool = field(
        default=False, metadata={"help": "Copy the student's layers from the teacher; same width."}
    )
    skip_alone: bool = field(default=False, metadata={"help": "Do not train the student without its teacher."})
    num_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU. Default: all cores, shared by the processes."}
    )

    @property
    def source(self) -> str | None:
        """How to name the data in a report: a Hub id or a file's name; None: what comes with a package."""
        return self.dataset_name or (Path(self.train_file).name if self.train_file else None)


def load_splits(recipe: GenerationArguments, embedded: Callable[[], DatasetDict], seed: int) -> DatasetDict:
    """Load ``train``, ``validation`` and ``test``, whatever their columns.

    Args:
        recipe: where they come from.
        embedded: reads the rows that come with a package; used where nothing is named.
        seed: of the draw, where fewer rows are asked for than there are.

    Raises:
        ValueError: a missing, empty or unreadable file.
    """
    files = {"train": recipe.train_file, "validation": recipe.validation_file, "test": recipe.test_file}
    if recipe.train_file:
        splits = DatasetDict({name: read_rows(path) for name, path in files.items() if path})
    elif recipe.validation_file or recipe.test_file:
        raise ValueError("validation_file or test_file was given without train_file: name the training rows as well.")
    elif recipe.dataset_name:
        splits = load_dataset(recipe.dataset_name, recipe.dataset_config_name)
    else:
        splits = embedded()
    if "train" not in splits:
        raise ValueError(f"{recipe.source} has the splits {list(splits)} and no 'train': name another data set.")
    if "validation" not in splits:
        cut = splits["train"].train_test_split(test_size=0.05, seed=seed)
        splits["train"], splits["validation"] = cut["train"], cut["test"]
    splits = DatasetDict({**splits, "test": splits.get("test", splits["validation"])})
    for name in SPLITS:
        limit = recipe.max_train_samples if name == "train" else recipe.max_eval_samples
        if limit is not None and limit < len(splits[name]):
            splits[name] = splits[name].shuffle(seed=seed).select(range(limit))
    return DatasetDict({name: splits[name] for name in SPLITS})


def check_columns(splits: DatasetDict, wanted: Sequence[str], flags: str) -> None:
    """Refuse rows that lack a column.

    Args:
        splits: the rows.
        wanted: the columns.
        flags: the flags that name them.

    Raises:
        ValueError: in one sentence.
    """
    for name, rows in splits.items():
        if missing := [column for column in wanted if column not in rows.column_names]:
            raise ValueError(
                f"the {name} rows have the columns {rows.column_names}, {missing} was asked for: name them with "
                f"{flags}."
            )


def shared_tokenizer(
    recipe: GenerationArguments, make: Callable[[], PreTrainedTokenizerBase]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the student, if it is given, or the teacher's, or one that is made here.

    Args:
        recipe: the models.
        make: makes one of the training texts.
    """
    path = recipe.student_model_name_or_path or recipe.teacher_model_name_or_path
    return AutoTokenizer.from_pretrained(path) if path else make()


def text_tokenizer(
    texts: Sequence[str], size: int = 0, begins: bool = False, alphabet: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of byte-pair encoding; with fewer tokens than there are characters, these are the tokens.

    Args:
        texts: the training texts.
        size: how many tokens it is to have.
        begins: whether a text begins with ``<s>``; it always ends with ``</s>``.
        alphabet: more characters, which stay tokens of their own.

    Example:
        >>> made = text_tokenizer(["天气 tian qi"])
        >>> made.decode(made("天天 tan")["input_ids"], skip_special_tokens=True)
        '天天 tan'
    """
    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # Punctuation stands alone, or a sentence's last word would be another token than the same word within it.
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    made.decoder = decoders.Metaspace()
    teaching = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), initial_alphabet=list(alphabet),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(texts, teaching)
    single = f"{BEGIN} $A {END}" if begins else f"$A {END}"
    ids = [(token, made.token_to_id(token)) for token in (BEGIN, END)]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN, **({"bos_token": BEGIN} if begins else {})}
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **special)
