"""Encoders of sentences under MTEB, the Massive Text Embedding Benchmark.

Knows: mteb's tasks, their rows and results. Does not know: runs, tables, how a figure is shown.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Collection, MutableMapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from hf_distill.experiments.suites.suite import ROWS_FROM, Asked, Figure, Suite, loading, unknown
from hf_distill.tasks import SentenceEmbedding, Task

MODULES = "modules.json"
"""What says how sentence-transformers makes a vector; a run of ``sentence_embeddings`` writes none."""
POOLING = {"mean": "mean", "first": "cls"}
"""This package's words for what a text's vector is -> sentence-transformers'."""


class Mteb(Suite):
    """The tasks of mteb, and those of the classes in a file, ``include_path``; see ``Suite``.

    The seed is mteb's own (42), and each model begins with it. It gives no standard errors.

    Reference:
        Muennighoff et al.: MTEB: Massive Text Embedding Benchmark, arXiv:2210.07316.
    """

    name: ClassVar[str] = "mteb"
    extra: ClassVar[str] = "mteb"
    package: ClassVar[str] = "mteb"
    module: ClassVar[str] = "mteb"
    kind: ClassVar[type[Task]] = SentenceEmbedding
    scores: ClassVar[str] = "encoders of sentences"
    options: ClassVar[frozenset[str]] = frozenset({"pool"})

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        import mteb

        own = _own_tasks(asked.include_path) if asked.include_path else {}
        self.tasks, self.rows = [], []
        for name in dict.fromkeys(asked.tasks):
            try:
                task = own[name]() if name in own else mteb.get_task(name)
            except KeyError as error:
                known = [*own, *(one.metadata.name for one in mteb.get_tasks(exclude_superseded=False))]
                raise unknown(type(self), name, known) from error
            with loading(f"the task {name}", ROWS_FROM):
                self.rows.append(sum(_load(one, asked.limit) for one in _parts(task)))
            if asked.limit is not None and not self.rows[-1]:
                raise ValueError(
                    f"limit={asked.limit} was given, and the rows of {name} cannot be counted: leave it out."
                )
            self.tasks.append(task)

    @classmethod
    def takes(cls, task: Task, folder: Path) -> bool:
        """Whatever sentence-transformers wrote too; see ``Suite.takes``."""
        return super().takes(task, folder) or (folder / MODULES).is_file()

    def score(self, model: str) -> list[Figure]:
        """Score one model, in the dtype of its weights, by the main score of each task; see ``Suite.score``."""
        import mteb

        with loading(f"{model} and its tokenizer", "name an encoder of sentences that transformers can load"):
            encoder = self._encoder(model)
        for one in (part for task in self.tasks for part in _parts(task)):
            one.rng_state, one.np_rng = random.Random(one.seed), np.random.default_rng(one.seed)
        found = mteb.evaluate(
            encoder,
            self.tasks,
            encode_kwargs={"batch_size": self.asked.batch_size, "show_progress_bar": False},
            cache=None,
            co2_tracker=False,
        )
        return [
            Figure(
                task=task.metadata.name,
                metric=task.metadata.main_score,
                value=float(result.get_score()),
                error=None,
                rows=rows,
                settings={"pool": self.asked.pool, "task version": dict(task.metadata.dataset).get("revision")},
            )
            for task, rows, result in zip(self.tasks, self.rows, found.task_results, strict=True)
        ]

    def _encoder(self, model: str) -> Any:
        """Load a model as sentence-transformers wrote it, or as the recipe trains it: tokens and a pool."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        if not Path(model).is_dir() or (Path(model) / MODULES).is_file():
            encoder = SentenceTransformer(model, device=self.asked.device)
        else:
            tokens = Transformer(model)
            pool = Pooling(tokens.get_embedding_dimension(), POOLING[self.asked.pool])
            encoder = SentenceTransformer(modules=[tokens, pool], device=self.asked.device)
        if self.asked.max_length is not None:
            encoder.max_seq_length = self.asked.max_length
        return encoder.eval()


def _own_tasks(path: str) -> dict[str, type]:
    """Find the tasks that a file defines, by their names."""
    from mteb import AbsTask

    if Path(path).suffix != ".py" or not Path(path).is_file():
        raise ValueError(
            f"include_path={path} was given, which is no file of Python: name one with classes of tasks "
            "(mteb.AbsTask)."
        )
    name = f"_tasks_of_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        del sys.modules[name]
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} could not be run ({type(error).__name__}: {said}): correct it.") from error
    made = (one for one in vars(module).values() if isinstance(one, type) and one.__module__ == name)
    return {one.metadata.name: one for one in made if issubclass(one, AbsTask) and hasattr(one, "metadata")}


def _parts(task: Any) -> list[Any]:
    """A task that is the mean of others is these."""
    return list(task.metadata.tasks) if task.is_aggregate else [task]


def _load(task: Any, limit: int | None) -> int:
    """Load a task's rows once for all models, keep the first ones, and say how many are scored."""
    task.load_data()
    if hasattr(task, "convert_v1_dataset_format_to_v2"):  # older retrieval tasks hold their queries elsewhere
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    return _shorten(task.dataset or {}, frozenset(task.eval_splits), limit)


def _shorten(held: MutableMapping[str, Any], splits: Collection[str], limit: int | None) -> int:
    """Keep the first rows that are scored, or the first queries with all documents; return how many there are."""
    count = 0
    for name, one in held.items():
        if isinstance(one, Dataset):
            if name in splits:
                held[name] = one if limit is None else one.select(range(min(limit, len(one))))
                count += len(held[name])
        elif isinstance(one, MutableMapping) and isinstance(one.get("queries"), Dataset):
            if name in splits:
                count += _shorten(one, {"queries"}, limit)
        elif isinstance(one, MutableMapping):
            count += _shorten(one, splits, limit)
    return count
