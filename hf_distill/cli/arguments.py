"""What the commands take: plain dataclasses, so that ``--help`` waits for no model library.

Knows: flags, defaults, help. Does not know: what is done with them; nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SourceArguments:
    """Which teacher, and which rows."""

    teacher_model_name_or_path: str = field(metadata={"help": "The teacher: a folder, or an id on the Hub."})
    dataset_name: str = field(
        metadata={
            "help": "A data set on the Hub, a folder of one (also by save_to_disk), or a json, csv or parquet file."
        }
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    dataset_split: str = field(default="train", metadata={"help": "Its split."})
    text_column: str = field(default="text", metadata={"help": "The text; not read where there are input_ids."})
    text_pair_column: str | None = field(default=None, metadata={"help": "A second text."})
    target_column: str | None = field(default=None, metadata={"help": "The text that an encoder-decoder writes."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Default: the teacher's."})
    max_length: int | None = field(
        default=None, metadata={"help": "Cut texts to this many tokens, as training does. Default: the tokenizer's."}
    )
    pad_to_max_length: bool = field(
        default=False,
        metadata={"help": "Pad to max_length, for a teacher that sees padding, if training does so too."},
    )
    max_samples: int | None = field(default=None, metadata={"help": "Only the first rows."})
    teacher_dtype: str = field(
        default="float32", metadata={"help": "The teacher's precision: float32, bfloat16 or float16."}
    )


@dataclass
class CacheArguments(SourceArguments):
    """Which teacher, which rows, what is kept of its answers and where."""

    output_dir: str = field(
        default="teacher_cache", metadata={"help": "The folder of answers; one that is there already is filled up."}
    )
    image_column: str = field(
        default="image",
        metadata={"help": "The image beside a text, or beside a list of texts, for a CLIP-like teacher."},
    )
    hidden_states: bool = field(default=False, metadata={"help": "Keep hidden states too: all layers, all positions."})
    values: str | None = field(
        default=None,
        metadata={"help": "Keep values as float32, float16, bfloat16, int8. Default: as they are computed."},
    )
    top: int = field(
        default=0, metadata={"help": "Keep this many of the highest ids of each distribution; 0: all logits."}
    )
    tail: int = field(default=0, metadata={"help": "And this many ids drawn from the others."})
    temperature: float | None = field(default=None, metadata={"help": "At which top and tail are drawn; training's."})
    tokens_per_batch: int = field(default=4096, metadata={"help": "How many tokens run at once, with padding."})
    torch_compile: bool = field(default=False, metadata={"help": "Compile the teacher."})
    onnx: bool = field(default=False, metadata={"help": 'Run an encoder with ONNX Runtime; needs "hf_distill[onnx]".'})
    push_to_hub: bool = field(default=False, metadata={"help": "Upload the folder as a data set."})
    hub_dataset_id: str | None = field(default=None, metadata={"help": "Its id. Default: the folder's name."})
    hub_private_repo: bool | None = field(default=None, metadata={"help": "Whether it is private."})


@dataclass
class StudentArguments:
    """Which teacher, which part of it, and where the student goes."""

    teacher: str = field(metadata={"help": "The teacher: a folder, or an id on the Hub."})
    output: str = field(metadata={"help": "A new folder for the student, its tokenizer or processor, and its card."})
    layers: list | str | None = field(
        default=None,
        metadata={
            "help": "Which layers stay: a count (spread evenly), top:4 or lowest:4, or a JSON list such as [0,3,6,9]. "
            "Of an encoder-decoder: of its encoder. Of a model in stages: a count for all of them, or a list of how "
            "many or which of each, such as [1,1,3,1] or [[0],[0],[0,2,5],[0]]. Default: all."
        },
    )
    decoder_layers: list | str | None = field(
        default=None, metadata={"help": "The same for a decoder beside an encoder. Default: as in the encoder."}
    )
    vision_layers: list | str | None = field(
        default=None, metadata={"help": "The same for the tower of images beside a text. Default: all of them."}
    )
    hidden_size: int | None = field(default=None, metadata={"help": "The new width; needs --calibration_file."})
    num_heads: int | None = field(default=None, metadata={"help": "The new number of heads; needs the file too."})
    intermediate_size: int | None = field(default=None, metadata={"help": "The new inner width; needs the file too."})
    parameters: float | None = field(
        default=None,
        metadata={
            "help": "A budget: at most so many parameters, or below 1 this share of the teacher's; depth follows, and "
            "with --calibration_file width. Of --layers and --hidden_size one may be fixed."
        },
    )
    megabytes: float | None = field(default=None, metadata={"help": "A budget: at most so many (10**6 bytes)."})
    latency_ms: float | None = field(
        default=None, metadata={"help": "A budget: at most so many for one row, on this CPU; needs the file too."}
    )
    judged: int = field(
        default=1, metadata={"help": "Of a budget's best shapes so many are compared with the teacher, untrained."}
    )
    calibration_file: str | None = field(
        default=None,
        metadata={
            "help": "Texts that show what the teacher uses: txt (one a line), json, csv, parquet; or images: a folder "
            "of them, or parquet."
        },
    )
    calibration_samples: int = field(default=1024, metadata={"help": "Only its first rows."})
    max_length: int = field(default=128, metadata={"help": "Cut them to this many tokens."})
    vocabulary_file: str | None = field(
        default=None, metadata={"help": "Keep only the tokens that these texts use: a file of the same kinds."}
    )
    min_count: int = field(default=1, metadata={"help": "A token must occur so often in them."})
    text_column: str = field(default="text", metadata={"help": "The text in a json, csv or parquet file."})
    text_pair_column: str | None = field(default=None, metadata={"help": "A second text, read behind the first."})
    image_column: str = field(default="image", metadata={"help": "The image in a parquet file."})


@dataclass
class CardArguments:
    """What a card cannot know by itself."""

    license: str | None = field(default=None, metadata={"help": "As the Hub names it: apache-2.0, mit, other, ..."})
    license_name: str | None = field(default=None, metadata={"help": "With license other: its name."})
    license_link: str | None = field(default=None, metadata={"help": "With license other: where it stands."})
    language: list[str] | None = field(default=None, metadata={"help": "Codes: zh, en, ..."})
    datasets: list[str] | None = field(default=None, metadata={"help": "Ids on the Hub of what it was trained on."})
    tags: list[str] | None = field(default=None, metadata={"help": "Further ones."})
    title: str | None = field(default=None, metadata={"help": "The card's heading, and the name of its results."})
    dataset_title: str | None = field(
        default=None, metadata={"help": 'How the card and the report name the data: "Hotel reviews" for reviews.csv.'}
    )
    label_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "The names of the classes in the order of their numbers, for LABEL_0, LABEL_1, ...: in "
            "config.json (what a pipeline says), the card, the report and its picture."
        },
    )


@dataclass
class ExportArguments:
    """In which formats, and on which rows an export is measured; further flags are those of the rows' recipe."""

    format: list[str] = field(
        metadata={"help": "One or several of onnx, onnx-int8, torchao-int8, torchao-int4, openvino."}
    )
    rows: str | None = field(
        default=None,
        metadata={"help": "A file of test rows with the recipe's columns. Default: the rows of the run, if it says."},
    )
    recipe: str | None = field(
        default=None, metadata={"help": "The recipe that reads the rows. Default: the one that made the student."}
    )


