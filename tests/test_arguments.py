"""Fields and what they refuse."""

import pytest

from hf_distill import DistillationTrainingArguments
from hf_distill.arguments import DistillationArguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_dtype": "int8"}, "teacher_dtype='int8' is not known: use float32, bfloat16, float16 or auto"),
        ({"teacher_quantization": "{"}, "teacher_quantization='{' is not valid JSON"),
        ({"teacher_dtype": "float32", "teacher_quantization": "torchao_int8"}, "were both given"),
    ],
)
def test_a_bad_precision_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationArguments(**options)


def test_a_quantisation_may_be_json():
    asked = DistillationArguments(teacher_quantization='{"quant_method": "bitsandbytes", "load_in_4bit": true}')
    assert asked.teacher_quantization == {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_the_fields_come_after_those_of_training_arguments(tmp_path):
    assert DistillationTrainingArguments(str(tmp_path), use_cpu=True).output_dir == str(tmp_path)
    assert DistillationArguments() == DistillationArguments(alpha=None, temperature=2.0, objective=None)


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        ("eval_kl", False), ("kl", False), ("eval_valid_kl", False), ("eval_perplexity", False),
        ("eval_loss/forward_kl", False), ("loss/hard", False), ("eval_loss", False),
        ("eval_wer", False), ("cer", False), ("eval_student_mse", False), ("eval_answer", True),
        ("eval_agreement", True), ("accuracy", True), (None, None),
    ],
)  # fmt: skip
def test_which_way_is_better_is_known_of_what_an_evaluation_says(tmp_path, metric, greater):
    asked = {"metric_for_best_model": metric, "use_cpu": True}
    assert DistillationTrainingArguments(str(tmp_path), **asked).greater_is_better is greater
    if metric:  # the user's own word
        assert DistillationTrainingArguments(str(tmp_path), **asked, greater_is_better=True).greater_is_better is True
