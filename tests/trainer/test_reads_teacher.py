"""A student whose forward names what it reads of its teacher: exact, kept, resumed, wrapped, refused early."""

from typing import ClassVar

import numpy as np
import peft
import pytest
import tiny
import tiny_language
import torch
from test_reads import Asked, collated
from tiny_reads import Optional, States, named
from torch import nn
from transformers import DataCollatorForSeq2Seq, LlamaForCausalLM

from hf_distill import (
    CausalLM,
    FunctionTeacher,
    LiveTeacher,
    Seq2SeqDistillationTrainer,
    Seq2SeqDistillationTrainingArguments,
    SequenceClassification,
    Several,
)
from hf_distill.tasks.layout import without_layout

TOLD = {"reads_teacher": {"teacher_hidden_states": "hidden[-1]"}}


def by_hand(run, batch):
    """What the student answers if it is given what the teacher says of the batch."""
    asked = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        states = run.teacher.model(**asked, output_hidden_states=True).hidden_states[-1]
        states = states * batch["attention_mask"].unsqueeze(-1)
        return run.model.eval()(**asked, teacher_hidden_states=states)["logits"]


def step(folder, size, accumulation, **args):
    seen = tiny.Gradients()
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    run = named(folder, args={**sizes, **args}, callbacks=[seen])
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_8_x_1_equals_2_x_4(tmp_path, alpha):
    whole = step(tmp_path, 8, 1, alpha=alpha)
    assert float(whole[1]["teacher.weight"].abs().max()) > 1e-3  # what is read is used
    for size, accumulation in ((2, 4), (3, 3)):
        cut = step(tmp_path, size, accumulation, alpha=alpha)
        assert cut[0] == pytest.approx(whole[0], rel=1e-5)
        assert tiny.relative(cut[1], whole[1]) < 1e-5


def test_the_argument_and_the_students_word_give_the_same(tmp_path):
    class Silent(States):
        reads_teacher = None

    runs = [named(tmp_path, States()), named(tmp_path, Silent(), TOLD)]
    for run in runs:
        run.train()
    assert tiny.losses(runs[0]) == tiny.losses(runs[1])