@dataclass
class BenchmarkArguments:
    """Which suite scores a finished student, on which tasks, and what stands beside it."""

    suite: str = field(metadata={"help": "lm-eval (causal language models) or mteb (encoders of sentences)."})
    tasks: list[str] = field(metadata={"help": "Names of the suite's tasks, such as arc_easy, or STSBenchmark."})
    include_path: str | None = field(
        default=None,
        metadata={"help": "Further tasks: a folder of lm-eval's YAML files, or a Python file of mteb's classes."},
    )
    limit: int | None = field(
        default=None, metadata={"help": "Only the first rows of each task, to see that everything runs."}
    )
    num_fewshot: int | None = field(
        default=None, metadata={"help": "lm-eval: examples before each row. Default: the task's own."}
    )
    apply_chat_template: bool = field(default=False, metadata={"help": "lm-eval: prompts are turns of a user's."})
    pool: str | None = field(
        default=None,
        metadata={
            "help": "mteb: what a text's vector is, the tokens' mean or the first, where no modules.json says it. "
            "Default: the run's, or mean."
        },
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Cut texts to this many tokens. Default: as many as each model reads."}
    )
    alone: str | None = field(
        default=None, metadata={"help": "The student without its teacher: a path or Hub id. Default: the run's."}
    )
    teacher: str | None = field(default=None, metadata={"help": "A path or Hub id. Default: the run's."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "So many rows run at once."})
    use_cpu: bool = field(default=False, metadata={"help": "Leave an accelerator alone."})


TAKES: dict[str, type] = {
    "cache": CacheArguments,
    "student": StudentArguments,
    "card": CardArguments,
    "export": ExportArguments,
    "benchmark": BenchmarkArguments,
}
"""Command -> what it takes; the other commands' flags are those of a recipe."""

USAGE = {
    "card": "usage: hf-distill card FOLDER [--license mit] [--language zh] [--datasets me/reviews] [--title TEXT] ...",
    "benchmark": "usage: hf-distill benchmark FOLDER [FILE.yaml] --suite lm-eval|mteb --tasks NAME ...",
    "export": "usage: hf-distill export FOLDER --format onnx onnx-int8 ... [--rows FILE] [--recipe NAME] [its flags]",
}
"""Command -> how it is called, where flags do not say it all."""
