"""Two vocabularies in a training: padded heads, other ids, other tokenizers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import tiny_language
import torch
from datasets import Dataset
from default_run import slow_but
from safetensors.torch import load_file
from tokenizers import models
from transformers import DataCollatorForSeq2Seq
from two_texts import characters, one_step, sentences, taught, trainer, two_texts, words

from hf_distill import CausalLM, DistillationTrainer, DistillationTrainingArguments, Several, TwoTokenizers
from hf_distill.cache.encoding import Encoding
from hf_distill.cache.teacher import CachedTeacher
from hf_distill.models.facts import Facts
from hf_distill.objectives.functional import forward_kl
from hf_distill.tasks import Seq2SeqLM

TOKENS = len(tiny_language.tokenizer())  # 31: the smaller head of 32 is padded too
MAKES = {"llama": (tiny_language.llama, tiny_language.texts), "t5": (tiny_language.t5, tiny_language.pairs)}


# ---- One tokenizer, padded heads ----


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize(("ours", "theirs"), [(32, 40), (40, 32)])
def test_padded_heads_are_compared_over_the_tokens_of_both(tmp_path, kind, ours, theirs):
    make, rows = MAKES[kind]
    tied = {"tie_word_embeddings": False}
    student = make(vocab_size=ours, **tied)
    teacher = tiny_language.teacher(make, vocab_size=theirs, **tied)
    fed = dict(DataCollatorForSeq2Seq(tiny_language.tokenizer())([dict(row) for row in rows()]))
    task = CausalLM() if kind == "llama" else Seq2SeqLM()
    counted = task.rows(fed)
    with torch.no_grad():
        both = [model.eval()(**fed).logits[..., :TOKENS][counted] for model in (student, teacher)]
    expected = forward_kl(*both, 2.0).sum() / counted.sum()
    loss, gradients = one_step(tmp_path, student, taught(teacher), rows())
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    head = gradients["lm_head.weight" if kind == "llama" else "shared.weight"]
    assert (head[TOKENS:] == 0).all()
    assert (head[:TOKENS] != 0).any(-1).all()


def test_a_constant_added_to_all_logits_of_a_row_changes_nothing():
    task, vocabulary = CausalLM(), tiny_language.tokenizer().get_vocab()
    task.alignment.meet(Facts(), vocabulary, Facts(), vocabulary)
    fed = {"input_ids": torch.randint(7, 31, (2, 6))}
    student, teacher = torch.randn(2, 6, 40), torch.randn(2, 6, 32)
    found = []
    for by in (torch.zeros(2, 6, 1), 7 * torch.randn(2, 6, 1)):
        shown = [task.signals(None, fed, logits) for logits in (student + by, teacher - by)]
        sides = task.match(*shown, fed)
        found.append(forward_kl(*(side.heads["logits"].logits.chunk(0, 12) for side in sides)))
    assert torch.allclose(*found, atol=1e-5)


def test_a_size_says_nothing_without_the_tokenizers(tmp_path):
    teacher = tiny_language.teacher(vocab_size=40)
    with pytest.raises(
        ValueError, match=r"has a vocabulary of 40, the student of 32: .*LiveTeacher\(model, tokenizer"
    ):
        trainer(tmp_path, tiny_language.llama(), teacher, tiny_language.texts())


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(top=8, tail=4, temperature=2.0, tokens=TOKENS)])
def test_a_folder_says_whose_tokens_its_columns_are(tmp_path, encoding):
    rows, teacher = tiny_language.texts(), tiny_language.teacher(vocab_size=40, tie_word_embeddings=False)
    there = CachedTeacher(taught(teacher), tmp_path / "answers", encoding=encoding)
    loss, gradients = one_step(tmp_path / "there", tiny_language.llama(), there, rows)
    absent, same = one_step(tmp_path / "absent", tiny_language.llama(), str(tmp_path / "answers"), rows)
    assert absent == loss
    assert all(torch.equal(same[name], gradient) for name, gradient in gradients.items())
    tokenizer = tiny_language.tokenizer()
    tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"its tokenizer is '.*', this run has '.*': use that teacher"):
        tiny.trainer(
            tmp_path, tiny_language.llama(), rows, teacher_model=str(tmp_path / "answers"),
            data_collator=DataCollatorForSeq2Seq(tokenizer), processing_class=tokenizer,
        )  # fmt: skip


# ---- The same tokens in another order ----


def permuted(model, order):
    """The same model, whose token ``order[i]`` is what token i was."""
    other = tiny_language.teacher()
    other.load_state_dict(model.state_dict())
    for weight in (other.get_input_embeddings().weight, other.get_output_embeddings().weight):
        weight.data[order] = weight.data.clone()
    return other


def moved_tokenizer(order):
    made = tiny_language.tokenizer()
    made._tokenizer.model = models.WordLevel(
        {token: int(order[index]) for token, index in made.get_vocab().items()}, unk_token="<unk>"
    )
    return made


@pytest.fixture
def order():
    return torch.cat((torch.arange(7), 7 + torch.randperm(24), torch.tensor([31])))


def test_permuted_ids_teach_the_same(tmp_path, order):
    model, rows = tiny_language.teacher(), tiny_language.texts()
    plain = one_step(tmp_path, tiny_language.llama(vocab_size=40), taught(model), rows)
    theirs = [{**row, "teacher_input_ids": order[row["input_ids"]].tolist()} for row in rows]
    other = taught(permuted(model, order), moved_tokenizer(order))
    student, data = tiny_language.llama(vocab_size=40), Dataset.from_list(theirs)
    loss, gradients = one_step(tmp_path, student, other, data, with_their_ids)
    assert loss == pytest.approx(plain[0], abs=1e-6)
    assert tiny.relative(gradients, plain[1]) < 1e-5


def with_their_ids(rows):
    collate = DataCollatorForSeq2Seq(tiny_language.tokenizer())
    made = collate([{n: v for n, v in row.items() if not n.startswith("teacher_")} for row in rows])
    width = made["input_ids"].shape[1]
    ids = [row["teacher_input_ids"] + [0] * (width - len(row["teacher_input_ids"])) for row in rows]
    return {**made, "teacher_input_ids": torch.tensor(ids), "teacher_attention_mask": made["attention_mask"]}


def test_other_texts_and_other_tokenizers_are_refused(tmp_path, order):
    rows = [{**row, "teacher_input_ids": row["input_ids"]} for row in tiny_language.texts()]
    data, other = Dataset.from_list(rows), moved_tokenizer(order)
    with pytest.raises(ValueError, match=r"has the id \d+ in the student's tokenizer, which is \d+ in the teacher's"):
        trainer(
            tmp_path,
            tiny_language.llama(),
            taught(tiny_language.teacher(), other),
            data,
            with_their_ids,
        ).train()
    with pytest.raises(
        ValueError, match=r"different tokenizers \(24 of the student's .* set teacher_alignment=\"span\""
    ):
        trainer(tmp_path, tiny_language.llama(), taught(tiny_language.teacher(), characters()), data)
    with pytest.raises(ValueError, match=r"same input_ids, but 2[0-4] of the student's 31 tokens have another id"):
        trainer(
            tmp_path, tiny_language.llama(), taught(tiny_language.teacher(), other),
            Dataset.from_list(tiny_language.texts()),
        )  # fmt: skip


# ---- Two tokenizers ----


def test_one_tokenizer_twice_is_the_ordinary_comparison(tmp_path):
    collate, data = two_texts(words(), words())
    # Heads of different sizes, so that both ways leave the padding out.
    plain = one_step(tmp_path, tiny_language.llama(vocab_size=40), taught(tiny_language.teacher()), data, collate)
    aligned = one_step(
        tmp_path, tiny_language.llama(vocab_size=40), taught(tiny_language.teacher()), data, collate,
        teacher_alignment="span",
    )  # fmt: skip
    assert aligned[0] == pytest.approx(plain[0], rel=1e-6)
    assert tiny.relative(aligned[1], plain[1]) < 1e-5


@pytest.mark.parametrize("way", ["span", "uld"])
def test_8_x_1_equals_2_x_4(tmp_path, way):
    collate, data = two_texts(words(), characters())
    found = []
    for size, accumulation in ((8, 1), (2, 4), (3, 3)):
        student, teacher = tiny_language.llama(), taught(tiny_language.teacher(), characters())
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "alpha": 0.7}
        found.append(one_step(tmp_path, student, teacher, data, collate, teacher_alignment=way, **args))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5
    assert tiny.relative(found[2][1], found[0][1]) < 1e-5


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path):
    file = Path(__file__).parent / "two_texts.py"
    found = subprocess.run(
        [sys.executable, *"-m torch.distributed.run --nproc_per_node 2 --standalone".split(), file, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-4000:]
    collate, data = two_texts(words(), characters())
    for way in ("span", "uld"):
        teacher, args = taught(tiny_language.teacher(), characters()), {"teacher_alignment": way, "alpha": 0.7}
        _, one = one_step(tmp_path, tiny_language.llama(), teacher, data, collate, **args)
        for rank in (0, 1):
            assert tiny.relative(load_file(tmp_path / f"{way}-{rank}.safetensors"), one) < 1e-5


def test_each_of_two_teachers_with_other_paddings_is_compared_in_its_own_columns(tmp_path):
    def teachers():
        return {str(size): taught(tiny_language.teacher(vocab_size=size)) for size in (40, 36)}

    rows, expected = tiny_language.texts(), []
    for teacher in teachers().values():
        expected.append(one_step(tmp_path, tiny_language.llama(), teacher, rows)[0])
    terms = {size: {"term": "forward_kl", "teacher": size} for size in teachers()}
    found = one_step(tmp_path, tiny_language.llama(), Several(teachers()), rows, objective=terms)
    assert found[0] == pytest.approx(sum(expected), rel=1e-5)
    same = Several([taught(tiny_language.teacher(vocab_size=40)) for _ in range(2)])
    assert one_step(tmp_path, tiny_language.llama(), same, rows)[0] == pytest.approx(expected[0], rel=1e-5)


@pytest.mark.parametrize(("way", "objective"), [("span", "forward_kl"), ("span", "jsd"), ("uld", "uld")])
@pytest.mark.parametrize("turned", slow_but([False], [False, True]))
def test_a_training_on_words_and_characters_lowers_the_loss(tmp_path, way, objective, turned):
    ours, theirs = (characters(), words()) if turned else (words(), characters())
    collate, data = two_texts(ours, theirs)
    settings = tiny.arguments(
        tmp_path, DistillationTrainingArguments, teacher_alignment=way, alpha=1.0, objective=objective, max_steps=15
    )
    run = tiny.trainer(
        tmp_path, tiny_language.llama(), data, DistillationTrainer, plain_args=settings, data_collator=collate,
        teacher_model=taught(tiny_language.teacher(), theirs), processing_class=ours, eval_dataset=data,
    )  # fmt: skip
    run.train()
    losses = tiny.losses(run, f"loss/{objective}")
    assert losses[-1] < 0.9 * losses[0]
    assert run.evaluate()["eval_loss"] < losses[0]


def test_what_is_kept_of_a_teacher_with_other_tokens_is_what_it_says(tmp_path):
    collate, data = two_texts(words(), characters())
    found = []
    for kept in (False, True):
        teacher = taught(tiny_language.teacher(), characters())
        teacher = CachedTeacher(teacher, always=True) if kept else teacher
        args = {"teacher_cache": "off"} | {"max_steps": 4, "per_device_train_batch_size": 4, "alpha": 1.0}
        run = trainer(tmp_path, tiny_language.llama(), teacher, data, collate, teacher_alignment="span", **args)
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert len(run.teacher.memory) == 8


@pytest.mark.slow
def test_encoder_decoders_with_two_tokenizers(tmp_path):
    ours, theirs = words(), characters()
    both, texts = TwoTokenizers(ours, theirs), sentences(16)
    data = Dataset.from_list([both.encode(a, b) for a, b in zip(texts[:8], texts[8:], strict=True)])
    for way in ("span", "uld"):
        run = trainer(
            tmp_path, tiny_language.t5(), taught(tiny_language.teacher(tiny_language.t5), theirs), data, both,
            teacher_alignment=way, alpha=1.0, max_steps=10,
        )  # fmt: skip
        run.train()
        assert tiny.losses(run)[-1] < tiny.losses(run)[0]


def test_what_cannot_be_aligned_is_refused(tmp_path):
    collate, data = two_texts(words(), characters())

    def refused(message, teacher=None, rows=data, **args):
        with pytest.raises(ValueError, match=message):
            trainer(
                tmp_path, tiny_language.llama(), teacher or taught(tiny_language.teacher(), characters()), rows,
                collate, **args,
            ).train()  # fmt: skip

    refused("the tokenizer of the teacher LlamaForCausalLM is not known", tiny_language.teacher(),
            teacher_alignment="span")  # fmt: skip
    refused("forward_kl compares class with class.*use the objective uld", teacher_alignment="uld",
            objective="forward_kl")  # fmt: skip
    refused(r"hidden_mse compares position with position \(hidden\), which two tokenizers do not have",
            teacher_alignment="span", objective={"forward_kl": 1.0, "hidden_mse": 1.0})  # fmt: skip
    with pytest.raises(ValueError, match="teacher_alignment='letters' is not known: use tokens, uld, span"):
        DistillationTrainingArguments(str(tmp_path), teacher_alignment="letters", use_cpu=True)
    with pytest.raises(ValueError, match="align='letters' is not known"):
        CausalLM(align="letters")
    with pytest.raises(ValueError, match="SequenceClassification predicts no tokens"):
        tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"teacher_alignment": "span"})
    with pytest.raises(ValueError, match="CausalLM was made with another align"):
        tiny.trainer(
            tmp_path, tiny_language.llama(), tiny_language.texts(), teacher_model=tiny_language.teacher(),
            task=CausalLM(align="uld"), args={"teacher_alignment": "span"},
        )  # fmt: skip


def test_where_a_text_is_cut_it_does_not_end():
    """Both rows end with </s>, one behind the first word and one in it: these say nothing of each other."""
    both, task = TwoTokenizers(words(), characters()), CausalLM(align="span")
    for text, spans in (("w1", 2), ("w1 w2", 1)):  # the word and the end of the text; the word alone
        batch = both([both.encode(text, truncation=True, max_length=4)])
        assert task.counts(batch)["rows"] == spans
    assert both.encode("w1 w2", truncation=True, max_length=4)["labels"][-1] == 2  # the student's row is whole
    row = both.encode("w1", "w1 w2", truncation=True, max_length=4)
    assert (row["labels"][-1], row["teacher_labels"][-1]) == (2, -100)


def test_a_stream_and_a_list_of_rows_of_two_tokenizers_teach_the_same(tmp_path):
    collate, data = two_texts(words(), characters())
    stream = Dataset.from_list([{"text": text} for text in sentences()]).to_iterable_dataset()
    stream = stream.map(lambda row: collate.encode(row["text"]), remove_columns=["text"])
    assert stream.column_names is None
    found = []
    for rows in (data, stream, data.to_list()):
        teacher = taught(tiny_language.teacher(), characters())
        args = {"teacher_alignment": "span", "train_sampling_strategy": "sequential"}
        found.append(one_step(tmp_path, tiny_language.llama(), teacher, rows, collate, **args)[0])
    assert found[1:] == pytest.approx(found[:1] * 2, rel=1e-6)
