"""Texts in words and in characters, and trainings on both; run by test_alignment.py on each of two ranks too."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import tiny_language
import torch
from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from hf_distill import DistillationTrainer, DistillationTrainingArguments, LiveTeacher, TwoTokenizers


def closed(tokenizer):
    """Put <s> before every text and </s> behind it."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def characters():
    letters = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate([*tiny_language.SPECIAL, *"w0123456789"])}, unk_token="<unk>")
    )
    letters.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("."), "isolated")]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return closed(PreTrainedTokenizerFast(tokenizer_object=letters, **special))


def words():
    return closed(tiny_language.tokenizer())


def sentences(n=8, seed=5):
    generator, made = torch.Generator().manual_seed(seed), []
    for _ in range(n):
        length = int(torch.randint(2, 6, (), generator=generator))
        made.append(" ".join(tiny_language.WORDS[i] for i in torch.randint(0, 24, (length,), generator=generator)))
    return made


def two_texts(ours, theirs, n=8):
    both = TwoTokenizers(ours, theirs)
    return both, Dataset.from_list([both.encode(text) for text in sentences(n)])


def trainer(folder, student, teacher, data, collate=None, callbacks=(), **args):
    settings = tiny.arguments(folder, DistillationTrainingArguments, **args)
    return tiny.trainer(
        folder, student, data, DistillationTrainer, plain_args=settings, teacher_model=teacher,
        data_collator=collate or DataCollatorForSeq2Seq(tiny_language.tokenizer()),
        processing_class=tiny_language.tokenizer(), callbacks=list(callbacks),
    )  # fmt: skip


def taught(model, tokenizer=None):
    return LiveTeacher(model, tokenizer=tokenizer or tiny_language.tokenizer())


def one_step(folder, student, teacher, data, collate=None, **args):
    seen = tiny.Gradients()
    run = trainer(folder, student, teacher, data, collate, [seen], **{"alpha": 1.0, "max_steps": 1, **args})
    run.train()
    return run.state.log_history[0]["loss"], seen.first


def main(folder):
    collate, data = two_texts(words(), characters())
    for way in ("span", "uld"):
        teacher = taught(tiny_language.teacher(), characters())
        args = {"teacher_alignment": way, "alpha": 0.7, "per_device_train_batch_size": 2}
        _, found = one_step(
            folder, tiny_language.llama(), teacher, data, collate, gradient_accumulation_steps=2, **args
        )
        if torch.distributed.get_world_size() != 2:
            raise RuntimeError("one process would prove nothing")
        found = {name.removeprefix("module."): value.contiguous() for name, value in found.items()}
        save_file(found, folder / f"{way}-{torch.distributed.get_rank()}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see strategies.py
