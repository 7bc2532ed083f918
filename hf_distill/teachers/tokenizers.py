"""Whether two tokenizers read the same ids as the same tokens.

Knows: tokenizers, and where models keep theirs. Does not know: models, batches, trainers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_distill.signals import Facts

PREFIX = "teacher_"
"""A batch column ``teacher_input_ids`` is the teacher's ``input_ids``, and nobody else's."""

_BOTH = "tokenise with both and put the teacher's into columns teacher_input_ids, teacher_attention_mask, ..."


def tokenizer_at(name: str | Path) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer beside a model; None where there is none, or none without asking the network again.

    Args:
        name: a path or Hub id.
    """
    if Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").is_file():
        return None
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=not Path(name).is_dir())
    except (OSError, ValueError, KeyError):
        return None


def check_tokenizers(
    teacher: Facts, theirs: PreTrainedTokenizerBase | None, ours: Any, columns: Iterable[str]
) -> None:
    """Refuse a teacher that would read the student's token ids as other tokens.

    Args:
        teacher: what is known of it.
        theirs: its tokenizer; None looks for the one beside its weights.
        ours: the trainer's processing class; nothing is compared unless it is a tokenizer.
        columns: the data set's; a teacher with columns of its own has tokens of its own.

    Raises:
        ValueError: in one sentence.
    """
    if not isinstance(ours, PreTrainedTokenizerBase) or any(name.startswith(PREFIX) for name in columns):
        return
    theirs = theirs or tokenizer_at(teacher.name)
    if theirs is None:
        known = teacher.vocab_size
        if known is not None and len(ours) > known:
            raise ValueError(
                f"the student's tokenizer has {len(ours)} tokens, the teacher {teacher.name} knows {known}: use the "
                f"teacher's tokenizer for both, or {_BOTH}."
            )
        return
    vocabulary = theirs.get_vocab()
    moved = sum(vocabulary.get(token) != index for token, index in ours.get_vocab().items())
    if moved:
        raise ValueError(
            f"the teacher {teacher.name} and the student read the same input_ids, but {moved} of the student's "
            f"{len(ours)} tokens have another id or none in the teacher's tokenizer: use one tokenizer for both, or "
            f"{_BOTH}."
        )
