"""How a student was made, kept in its configuration: one entry a step, so that it is saved and loaded with it.

Knows: the steps that this room can take and how to say them. Does not know: how a step is done, how a card is written.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from hf_distill.models.facts import Facts


def record(student: Any, teacher: Any, step: str, **what: Any) -> None:
    """Add a step to ``student.config.distillation``; the teacher's own steps come first, as its student has them too.

    Args:
        student: just made; its configuration is its own.
        teacher: what it was made from. Of a local folder only the last name is kept, which says nothing of a machine.
        step: the function that made it.
        what: how, in values that JSON can hold.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> sizes = dict(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        >>> model = BertModel(BertConfig(**sizes))
        >>> record(model, model, "keep_layers", layers=[0], depth=1)
        >>> model.config.distillation
        [{'step': 'keep_layers', 'teacher': 'BertModel', 'revision': None, 'layers': [0], 'depth': 1}]
    """
    facts = Facts.of(teacher)
    who = {"step": step, "teacher": named(facts.name), "revision": facts.revision}
    steps = [*copy.deepcopy(steps_of(teacher.config)), {**who, **what}]
    if hasattr(student, "register_to_config"):  # of diffusers, which warns of words that its classes do not know
        student.register_to_config(_distillation=steps)
    else:
        student.config.distillation = steps


def steps_of(config: Any) -> list[Any]:
    """Return the steps in which a model was made, oldest first.

    Args:
        config: a model's, of transformers or of diffusers; None has none.

    Example:
        >>> from transformers import BertConfig
        >>> steps_of(BertConfig(distillation=[{"step": "keep_layers"}])), steps_of(None)
        ([{'step': 'keep_layers'}], [])
    """
    return list(getattr(config, "distillation", None) or getattr(config, "_distillation", None) or [])


def named(name: str) -> str:
    """Name a model so that it can be published: a Hub id as it is, of a folder its last name.

    Args:
        name: an id or a path.

    Example:
        >>> named("google-bert/bert-base-chinese"), named("/data/me/teacher")
        ('google-bert/bert-base-chinese', 'teacher')
    """
    path = Path(name)
    return path.name if path.is_absolute() or name.startswith((".", "~")) or path.exists() else name


def lineage(model: Any) -> list[str]:
    """Say in plain sentences how a student was made, oldest step first.

    Args:
        model: a model, or its configuration.

    Returns:
        One sentence a step; none for a model that was not made here.

    Example:
        >>> from transformers import BertConfig
        >>> lineage(BertConfig(distillation=[{"step": "keep_layers", "teacher": "big", "layers": [0, 3]}]))
        ['Layers 0 and 3 of `big` were kept.']
    """
    config = model if isinstance(model, PretrainedConfig) else getattr(model, "config", None)
    return [_sentence(dict(step)) for step in steps_of(config)]


def _sentence(step: dict[str, Any]) -> str:
    name, revision = step.pop("step", "a step"), step.pop("revision", None)
    whom = f"`{step.pop('teacher', 'a model')}`" + (f" (revision `{revision[:8]}`)" if revision else "")
    say = SENTENCES.get(name)
    try:
        return say(whom, step)
    except (KeyError, TypeError):  # a step of another version, or one that somebody wrote by hand
        return f"`{name}` was done to {whom}" + (f" with {step}." if step else ".")


def _kept_layers(whom: str, step: dict[str, Any]) -> str:
    if step.get("shared"):
        return f"The one layer of {whom} is passed {len(step['layers'])} times."
    if any(isinstance(one, list) for one in step["layers"]):
        stages = [f"{_some('layer', some)} of stage {stage}" for stage, some in enumerate(step["layers"], start=1)]
        return f"Of {whom} {'; '.join(stages)} were kept."
    if "vision_layers" in step:
        both = f"text {_some('layer', step['layers'])} and image {_some('layer', step['vision_layers'])}"
        return f"Of {whom} {both} were kept."
    if "decoder_layers" not in step:
        return f"{_some('Layer', step['layers'])} of {whom} {_were(step['layers'])} kept."
    encoder, decoder = step["layers"], step["decoder_layers"]
    return f"Of {whom} encoder {_some('layer', encoder)} and decoder {_some('layer', decoder)} were kept."


def _shrunk(whom: str, step: dict[str, Any]) -> str:
    sizes = [f"{name.replace('_', ' ')} {old} to {new}" for name, (old, new) in step["sizes"].items()]
    seen = f"{step['positions']} positions" if "positions" in step else f"{step['tokens']} tokens"
    return f"By importance over {seen}, {whom} was cut: {', '.join(sizes)}."


def _fresh(whom: str, step: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in step["sizes"].items())
    if step["embeddings"] == "absent":
        return f"It began as a random model of the kind of {whom} ({sizes})."
    how = {"copied": "copied", "reduced": "reduced to their main directions", "none": "random"}[step["embeddings"]]
    return f"It began as a random model of the kind of {whom} ({sizes}); its word embeddings were {how}."


def _trimmed(whom: str, step: dict[str, Any]) -> str:
    return f"Of the {step['before']:,} tokens of {whom} the {step['after']:,} that a corpus needs were kept."


def _cut(whom: str, step: dict[str, Any]) -> str:
    middle = "" if step["mid_block"] else ", and no middle block"
    return f"Of {whom} each stage kept {step['pairs']} of {step['of']} layers{middle}."


def _drafted(whom: str, step: dict[str, Any]) -> str:
    read = _some("layer", step["layers"])
    return f"It reads what enters {read} of {whom}, whose embeddings and head it has, and began as a random layer."


def _pruned(whom: str, step: dict[str, Any]) -> str:
    which = f"the smallest {step['amount']:.0%} of the weights" if "amount" in step else "two of each four weights"
    return f"In {step['layers']} linear layers of {whom} {which} are zero."


def _fitted(whom: str, step: dict[str, Any]) -> str:
    what, limit, spent = step["budget"], step["limit"], step["spent"]
    unit = {"parameters": "parameters", "megabytes": "MB", "latency_ms": "ms"}[what]
    shown = "{:,.0f}" if what == "parameters" else "{:,.3g}"
    near = f", the nearest to its teacher of {step['judged']}" if "judged" in step else ""
    both = f"{shown.format(spent)} of at most {shown.format(limit)} {unit}"
    return f"So it was chosen of {step['shapes']} shapes of {whom}{near}, to have {both}."


def _in_round(whom: str, step: dict[str, Any]) -> str:
    both = f"{step['spent']:,} of at most {step['limit']:,.0f} parameters"
    return f"So {whom} was cut before round {step['round']} of {step['rounds']}, to {both}."


SENTENCES = {
    "cut_to": _in_round,
    "cut_unet": _cut,
    "draft_head": _drafted,
    "fit_budget": _fitted,
    "keep_layers": _kept_layers,
    "prune_2_4": _pruned,
    "prune_magnitude": _pruned,
    "shrink_width": _shrunk,
    "fresh_student": _fresh,
    "trim_vocabulary": _trimmed,
}
"""Step -> how it is said."""


def _some(noun: str, numbers: Sequence[int]) -> str:
    *first, last = (str(number) for number in numbers)
    return f"{noun}s {', '.join(first)} and {last}" if first else f"{noun} {last}"


def _were(numbers: Sequence[int]) -> str:
    return "was" if len(numbers) == 1 else "were"
