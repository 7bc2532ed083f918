"""How far ahead a student may write for its teacher: speculative decoding by transformers' assisted generation.

Knows: two whole models with one tokenizer, prompts, tokenised rows. Does not know: how models were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel


def accepted_tokens(
    teacher: PreTrainedModel, student: PreTrainedModel, prompts: Sequence[Tensor], new_tokens: int, ahead: int = 5
) -> dict[str, float]:
    """Let the teacher write greedily with the student as its assistant, and count.

    The text is the teacher's own, whoever assists: only the number of its forwards depends on the student.

    Args:
        teacher: who writes.
        student: who proposes ``ahead`` tokens before each forward of the teacher.
        prompts: token ids [1, T].
        new_tokens: how many are written at most behind each prompt.
        ahead: how many are proposed at once.

    Returns:
        ``tokens``, ``steps`` (forwards of the teacher), and ``accepted``: how many proposed tokens a step took.

    Reference:
        Leviathan et al.: Fast Inference from Transformers via Speculative Decoding, arXiv:2211.17192; Zhou et al.:
        DistillSpec, arXiv:2310.08461 (a distilled student is accepted more often).
    """
    before, written, steps = student.generation_config, 0, 0
    sizes = [model.config.get_text_config().vocab_size for model in (teacher, student)]
    student.generation_config = copy.deepcopy(before)
    # Heads of one tokenizer may be padded to other lengths (Qwen2.5's are), which `generate` takes for two tokenizers.
    student.config.get_text_config().vocab_size = sizes[0]
    # Neither may write an id that the other cannot read; beyond the shorter head there is only padding.
    student.generation_config.suppress_tokens = list(range(*sizes)) or None
    unread = list(range(*sizes[::-1])) or None
    settings = {"num_assistant_tokens": ahead, "num_assistant_tokens_schedule": "constant"}
    for name, value in {**settings, "assistant_confidence_threshold": 0.0}.items():
        setattr(student.generation_config, name, value)

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    handle, modes = teacher.register_forward_pre_hook(count), (teacher.training, student.training)
    try:
        teacher.eval(), student.eval()
        with torch.no_grad():
            for prompt in prompts:
                prompt = prompt.to(teacher.device)
                written += teacher.generate(
                    prompt, attention_mask=torch.ones_like(prompt), assistant_model=student, do_sample=False,
                    max_new_tokens=new_tokens, suppress_tokens=unread,
                ).shape[1] - prompt.shape[1]  # fmt: skip
    finally:
        handle.remove()
        student.generation_config, student.config.get_text_config().vocab_size = before, sizes[1]
        teacher.train(modes[0]), student.train(modes[1])
    return {"tokens": written, "steps": steps, "accepted": (written - steps) / max(steps, 1)}


def prompts(rows: Dataset, number: int, length: int) -> list[Tensor]:
    """Take what comes before the first label of a conversation, or the beginnings of the first texts.

    Args:
        rows: tokenised, with ``labels``.
        number: how many, where there are as many.
        length: of a text's beginning, in tokens.

    Returns:
        Token ids [1, T] each.

    Example:
        >>> rows = Dataset.from_dict({"input_ids": [[5, 6, 7, 8]], "labels": [[-100, -100, 7, 8]]})
        >>> prompts(rows, 3, 1)
        [tensor([[5, 6]])]
    """
    found: list[Tensor] = []
    for row in rows if number else ():
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        kept = first or length
        if kept < len(row["input_ids"]) and len(found) < number:
            found.append(torch.tensor([row["input_ids"][:kept]]))
    return found
