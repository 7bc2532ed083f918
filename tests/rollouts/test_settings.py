"""One field, as a mapping, valid at construction or one clear sentence."""

import pytest
import tiny

from hf_distill import DistillationTrainingArguments, Rollout
from hf_distill.experiments.parsing import parse_arguments
from hf_distill.rollouts import rollout_of


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "on_policy=0.0 and seq_kd=0.0: they are shares"),
        ({"on_policy": 0.6, "seq_kd": 0.6}, "whose sum is more than 0 and at most 1"),
        ({"on_policy": -0.1, "seq_kd": 0.5}, "on_policy=-0.1"),
        ({"on_policy": True}, "on_policy=True"),
        ({"on_policy": 1, "max_new_tokens": 0}, "max_new_tokens=0: give a whole number from 1"),
        ({"on_policy": 1, "temperature": 0}, "temperature=0: give a number greater than 0"),
        ({"on_policy": 1, "top_p": 0}, "top_p=0: give a number above 0"),
        ({"on_policy": 1, "top_k": -1}, "top_k=-1"),
        ({"on_policy": 1, "do_sample": "no"}, "do_sample='no': give true or false"),
        ({"seq_kd": 1, "num_beams": 0}, "num_beams=0"),
        ({"seq_kd": 1, "server": "localhost:8000"}, "server='localhost:8000': give an http address"),
        ({"on_policy": 1, "server": "http://localhost:8000"}, "seq_kd=0 asks it for nothing: set seq_kd"),
        ({"seq_kd": 1, "keep_if": 0.1}, r"keep_if=0.1: give limits from 0 such as \{\"wer\": 0.1\}"),
        ({"seq_kd": 1, "keep_if": {"wer": -1}}, "keep_if={'wer': -1}: give limits"),
        ({"seq_kd": 1, "keep_if": {"normalizer": "basic"}}, "give limits"),
        (
            {"seq_kd": 1, "keep_if": {"wer": 0.1, "normalizer": "french"}},
            'as "normalizer" nothing, "english", "basic"',
        ),
        ({"seq_kd": 1, "keep_if": {"wer": 0.1, "bleu": 1}}, "give limits"),
        ({"on_policy": 1, "keep_if": {"wer": 0.1}}, "which chooses among what the teacher writes, and seq_kd=0"),
        ({"on_policy": 1, "engine": "vllm"}, "no option 'engine': it has on_policy, seq_kd"),
        ("on_policy", "give a mapping such as"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(asked, told):
    with pytest.raises(ValueError, match=told):
        DistillationTrainingArguments("out", rollout=asked, use_cpu=True)


def test_a_mapping_json_and_an_object_are_the_same(tmp_path):
    wanted = Rollout(on_policy=0.5, seq_kd=0.25, max_new_tokens=64)
    given = {"on_policy": 0.5, "seq_kd": 0.25, "max_new_tokens": 64}
    assert rollout_of(given) == rollout_of(wanted) == wanted
    line = ["--output_dir", str(tmp_path), "--rollout", '{"on_policy": 0.5, "seq_kd": 0.25, "max_new_tokens": 64}']
    (args,) = parse_arguments([DistillationTrainingArguments], line)
    assert rollout_of(args.rollout) == wanted
    assert tiny.arguments(tmp_path, rollout=given).to_dict()["rollout"] == given


def test_a_limit_on_the_teachers_texts_is_told_by_the_card():
    asked = rollout_of('{"seq_kd": 1.0, "keep_if": {"wer": 0.1, "normalizer": "basic"}}')
    assert asked.keep_if == {"wer": 0.1, "normalizer": "basic"}
    assert "100 % written by the teacher, those with a WER above 10 % left out, texts of at most 128" in str(asked)
