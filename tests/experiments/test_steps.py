"""How many steps a training takes, told before it is made."""

import pytest
import tiny
from transformers import TrainingArguments

from hf_distill import DistillationTrainer
from hf_distill.experiments.steps import about, steps_of, steps_of_epoch, train

ROWS = [{"input_ids": [5, 6 + i % 9], "labels": i % 3} for i in range(10)]


@pytest.mark.parametrize(
    ("asked", "epoch", "steps"),
    [
        ({"num_train_epochs": 1.5}, 4, 6),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 3}, 2, 4),
        ({"max_steps": 3}, 4, 3),
        ({"gradient_accumulation_steps": 9, "num_train_epochs": 2}, 1, 2),
    ],
)
def test_the_steps_are_those_that_trainer_takes(tmp_path, asked, epoch, steps):
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=3, use_cpu=True, report_to=[], **asked)
    trainer = DistillationTrainer(tiny.bert(), args, train_dataset=ROWS)
    assert (steps_of_epoch(trainer), steps_of(trainer)) == (epoch, steps)
    train(trainer)
    assert trainer.state.global_step == steps


@pytest.mark.parametrize(("asked", "steps"), [({"max_steps": 7}, 7), ({"gradient_accumulation_steps": 2}, 5.0)])
def test_before_there_is_a_trainer_the_rows_tell_about_how_many(tmp_path, asked, steps):
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to=[], **asked)
    assert about(args, rows=20, epochs=2) == steps


def test_a_training_whose_loss_is_no_number_ends_in_a_sentence(tmp_path):
    run = tiny.trainer(tmp_path, teacher_model=tiny.teacher(), args={"max_steps": 4})
    train(run)  # a loss that is one trains to the end
    assert run.state.global_step == 4
    run.model.classifier.weight.data.fill_(float("nan"))
    told = (
        r"loss/hard of BertForSequenceClassification is NaN by step 1 of 4: lower the learning rate of 0.01, or train"
    )
    with pytest.raises(ValueError, match=told):
        train(run)