@pytest.mark.parametrize("whole_window", [False, True])
def test_kept_states_equal_live_ones_to_the_bit(tmp_path, whole_window):
    class Whole(States):
        """Attends to everything that it is given, padding too."""

        def forward(self, input_ids, teacher_hidden_states, attention_mask=None, labels=None):
            self.seen = [*getattr(self, "seen", []), teacher_hidden_states.clone()]
            return super().forward(input_ids, teacher_hidden_states, attention_mask)

    found = {}
    for cache in ("off", "auto"):
        args = {"max_steps": -1, "num_train_epochs": 3, "teacher_cache": cache, "per_device_train_batch_size": 8}
        args |= {"teacher_whole_window": whole_window, "eval_strategy": "epoch", "per_device_eval_batch_size": 8}
        run = named(tmp_path, Whole(), args, eval_dataset=tiny.rows())
        run.train()
        found[cache] = run, run.model.seen
    assert len(found["auto"][0].teacher.memory) == 8
    kept, live = found["auto"][1], found["off"][1]
    assert len(kept) == len(live) == 6
    # Rows of a batch that was shuffled have another length beside other rows: to the bit is each in its own order.
    assert [one.shape for one in kept] == [one.shape for one in live]
    assert torch.equal(kept[1], live[1])  # the evaluation's order is that of the rows, in every epoch
    assert all(torch.equal(one, kept[1]) for one in kept[1::2])
    for one, other in zip(kept, live, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        assert torch.equal(one == 0, other == 0)  # padding is nobody's, in both
    assert tiny.losses(found["auto"][0], "eval_loss") == pytest.approx(tiny.losses(found["off"][0], "eval_loss"))


def test_with_alpha_0_only_what_is_read_is_asked_for_ahead_of_the_step_too(tmp_path):
    teacher, ahead = Asked(LiveTeacher(tiny.teacher())), []
    teacher.prefetch = lambda batches, needs: ahead.append(needs)
    run = named(tmp_path, args={"alpha": 0.0, "teacher_cache": "off"}, teacher_model=teacher)
    run.train()
    assert set(teacher.needs) == set(ahead) == {frozenset({"hidden"})}
    batch = collated(tiny.rows())
    wanted = nn.functional.cross_entropy(by_hand(run, batch), batch["labels"])
    assert run.evaluate(tiny.rows())["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_student_predicts_with_labels_and_without(tmp_path):
    run, rows = named(tmp_path, args={"per_device_eval_batch_size": 8}), tiny.rows()
    wanted = by_hand(run, collated(rows)).numpy()
    bare = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    assert np.allclose(run.predict(rows).predictions, wanted, atol=1e-6)
    assert np.allclose(run.predict(bare).predictions, wanted, atol=1e-6)


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path):
    def run(folder):
        args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "teacher_cache": "auto"}
        return named(folder, States(dropout=0.2), {**args, "per_device_train_batch_size": 2})

    whole = run(tmp_path / "whole")
    whole.train()
    resumed = run(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert tiny.losses(resumed) == tiny.losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_one_of_several_teachers_is_read_by_its_name(tmp_path):
    several = Several({"small": tiny.bert(seed=5), "big": tiny.teacher()})
    args = {"reads_teacher": {"teacher_hidden_states": "hidden[-1]@big"}, "teacher_cache": "off"}
    run, alone = named(tmp_path, args=args, teacher_model=several), named(tmp_path, args={"teacher_cache": "off"})
    assert run.evaluate(tiny.rows())["eval_loss/hard"] == pytest.approx(
        alone.evaluate(tiny.rows())["eval_loss/hard"], rel=1e-6
    )
    run.train()


class Drafting(LlamaForCausalLM):
    """A draft head: reads the token at t and its teacher's state of t - 1."""

    reads_teacher: ClassVar = {"teacher_hidden_states": "hidden[-1]"}

    def __init__(self, config):
        super().__init__(config)
        self.fc = nn.Linear(24, config.hidden_size)

    def forward(self, input_ids=None, teacher_hidden_states=None, attention_mask=None, inputs_embeds=None, **kwargs):
        vectors = self.get_input_embeddings()(input_ids)
        if teacher_hidden_states is not None:
            vectors = vectors + self.fc(nn.functional.pad(teacher_hidden_states[:, :-1], (0, 0, 1, 0)))
        return super().forward(inputs_embeds=vectors, attention_mask=attention_mask, **kwargs)


@pytest.mark.parametrize("lora", [False, True])
def test_a_draft_head_reads_the_states_of_the_position_before(tmp_path, lora):
    torch.manual_seed(0)
    student = Drafting(tiny_language.llama().config)
    if lora:
        few = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["fc"])
        student = peft.get_peft_model(student, few)
    seen = tiny.Gradients()
    run = tiny.trainer(
        tmp_path, student, tiny_language.texts(), task=CausalLM(), teacher_model=tiny_language.teacher(),
        data_collator=DataCollatorForSeq2Seq(tiny_language.tokenizer()), args={"alpha": 1.0}, callbacks=[seen],
    )  # fmt: skip
    run.train()
    assert max(float(grad.abs().max()) for name, grad in seen.first.items() if "fc" in name) > 1e-4
    batch = run.data_collator([dict(row) for row in tiny_language.texts()])
    fed = {name: value for name, value in without_layout(batch).items() if name != "labels"}
    with torch.no_grad():
        states = run.teacher.model(**fed, output_hidden_states=True).hidden_states[-1]
        later = states.clone()
        later[:, 3:] += 1  # the position that drafts the token at 4 has seen those before 3 alone
        one, other = (run.model.eval()(**fed, teacher_hidden_states=told).logits for told in (states, later))
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.equal(one[:, 4:], other[:, 4:])


