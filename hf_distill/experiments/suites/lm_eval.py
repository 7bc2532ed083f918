"""Causal language models under lm-eval, the Language Model Evaluation Harness.

Knows: lm-eval's tasks, models and results. Does not know: runs, tables, how a figure is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_distill.experiments.suites.suite import ROWS_FROM, Asked, Figure, Suite, loading, unknown
from hf_distill.tasks import CausalLM, Task

ERROR = "_stderr"
"""How the name of a figure ends that is another's standard error."""


class LmEval(Suite):
    """The tasks of lm-eval, and those of YAML files under ``include_path``; see ``Suite``.

    Seeds are lm-eval's own (0, and 1234 for the examples before a row), so figures are those of its command line.

    Reference:
        Gao et al.: The Language Model Evaluation Harness, Zenodo 12608602.
    """

    name: ClassVar[str] = "lm-eval"
    extra: ClassVar[str] = "lm_eval"
    package: ClassVar[str] = "lm_eval"
    module: ClassVar[str] = "lm_eval"
    kind: ClassVar[type[Task]] = CausalLM
    scores: ClassVar[str] = "causal language models"
    options: ClassVar[frozenset[str]] = frozenset({"num_fewshot", "apply_chat_template"})

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        from lm_eval.tasks import TaskManager

        if asked.include_path is not None and not Path(asked.include_path).is_dir():
            raise ValueError(
                f"include_path={asked.include_path} was given, which is no folder: name one with YAML files of tasks."
            )
        names = list(dict.fromkeys(asked.tasks))
        self.manager = TaskManager(include_path=asked.include_path, include_defaults=False)
        if not set(names) <= set(
            self.manager.all_subtasks
        ):  # to read the files of 14,000 tasks takes most of a minute
            self.manager = TaskManager(include_path=asked.include_path)
        self.loaded = {}
        for name in names:
            if name not in self.manager.all_tasks:
                raise unknown(type(self), name, self.manager.all_tasks)
            with loading(f"the task {name}", ROWS_FROM):
                self.loaded[name] = self.manager.load([name])

    def score(self, model: str) -> list[Figure]:
        """Score one model as ``lm_eval --model hf`` does, but for ``without_end``; see ``Suite.score``."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        asked = self.asked
        with loading(f"{model} and its tokenizer", "name a causal language model that transformers can load"):
            tokenizer = without_end(AutoTokenizer.from_pretrained(model))
            told: dict[str, Any] = {} if asked.max_length is None else {"max_length": asked.max_length}
            # lm-eval keeps answers by the whole text, so two rows of one text that is divided at another place get the
            # same; public tasks have none, and those that choose a letter are four times as fast with what is kept.
            told["logits_cache"] = asked.include_path is None
            loaded = HFLM(
                pretrained=model, tokenizer=tokenizer, device=asked.device, batch_size=asked.batch_size, **told
            )
        if asked.apply_chat_template and not tokenizer.chat_template:
            raise ValueError(
                f"apply_chat_template was given, and the tokenizer of {model} has no chat template: leave it out."
            )
        tasks = [one for held in self.loaded.values() for one in _outermost(held)]
        found = lm_eval.simple_evaluate(
            loaded,
            tasks=tasks,
            task_manager=self.manager,
            num_fewshot=asked.num_fewshot,
            limit=asked.limit,
            apply_chat_template=asked.apply_chat_template,
        )
        return [one for name, held in self.loaded.items() for one in _figures(found, _shown(found, name, held))]


def without_end(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Let a tokenizer that puts an end behind every text put none: what lm-eval asks for goes on behind it.

    lm-eval encodes a prompt alone and with its answer, and takes the answer's tokens by their place. An end behind the
    prompt would stay in it, and the first token of every answer would be left out.

    Args:
        tokenizer: of a language model; it is changed. One that puts no end stays as it is.

    Example:
        >>> from hf_distill.experiments.tokenizers import text_tokenizer
        >>> made = text_tokenizer(["abc"], 0, begins=True)
        >>> made.convert_ids_to_tokens(made("ab")["input_ids"])
        ['<s>', '▁', 'a', 'b', '</s>']
        >>> made.convert_ids_to_tokens(without_end(made)("ab")["input_ids"])
        ['<s>', '▁', 'a', 'b']
    """
    ids, plain = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    if len(ids) == len(plain) or ids[-1] != tokenizer.eos_token_id:
        return tokenizer
    begin = tokenizer.convert_ids_to_tokens(ids[: len(ids) - len(plain) - 1])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*begin, "$A"], special_tokens=[(one, tokenizer.convert_tokens_to_ids(one)) for one in begin]
    )
    return tokenizer


def _outermost(held: Mapping[str, Any]) -> list[Any]:
    """What was asked for by one name: a group with all that is in it, or tasks."""
    groups = held.get("groups") or {}
    inside = {child for children in (held.get("group_map") or {}).values() for child in children}
    return [one for name, one in groups.items() if name not in inside] or list(held["tasks"].values())


def _shown(found: Mapping[str, Any], name: str, held: Mapping[str, Any]) -> list[str]:
    """Whose figures are shown for a name: those of the group, if it has any, or those of each of its tasks."""
    return [name] if any("," in key for key in found["results"].get(name, ())) else list(held["tasks"])


def _figures(found: Mapping[str, Any], names: list[str]) -> Iterator[Figure]:
    for name in names:
        results = found["results"][name]
        samples = found.get("samples", {}).get(name, ())
        better = found["higher_is_better"].get(name) or {}
        rows = found["n-samples"].get(name, {}).get("effective", results.get("sample_len", 0))
        for key, value in results.items():
            metric, comma, rule = key.partition(",")
            if not comma or metric.endswith(ERROR) or not isinstance(value, (int, float)):
                continue
            error = results.get(f"{metric}{ERROR},{rule}")
            yield Figure(
                task=name,
                metric=metric if rule == "none" else f"{metric} ({rule})",
                value=float(value),
                error=float(error) if isinstance(error, (int, float)) else None,
                rows=int(rows),
                lower_is_better=better.get(metric) is False,
                each=_each([one.get(metric) for one in samples if one["filter"] == rule], float(value)),
                settings={"shots": found["n-shot"].get(name), "task version": found["versions"].get(name)},
            )


def _each(values: list[Any], mean: float) -> np.ndarray | None:
    """What a figure is the mean of; None where it is something else: a ratio of sums, a rank correlation."""
    if not values or not all(isinstance(one, (int, float)) for one in values):
        return None
    each = np.asarray(values, dtype=np.float64)
    return each if np.isclose(each.mean(), mean, rtol=1e-9, atol=1e-12) else None
