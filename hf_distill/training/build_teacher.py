"""A Teacher of whatever a user passes: a model, a path, a function, several of these.

Knows: how each is loaded, in which precision. Does not know: batches, terms, the student.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from hf_distill.cache.hub import HUB, pulled
from hf_distill.cache.store import holds_answers
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.cache.towers import CachedTowers
from hf_distill.models.decoders import load_decoder
from hf_distill.models.denoisers import load_diffusers_model
from hf_distill.models.image_text import has_two_towers
from hf_distill.models.timm import timm_named
from hf_distill.tasks import Generating, Task
from hf_distill.tasks.alignment.tokenizers import tokenizer_at
from hf_distill.teachers.column import COLUMN, ColumnTeacher
from hf_distill.teachers.ensemble import Several
from hf_distill.teachers.function import FunctionTeacher
from hf_distill.teachers.live import LiveTeacher
from hf_distill.teachers.teacher import Teacher


def build_teacher(
    spec: Any, task: Task, dtype: torch.dtype | None = None, quantization: str | Mapping[str, Any] | None = None
) -> Teacher:
    """Make a teacher of whatever a user passes as ``teacher_model``.

    Args:
        spec: a model or module, a path or Hub id, a folder of kept answers or ``hf://datasets/`` and the id of one
            on the Hub, ``column:`` and the name of a column (see ``ColumnTeacher``), a Teacher, or a function ``batch
            -> logits``; or a list of these, or a mapping from names to these: ``Several`` with its defaults.
        task: how to load and read it.
        dtype: the precision of a model's weights and computation; None leaves it as it is.
        quantization: how to quantise a model while it is loaded; see ``quantization_config``.

    Returns:
        The Teacher; a Teacher is returned as it is, of several the ones that are no Teachers yet are made such.

    Raises:
        ValueError: the path or Hub id holds a model without a trained head, or something is to be cast or quantised
            that cannot be.
        ImportError: the library that quantises is not installed.
        TypeError: ``spec`` is something else.

    Example:
        >>> from hf_distill.tasks import SequenceClassification
        >>> build_teacher(nn.Linear(4, 2), SequenceClassification(num_labels=2)).facts.name
        'Linear'
    """
    if isinstance(spec, (list, tuple, Mapping)):
        spec = Several(spec)
    if isinstance(spec, Several) and not spec.members:
        return spec.loaded(lambda one: build_teacher(one, task, dtype, quantization))
    if isinstance(spec, str) and spec.startswith(COLUMN):
        spec = ColumnTeacher.named(spec)
    path = isinstance(spec, (str, Path))
    if path and (str(spec).startswith(HUB) or holds_answers(spec)):
        return CachedTeacher(folder=pulled(str(spec)))
    if quantization is not None and not path:
        raise ValueError(
            f"teacher_quantization={quantization!r} was given for a {type(spec).__name__}, but a model is quantised "
            "while it is loaded: pass the teacher's path or Hub id, or quantise it yourself."
        )
    if dtype is not None and not path and not isinstance(spec, nn.Module):
        raise ValueError(
            f"teacher_dtype={dtype} was given for a {type(spec).__name__}, which is not loaded here: leave "
            "teacher_dtype out."
        )
    if path:
        if task.library == "diffusers":
            if quantization is not None:
                raise ValueError(
                    f"teacher_quantization={quantization!r} was given for a model of diffusers at {spec}: load it "
                    "quantised by diffusers, and pass the model."
                )
            load = load_decoder if isinstance(task, Generating) else load_diffusers_model
            return LiveTeacher(load(spec, f"the teacher at {spec}"), dtype=dtype)
        options = {} if dtype is None else {"dtype": dtype}
        if quantization is not None:
            options["quantization_config"] = quantization_config(quantization)
        auto = getattr(transformers, task.auto_class)
        with timm_named(f"the teacher at {spec}"):
            model, info = auto.from_pretrained(spec, output_loading_info=True, **options)
        # Without a head hidden states are read, which do not hang on the pooler.
        untrained = {key for key in info["missing_keys"] if task.label_names or "pooler" not in key}
        if missing := sorted(untrained):
            raise ValueError(
                f"the teacher at {spec} has no trained weights for {', '.join(missing)}: fine-tune it on your task "
                "first, an untrained head teaches noise."
            )
        return LiveTeacher(model, tokenizer=tokenizer_at(spec), dtype=None if quantization else dtype)
    if isinstance(spec, nn.Module):
        return LiveTeacher(spec, dtype=dtype)
    if isinstance(spec, Teacher):
        return spec
    if hasattr(spec, "serves"):
        raise TypeError(
            f"teacher_model is a {type(spec).__name__}, which is no Teacher: make it a subclass of hf_distill.Teacher."
        )
    if callable(spec):
        return FunctionTeacher(spec)
    raise TypeError(
        f"teacher_model is a {type(spec).__name__}: give a model, a path or Hub id, a hf_distill.Teacher, a function "
        "from a batch to logits, or a list of these."
    )


def with_cache(
    teacher: Teacher, cache: str = "auto", gb: float = 4.0, whole_window: bool = False, prepass: bool = False
) -> Teacher:
    """Put a memory around a teacher.

    Args:
        teacher: any; one that has a memory keeps its own, one whose answers lie in the data set needs none.
        cache: ``auto`` remembers models where the run sees rows more than once, ``off`` nothing; any other word is
            the folder in which every kind of teacher's answers are kept.
        gb: how many 10**9 bytes of memory the answers may take, in each process.
        whole_window: ask for all micro-batches of an optimizer step at once.
        prepass: ask for all training rows before the first step, sorted by length.

    Returns:
        A ``CachedTeacher``, ``CachedTowers`` of a model of images and texts, or the teacher as it is.

    Raises:
        ValueError: answers are to be kept of a teacher that changes while the student learns.

    Example:
        >>> type(with_cache(LiveTeacher(nn.Linear(4, 2)))).__name__
        'CachedTeacher'
    """
    if isinstance(teacher, Several):  # each has its own rows, weights and folder; their mean is none of these
        kept = teacher.each(
            lambda name, one: with_cache(
                one, cache if cache in ("auto", "off") else str(Path(cache) / name), gb / len(teacher.members),
                whole_window, prepass,
            )
        )  # fmt: skip
        return teacher if all(kept.members[n] is one for n, one in teacher.members.items()) else kept
    known = cache in ("auto", "off")
    if teacher.moves:
        if not known or whole_window or prepass:
            raise ValueError(
                f"teacher_cache={cache!r}, teacher_whole_window={whole_window} and teacher_prepass={prepass} were "
                f"asked for {teacher.facts.name}, whose answers change while the student learns: leave them out."
            )
        return teacher
    if isinstance(teacher, (CachedTeacher, ColumnTeacher)) or (known and not isinstance(teacher, LiveTeacher)):
        return teacher
    if cache == "off" and not whole_window:
        return teacher
    if cache == "auto" and not (whole_window or prepass) and has_two_towers(teacher.model):
        return CachedTowers(teacher, gb)
    folder = None if known else cache
    return CachedTeacher(
        teacher, folder, 0 if cache == "off" else gb, whole_window=whole_window, prepass=prepass and cache != "off"
    )


def quantization_config(spec: str | Mapping[str, Any]) -> Any:
    """Make transformers' quantisation configuration of what a user wrote.

    Args:
        spec: ``"bitsandbytes_8bit"``, ``"bitsandbytes_4bit"``, ``"torchao_int8"`` (weights only), or a mapping with
            ``quant_method`` and that method's own options, as in a model's ``config.json``.

    Returns:
        What ``from_pretrained`` takes as ``quantization_config``.

    Raises:
        ValueError: a name or a method that is not known.
        ImportError: the library is not installed; the message names the extra that brings it.

    Example:
        >>> quantization_config("int3")
        Traceback (most recent call last):
        ...
        ValueError: teacher_quantization='int3' is not known: use bitsandbytes_8bit, bitsandbytes_4bit, torchao_int8, \
or a mapping with quant_method.
    """
    names = ("bitsandbytes_8bit", "bitsandbytes_4bit", "torchao_int8")
    method = spec.get("quant_method") if isinstance(spec, Mapping) else spec.partition("_")[0]
    if (isinstance(spec, str) and spec not in names) or not isinstance(method, str):
        raise ValueError(
            f"teacher_quantization={spec!r} is not known: use {', '.join(names)}, or a mapping with quant_method."
        )
    if method in ("bitsandbytes", "torchao") and importlib.util.find_spec(method) is None:
        raise ImportError(
            f"teacher_quantization={spec!r} needs {method}, which is not installed: pip install "
            f'"hf_distill[{method}]".'
        )
    if isinstance(spec, Mapping):
        from transformers.quantizers.auto import AutoQuantizationConfig

        return AutoQuantizationConfig.from_dict(dict(spec))
    if method == "bitsandbytes":
        return transformers.BitsAndBytesConfig(load_in_8bit=spec.endswith("8bit"), load_in_4bit=spec.endswith("4bit"))
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())
