"""Recordings as prompts: whose texts they are, which tokens Whisper begins with, which rows are left alone."""

import json
import logging

import pytest
import speech_runs
import tiny
import tiny_speech
import torch
from default_run import slow_but
from speech_runs import MODELS, ONCE, WAYS, rows, trainer
from torch import nn

from hf_distill import Rollout
from hf_distill.rollouts.recordings import RecordingLayout
from hf_distill.rollouts.writing import students_way, teachers_way, write
from hf_distill.tasks.supervision import STUDENT_WROTE

SHORT = {"seq_kd": 1.0, "max_new_tokens": 2}  # too short to be a loop


def written(model, given, prompt, tokens=6):
    """What a model writes for one recording alone, greedily: the labels that its inference stands for."""
    ids = list(prompt)
    for _ in range(tokens):
        shown = model(**{name: value[None] for name, value in given.items()}, decoder_input_ids=torch.tensor([ids]))
        ids.append(shown.logits[0, -1].argmax().item())
        if ids[-1] == 2:
            break
    return ids[1:]


def labels_of(batch):
    return [[token for token in row if token != -100] for row in batch["labels"].tolist()]


@pytest.mark.parametrize("way", slow_but(["english"], WAYS))
@torch.no_grad()
def test_whispers_labels_are_the_prompt_of_its_inference_and_all_that_it_writes(way):
    prompt, ended = WAYS[way][1], 0
    model = speech_runs.whisper(7, way, ends=3.0).eval()
    given = [{"input_features": row["input_features"]} for row in rows("whisper", 12)]
    for how in (teachers_way, students_way):
        config = how(model, Rollout(seq_kd=1.0, max_new_tokens=6, num_beams=1), None)
        texts = write(model, given, config, left=False)
        for one, text in zip(given, texts, strict=True):
            assert text.tolist() == written(model, one, prompt)
            ended += text[-1].item() == 2
    assert 0 < ended < 24  # with its end, and where it has none


@pytest.mark.parametrize("way", WAYS)
def test_a_student_reads_what_inference_begins_with_and_then_the_text(tmp_path, way):
    teacher = speech_runs.whisper(7, way)
    run = trainer(tmp_path, rollout=SHORT, student=speech_runs.whisper(way=way), teacher=teacher)
    run.train()
    ((batch,),) = run.seen
    prompt, read = WAYS[way][1], run.task.inputs(run.model, {}, batch)["decoder_input_ids"]
    assert read[:, : len(prompt)].tolist() == [prompt] * 8
    for number, (row, labels) in enumerate(zip(rows("whisper"), labels_of(batch), strict=True)):
        assert labels == written(teacher, {"input_features": row["input_features"]}, prompt, tokens=2)
        assert read[number, 1 : len(labels)].tolist() == labels[:-1]


def test_a_multilingual_whisper_that_was_told_no_language_hears_which_it_is():
    model = speech_runs.whisper(7, "multilingual").eval()
    model.generation_config.language = model.generation_config.task = None
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[[20, 21]] *= 100  # one or the other
    given = [{"input_features": row["input_features"]} for row in rows("whisper")]
    texts = write(model, given, teachers_way(model, Rollout(seq_kd=1.0, max_new_tokens=6), None), left=False)
    for one, text in zip(given, texts, strict=True):
        assert text[0] in (20, 21)
        assert text.tolist() == written(model, one, [3, text[0].item(), 25])


def test_beams_leave_nothing_out_either():
    model = speech_runs.whisper(7, "multilingual", ends=3.0).eval()
    given = [{"input_features": row["input_features"]} for row in rows("whisper", 12)]
    texts = write(model, given, teachers_way(model, Rollout(seq_kd=1.0, max_new_tokens=6, num_beams=3), None), False)
    assert {tuple(text[:3].tolist()) for text in texts} == {(21, 22, 25)}
    assert {len(text) for text in texts if text[-1] != 2} == {9}
    assert any(text[-1] == 2 for text in texts)


