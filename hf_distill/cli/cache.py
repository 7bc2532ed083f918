"""``hf-distill cache``: ask a teacher for every row of a data set, once, and keep its answers in a folder.

Knows: flags, what to report. Does not know: how models and rows are loaded, how answers are kept or told apart.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, send_to_device
from datasets import Dataset
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, DataCollatorWithPadding

from hf_distill.arguments import check_folder
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.hub import push
from hf_distill.cache.identity import header_of, precision_of
from hf_distill.cache.prefill import fill
from hf_distill.cache.store import DATA, Store
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.cli.arguments import CacheArguments
from hf_distill.cli.pairs import check_texts_alone, lengths_in, pairs_of
from hf_distill.cli.sources import load_rows, load_teacher, tokenised
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.models.fingerprint import weights_of
from hf_distill.objectives.functional import forward_kl
from hf_distill.tasks import Task
from hf_distill.tasks.alignment.tokenizers import vocabulary_of
from hf_distill.teachers.live import LiveTeacher


def main(argv: Sequence[str]) -> None:
    """Fill a folder.

    Args:
        argv: flags, or a YAML or JSON file and flags that override it.

    Raises:
        ValueError: in one sentence, what cannot be done and what to do.
    """
    (args,) = parse_arguments([CacheArguments], argv)
    check_folder("output_dir", args.output_dir)
    # Without being told, Accelerate starts one process where there is no accelerator, whatever the launcher says.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    encoding = Encoding(args.values, args.top, args.tail, args.temperature)
    model = load_teacher(args, state.device)
    task, rows = Task.of(model), load_rows(args)
    if task.paired:
        if encoding.top or args.onnx:
            given = f"top={encoding.top}" if encoding.top else "onnx=True"
            raise ValueError(
                f"{given} was given for a {type(model).__name__}, which shows vectors of images and texts and no "
                "distribution: leave it out."
            )
        rows, collator = pairs_of(rows, model, args)
        tokenizer, lengths = collator.tokenizer, lengths_in(rows, collator)
    else:
        rows, collator, tokenizer = texts_in(rows, model, task, args)
        lengths = None
    if encoding.top and task.linear:  # a head is often padded, each model's to a size of its own
        encoding = replace(encoding, tokens=1 + max(tokenizer.get_vocab().values()))
    live, known = asked_with(model, task, tokenizer, args)
    teacher = CachedTeacher(live, args.output_dir, gb=float("inf"), encoding=encoding)
    teacher.memory.meet(known, task.positions, state.process_index)
    state.print(
        f"{known['teacher']}, {known['precision']}: {len(rows)} rows on {state.num_processes} processes, "
        f"{len(teacher.memory)} answers are in {args.output_dir} already."
    )

    heads = bool(task.label_names)  # without a head there are hidden states alone
    main = ["vectors"] if task.paired else ["heads"] if heads else []
    needs = frozenset([*main, *(["hidden"] if args.hidden_states or not main else [])])
    where = (state.device, state.process_index, state.num_processes)
    started = time.perf_counter()
    asked = fill(teacher, rows, collator, needs, args.tokens_per_batch, *where, lengths=lengths)
    told = gather_object([(asked, teacher.memory.spool.broken)])
    seconds, asked = time.perf_counter() - started, sum(rows for rows, _ in told)
    if any(broken for _, broken in told):
        raise ValueError(f"{args.output_dir} could not be written to the end: free space there and start again.")
    if not state.is_main_process:
        return
    teacher.memory.store.compact()
    size = sum(path.stat().st_size for path in (Path(args.output_dir) / DATA).glob("*.parquet"))
    held = len({key for keys, _ in Store(args.output_dir).news() for key in keys})
    print(
        f"{asked} rows asked in {seconds:.1f} s ({asked / max(seconds, 1e-9):.0f} rows/s); {args.output_dir} holds "
        f"{held} rows in {size / 1e6:.1f} MB ({size / max(held, 1):.0f} bytes a row)."
    )
    if encoding.values and not encoding.top and heads:
        some = send_to_device(collator([rows[i] for i in range(min(64, len(rows)))]), state.device)
        mean, most = rounding(live, encoding, some)
        print(f"Held as {encoding.values}, a distribution is {mean:.1e} nats of KL off ({most:.1e} at most, 64 rows).")
    write_card(args, known, encoding, held, "vectors of images and texts" if task.paired else "all logits")
    if args.push_to_hub:
        print(push(args.output_dir, args.hub_dataset_id or Path(args.output_dir).name, args.hub_private_repo))


def texts_in(rows: Dataset, model: Any, task: Task, args: CacheArguments) -> tuple[Dataset, Any, Any]:
    """Tokenise a data set for a teacher that reads texts.

    Args:
        rows: as they were loaded.
        model: the teacher.
        task: how to read it.
        args: what was asked.

    Returns:
        The rows, the collator of them and the tokenizer.

    Raises:
        ValueError: the teacher reads something else, or the rows hold something else.
    """
    name = args.teacher_model_name_or_path
    check_texts_alone(model, rows, name)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name or name)
    rows = tokenised(rows, tokenizer, args, labels=task.reads_labels)
    check_texts_alone(model, rows, name)
    kind = DataCollatorForSeq2Seq if task.reads_labels else DataCollatorWithPadding
    fixed = {"padding": "max_length", "max_length": args.max_length} if args.pad_to_max_length else {}
    return rows, kind(tokenizer, **fixed), tokenizer


def asked_with(model: Any, task: Task, tokenizer: Any, args: CacheArguments) -> tuple[LiveTeacher, dict[str, Any]]:
    """Make the teacher that is asked, and say who it is.

    Args:
        model: loaded.
        task: how to read it.
        tokenizer: whose ids it reads.
        args: what was asked.

    Returns:
        The teacher and its header.
    """
    dtype = getattr(torch, args.teacher_dtype)
    live = LiveTeacher(model, task, tokenizer, dtype)
    weights, precision, facts = weights_of(model, dtype), precision_of(live), live.facts
    if args.torch_compile:
        model.compile(dynamic=True)
    if args.onnx:
        from hf_distill.teachers.onnx import OnnxModel

        live, precision = LiveTeacher(OnnxModel(model.cpu()), task, tokenizer), f"{precision} by ONNX Runtime"
        live.facts = facts
    return live, header_of(facts, weights=weights, precision=precision, tokenizer=vocabulary_of(tokenizer))


def rounding(teacher: LiveTeacher, encoding: Encoding, batch: dict[str, Any]) -> tuple[float, float]:
    """Measure what is lost by holding values in fewer bits.

    Args:
        teacher: who is asked.
        encoding: how values are held.
        batch: some rows.

    Returns:
        KL(computed || held), its mean and its largest value over the distributions that count, in nats.
    """
    values = []
    for head in teacher(batch, frozenset({"heads"})).heads.values():
        logits = head.logits.select(head.rows).tensor
        held = encoding.encode(logits, True, [b""], np.array([0, len(logits)]))
        values.append(forward_kl(encoding.decode(held, True, logits.shape[-1]).chunk(0, len(logits)), logits.float()))
    found = torch.cat(values)
    return found.mean().item(), found.max().item()


def write_card(args: CacheArguments, known: dict[str, Any], encoding: Encoding, held: int, whole: str) -> None:
    """Write the data set's card: whose answers, to which rows, held how.

    Args:
        args: what was asked.
        known: the header.
        encoding: how values are held.
        held: how many rows.
        whole: what is kept of each where all is.
    """
    few = f"the {encoding.top} highest ids and {encoding.tail} drawn from the rest"
    hidden = ", with hidden states" if args.hidden_states else ""
    at = "" if encoding.temperature is None else f", at temperature {encoding.temperature}"
    rows, folder = (
        Path(given).name if Path(given).exists() else given for given in (args.dataset_name, args.output_dir)
    )
    teacher = f"hf://datasets/{args.hub_dataset_id}" if args.hub_dataset_id else folder
    lines = [
        "---", "tags:", "- hf_distill", "- knowledge-distillation", "---", "",
        f"# Answers of {known['teacher']}", "",
        f"{held} rows of `{rows}` (`{args.dataset_split}`), each answered once by `{known['teacher']}` "
        f"in {known['precision']}: {few if encoding.top else whole}{at}{hidden}, held as "
        f"{encoding.values or 'they were computed'}. `teacher.json` says who the teacher was.", "",
        "To learn from them, without the teacher:", "", "```python",
        f'DistillationTrainer(student, args, train_dataset=rows, teacher_model="{teacher}")', "```", "",
    ]  # fmt: skip
    (Path(args.output_dir) / "README.md").write_text("\n".join(lines), encoding="utf-8")