def test_a_student_that_can_do_without_trains_alone_and_is_taught(tmp_path):
    alone = named(tmp_path, Optional(), teacher_model=None)
    alone.train()
    taught = named(tmp_path, Optional())
    taught.train()
    assert tiny.losses(alone) != tiny.losses(taught)


def test_an_argument_without_a_teacher_is_told(tmp_path, caplog):
    named(tmp_path, Optional(), TOLD, teacher_model=None)
    assert (
        "reads_teacher={'teacher_hidden_states': 'hidden[-1]'} stands in the arguments, but there is no" in caplog.text
    )


def look_up(batch):
    return torch.zeros(len(batch["input_ids"]), 3)


def word(what):
    return {"args": {"reads_teacher": {"teacher_hidden_states": what}}}


@pytest.mark.parametrize(
    ("told", "parts"),
    [
        (
            r"States reads hidden\[-1\] of its teacher, but there is none: pass teacher_model=, or",
            {"teacher_model": None},
        ),
        (
            r"reads_teacher lets the student read \['hidden'\] of its teacher, look_up serves \['heads'\]: pass",
            {"teacher_model": FunctionTeacher(look_up)},
        ),
        (
            r"let the student read hidden\[3\], .*BertForSequenceClassification shows 3 of them: name one from 0 to 2",
            word("hidden[3]"),
        ),
        (r"read vectors\[image\], of vectors SequenceClassification shows none: name", word("vectors[image]")),
        (r"read heads\[start\], of heads SequenceClassification shows logits: name", word("heads[start]")),
        (r"read streams\[audio\]\[0\], of streams SequenceClassification shows text: name", word("streams[audio][0]")),
        (r"gives States told, its forward takes input_ids,", {"args": {"reads_teacher": {"told": "logits"}}}),
        (r"read \['hidden@big'\] of its teacher, .* serves", word("hidden[-1]@big")),
        (
            r"the teacher States reads a teacher itself and has none: give teacher_hidden_states a default",
            {"teacher_model": LiveTeacher(States(seed=3), SequenceClassification(3, tiny.SINGLE))},
        ),
        (r"accumulate_negatives was asked for a student that reads hid", {"args": {"accumulate_negatives": True}}),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_step(tmp_path, told, parts):
    with pytest.raises(ValueError, match=told.replace("let the", "lets the")):
        named(tmp_path, **parts)


@pytest.mark.parametrize("spec", ['{"told": "hidden[-1]"', {}, ["hidden[-1]"], {"told": "states[1]"}])
def test_words_are_refused_where_the_arguments_are_made(tmp_path, spec):
    with pytest.raises(ValueError, match="reads_teacher"):
        tiny.arguments(tmp_path, reads_teacher=spec)


def test_a_command_line_gives_it_as_json(tmp_path):
    args = tiny.arguments(tmp_path, reads_teacher='{"told": "hidden[-1]"}')
    assert args.reads_teacher == {"told": "hidden[-1]"}


class Needing(LlamaForCausalLM):
    reads_teacher: ClassVar = {"told": "hidden[-1]"}

    def forward(self, input_ids, told, attention_mask=None, labels=None): ...


@pytest.mark.parametrize(
    ("told", "settings", "rollout"),
    [
        (r"on_policy=1 lets the student write, which reads hidden\[-1\] of", {}, {"on_policy": 1.0}),
        ("predict_with_generate was asked for a student that reads", {"predict_with_generate": True}, None),
    ],
)
def test_a_student_that_needs_its_teacher_does_not_write(tmp_path, told, settings, rollout):
    args = tiny.arguments(tmp_path, Seq2SeqDistillationTrainingArguments, **settings)
    parts = {"data_collator": DataCollatorForSeq2Seq(tiny_language.tokenizer()), "rollout": rollout}
    parts |= {"task": CausalLM(), "teacher_model": tiny_language.teacher(), "plain_args": args}
    student = Needing(tiny_language.llama().config)
    with pytest.raises(ValueError, match=told):
        tiny.trainer(tmp_path, student, tiny_language.texts(), Seq2SeqDistillationTrainer, **parts)