def test_the_student_keeps_whispers_own_fields_and_no_threshold_of_it():
    model = speech_runs.whisper(way="multilingual")
    model.generation_config.begin_suppress_tokens, model.generation_config.repetition_penalty = [7], 5.0
    model.generation_config.no_speech_threshold = 0.6
    way = students_way(model, Rollout(on_policy=1.0), None)
    for name, value in WAYS["multilingual"][0].items():
        assert getattr(way, name) == value, name
    assert (way.begin_suppress_tokens, way.repetition_penalty) == ([7], None)
    assert way.no_speech_threshold is teachers_way(model, Rollout(seq_kd=1.0), None).no_speech_threshold is None


@pytest.mark.parametrize("kind", slow_but(["whisper"], MODELS))
def test_without_any_transcript_a_student_learns_what_the_teacher_writes(tmp_path, kind):
    teacher = MODELS[kind](seed=7, width=24)
    run = trainer(tmp_path, kind, SHORT, teacher=teacher, args={"max_steps": 20, "learning_rate": 2e-2})
    run.train()
    teacher.eval()
    start = teacher.config.decoder_start_token_id
    given = tiny_speech.collate(rows(kind, labels=False))
    for number, labels in enumerate(labels_of(run.seen[0][0])):
        assert labels == written(teacher, {name: value[number] for name, value in given.items()}, [start], tokens=2)
    assert run.state.log_history[0]["rollout/teacher"] == 1
    losses = tiny.losses(run)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def test_two_recordings_have_two_texts_which_the_teacher_writes_once(tmp_path):
    data = rows("moonshine", 4, labels=False)
    data[1] = {"input_values": data[0]["input_values"].roll(1)}  # as long, and 0 as an integer everywhere
    data = [{"input_values": row["input_values"] / 10} for row in data]
    run = trainer(tmp_path, "moonshine", SHORT, data=data, args={"max_steps": 3})
    run.train()
    lines = [json.loads(line) for path in tmp_path.rglob("texts-*.jsonl") for line in path.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == 4


def without_mask(given):
    return {name: value for name, value in tiny_speech.collate(given).items() if name != "attention_mask"}


@pytest.mark.parametrize("kind", slow_but(["whisper"], ["whisper", "moonshine"]))
def test_8_x_1_equals_2_x_4_also_where_no_mask_says_what_is_padding(tmp_path, kind):
    mixed, found, data = {"on_policy": 0.4, "seq_kd": 0.4, "max_new_tokens": 2}, [], rows(kind, labels=False)
    if kind == "moonshine":  # each two as long: then the same padding, none, is heard in both
        data = [data[i] for i in (0, 3, 1, 4, 2, 5, 0, 6)]
    for size, accumulation in ((2, 4), (1, 8)) if kind == "moonshine" else ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        collate = without_mask if kind == "moonshine" else tiny_speech.collate
        run = trainer(tmp_path / str(size), kind, mixed, data=data, callbacks=[seen], args=args, data_collator=collate)
        run.train()
        found.append(
            ({k: v for k, v in run.state.log_history[0].items() if k.startswith(("loss", "rol"))}, seen.first)
        )
        assert {bool(one) for batch in run.seen[0] for one in batch[STUDENT_WROTE]} == {True, False}
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def looping(seed=7):
    """A Whisper that never ends and says one word for ever."""
    model = speech_runs.whisper(seed)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[:] *= 0.01
        model.model.decoder.embed_tokens.weight[9] = 30 * model.model.decoder.layer_norm.bias.normal_()
    return model


@pytest.mark.parametrize("labels", [True, False])
def test_loops_are_refused_and_told_and_a_row_with_a_transcript_stays(tmp_path, caplog, labels):
    args = {"alpha": 0.5 if labels else 1.0, "max_steps": 2}
    with caplog.at_level(logging.WARNING):
        run = trainer(tmp_path, rollout=ONCE, teacher=looping(), args=args)
        run.train()
    ((batch,), _), logged = run.seen, run.state.log_history[0]
    assert labels_of(batch) == ([row["labels"].tolist() for row in rows("whisper")] if labels else [[]] * 8)
    assert (logged["rollout/filtered"], logged["rollout/teacher"]) == (1, 0)
    assert logged["rollout/silent"] == (0 if labels else 1)
    assert torch.tensor(tiny.losses(run)).isfinite().all()
    assert sum("A text of the teacher was refused" in record.message for record in caplog.records) == 1
    assert not [record for record in caplog.records if "has no label and stayed as it came" in record.message]


def test_a_text_far_from_the_transcript_is_refused_and_one_without_a_transcript_is_not(tmp_path):
    teacher, data = speech_runs.whisper(7), rows("whisper")
    texts = [written(teacher, {"input_features": row["input_features"]}, [3], tokens=2) for row in data]
    assert all(text[0] > 4 for text in texts)
    for number, row in enumerate(data):
        right = [token for token in texts[number] if token > 4]
        row["labels"] = torch.tensor([*right, 2] if number < 3 else [30, *right, 2] if number < 6 else [-100])
    kept = {**SHORT, "keep_if": {"wer": 0.1}}
    parts = {"teacher": teacher, "data": data, "processing_class": speech_runs.tokenizer(), "args": {"alpha": 0.5}}
    run = trainer(tmp_path, rollout=kept, **parts)
    run.train()
    logged, found = run.state.log_history[0], labels_of(run.seen[0][0])
    assert (logged["rollout/filtered"], logged["rollout/teacher"], logged["rollout/silent"]) == (3 / 8, 5 / 8, 0)
    assert found == [*texts[:3], *(row["labels"].tolist() for row in data[3:6]), *texts[6:]]
    loose = trainer(tmp_path / "loose", rollout={**SHORT, "keep_if": {"wer": 1.0}}, **parts)
    loose.train()
    assert loose.state.log_history[0]["rollout/filtered"] == 0


def test_keep_if_needs_somebody_who_turns_tokens_into_text(tmp_path):
    with pytest.raises(ValueError, match=r"keep_if=\{'wer': 0.1\} compares .* no tokenizer .* processing_class="):
        trainer(tmp_path, rollout={**ONCE, "keep_if": {"wer": 0.1}})


def test_features_of_which_the_last_axis_is_time_are_cut_nowhere():
    features, mask = torch.randn(2, 6, 4), torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    layout = RecordingLayout(pad=0)
    cut = layout.prompts({"input_features": features, "attention_mask": mask})
    assert torch.equal(cut[1]["input_features"], features[1, :3])
    turned = layout.prompts({"input_features": features.mT, "attention_mask": mask})
    assert torch.equal(turned[1]["input_features"], features[1].T)
    assert torch.equal(turned[1]["attention_mask"], mask[1])
    given = {"input_features": features, "attention_mask": mask}
    assert layout.rewritten(given, {0: torch.tensor([7, 2])}, nn.Identity())["labels"].tolist() == [[7, 2], [-100] * 2]


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (
            {"input_values": torch.ones(1, 8)},
            r"reads recordings from input_features, the batch has \['input_v",
        ),
        (
            {"input_features": torch.ones(1, 8, 4), "teacher_input_features": torch.ones(1, 16, 4)},
            "has teacher_input_features for the teacher alone: use two models that read the same features",
        ),
        (
            {"input_features": torch.ones(1, 8, 4), "decoder_position_ids": torch.ones(1, 4)},
            "does not know how the column 'decoder_position_ids' goes on",
        ),
    ],
)
def test_a_batch_without_a_recording_for_both_is_refused(batch, told):
    with pytest.raises(ValueError, match=told):
        RecordingLayout(pad=0).check(batch)


def test_whispers_prompt_takes_room_from_a_text(tmp_path):
    def make(seed=0):
        return speech_runs.whisper(seed, "multilingual")

    told = r"a prompt of 4 tokens and a text of max_new_tokens=13, the student Whisper\w+ reads 16 positions"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, rollout={**ONCE, "max_new_tokens": 13}, student=make(), teacher=make(7))
    trainer(tmp_path, rollout={**ONCE, "max_new_tokens": 12}, student=make(), teacher=make(7)).train()


def test_without_labels_and_without_rollouts_a_sentence_says_what_to_do(tmp_path):
    told = r"SpeechSeq2Seq compares what a decoder predicts, .*: give it labels, .*rollout=\{'seq_kd': 1.0\}"
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, rollout=None).train()


@pytest.mark.parametrize("kind", MODELS)
def test_a_teacher_in_half_the_bits_hears_and_writes(tmp_path, kind):
    run = trainer(tmp_path, kind, SHORT, args={"teacher_dtype": "bfloat16"})
    run.train()
    assert run.state.log_history[0]["rollout/teacher"] == 1
    assert 0 < run.state.log_history[0]["loss/forward_kl"] < 10
