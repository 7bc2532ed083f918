"""Whether two tokenizers read the same ids as the same tokens.

Knows: tokenizers, where models keep theirs, columns of data sets. Does not know: models, batches, trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import datasets
import xxhash
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_distill.models.facts import Facts
from hf_distill.tasks.alignment.tokens import PREFIX, TokenAlignment
from hf_distill.tasks.comparing import reads_own

__all__ = ["PREFIX", "check_tokenizers", "columns_of", "introduce", "own_tokens", "tokenizer_at", "vocabulary_of"]

_BOTH = "tokenise with both and put the teacher's into columns teacher_input_ids, teacher_attention_mask, ..."


_SEEN: WeakKeyDictionary[datasets.IterableDataset, tuple[str, ...]] = WeakKeyDictionary()


def columns_of(dataset: Any) -> tuple[str, ...]:
    """Name the columns of a data set; of a list or a stream that does not say them, those of its first row.

    Args:
        dataset: a training set, or None.

    Returns:
        The names; none where they are not known before a batch is made.

    Example:
        >>> columns_of([{"input_ids": [5], "teacher_input_ids": [6]}]), columns_of(None)
        (('input_ids', 'teacher_input_ids'), ())
    """
    names = getattr(dataset, "column_names", None)
    if names is None and isinstance(dataset, (list, tuple)):
        names = dataset[0] if dataset and isinstance(dataset[0], Mapping) else ()
    elif names is None and isinstance(dataset, datasets.IterableDataset):  # `map` leaves it without names
        if dataset not in _SEEN:
            _SEEN[dataset] = tuple(next(iter(dataset), ()))
        names = _SEEN[dataset]
    return tuple(names or ())


def own_tokens(dataset: Any) -> bool:
    """Say whether a teacher reads tokens of its own: the data set has columns ``teacher_input_ids``, ...

    Args:
        dataset: a training set, or None.

    Example:
        >>> own_tokens([{"input_ids": [5], "teacher_input_ids": [6]}]), own_tokens(None)
        (True, False)
    """
    return reads_own(columns_of(dataset))


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


def vocabulary_of(tokenizer: Any) -> str | None:
    """Hash which token has which id; None where there is no tokenizer.

    Args:
        tokenizer: a tokenizer, a processor, or None.
    """
    if not hasattr(tokenizer, "get_vocab"):
        return None
    state = xxhash.xxh3_128()
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        state.update(f"{index}|{token}|".encode())
    return state.hexdigest()


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
    if not isinstance(ours, PreTrainedTokenizerBase) or reads_own(columns):
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


def introduce(alignment: Any, student: Facts, ours: Any, teacher: Any, dataset: Any) -> None:
    """Tell an alignment which tokens the student and each teacher have.

    Tokenizers are looked for beside the weights only where the models' sizes, the data set's columns or the alignment
    ask for them.

    Args:
        alignment: the task's; see ``Alignment``.
        student: what is known of the student.
        ours: its tokenizer or processor, or None.
        teacher: the teacher, prepared.
        dataset: the training set.

    Raises:
        ValueError: in one sentence, if two vocabularies cannot be compared; see ``Alignment.meet``.
    """
    own, given = own_tokens(dataset), ours
    plain, members = isinstance(alignment, TokenAlignment), teacher.members or {None: teacher}
    for name, one in members.items():
        sizes = {one.facts.vocab_size, student.vocab_size} - {None}
        ours, theirs = given, one.tokenizer
        if not plain or own or len(sizes) > 1:
            ours = getattr(ours, "tokenizer", ours) or tokenizer_at(student.name)
            theirs = theirs or (
                ours if one.vocabulary and one.vocabulary == vocabulary_of(ours) else tokenizer_at(one.facts.name)
            )
        both = (_vocabulary(ours), _vocabulary(theirs))
        alignment.meet(student, both[0], one.facts, both[1], own, name)
    first = next(name for name in members if teacher.weights.get(name, 1))
    if own and any(known[1] != alignment.known[first][1] for known in alignment.known.values()):
        raise ValueError(
            f"the teachers {', '.join(members)} have different tokenizers and would all read {PREFIX}input_ids: use "
            "teachers with one tokenizer."
        )
    alignment.known[None] = alignment.known[first]  # that of their mean, which reads what each of them does


def _vocabulary(tokenizer: Any) -> dict[str, int] | None:
    return tokenizer.get_vocab() if isinstance(tokenizer, PreTrainedTokenizerBase) else None
