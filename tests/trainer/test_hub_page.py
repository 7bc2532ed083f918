"""The Hub's page "Knowledge Distillation for Computer Vision": what it writes in forty lines, in five of ours."""

import pytest
import tiny
import tiny_images
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_distill import DistillationTrainer, DistillationTrainingArguments

SIZE, STEPS = 32, 3


class ImageDistilTrainer(Trainer):
    """The page's: its own arguments, its own device, the teacher asked in each step, the divergence by hand."""

    def __init__(self, teacher_model=None, student_model=None, temperature=None, lambda_param=None, **parts):
        super().__init__(model=student_model, **parts)
        self.teacher = teacher_model
        self.loss_function = nn.KLDivLoss(reduction="batchmean")
        self.teacher.to(self.args.device)
        self.teacher.eval()
        self.temperature = temperature
        self.lambda_param = lambda_param

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        student_output = model(**inputs)
        with torch.no_grad():
            teacher_output = self.teacher(**inputs)
        soft_teacher = F.softmax(teacher_output.logits / self.temperature, dim=-1)
        soft_student = F.log_softmax(student_output.logits / self.temperature, dim=-1)
        distillation_loss = self.loss_function(soft_student, soft_teacher) * self.temperature**2
        loss = (1.0 - self.lambda_param) * student_output.loss + self.lambda_param * distillation_loss
        return (loss, student_output) if return_outputs else loss


def models():
    """In double precision: batch norms over eight images make of float32's last digit the third one in two steps."""
    student, teacher = tiny_images.mobilenet(), tiny_images.vit(width=24, layers=4, seed=7, image_size=SIZE)
    return student.double(), teacher.double()


def images(n, **options):
    return [
        {**row, "pixel_values": row["pixel_values"].double()} for row in tiny_images.images(n, size=SIZE, **options)
    ]


def arguments(kind, folder, **changes):
    return tiny.arguments(folder, kind, max_steps=STEPS, per_device_train_batch_size=8, **changes)


def told(run, seen):
    return tiny.losses(run), tiny.losses(run, "grad_norm"), seen.first, run.model.state_dict()


def theirs(folder, rows, **changes):
    (student, teacher), seen = models(), tiny.Gradients()
    run = ImageDistilTrainer(
        teacher, student, 5.0, 0.5, args=arguments(TrainingArguments, folder, **changes), train_dataset=rows,
        data_collator=default_data_collator, callbacks=[seen],
    )  # fmt: skip
    run.train()
    return told(run, seen)


def ours(folder, rows, **changes):
    (student, teacher), seen = models(), tiny.Gradients()
    words = {"alpha": 0.5, "temperature": 5.0, "objective": "forward_kl"}
    run = DistillationTrainer(
        student, arguments(DistillationTrainingArguments, folder, **words, **changes), train_dataset=rows,
        data_collator=default_data_collator, callbacks=[seen], teacher_model=teacher,
    )  # fmt: skip
    run.train()
    return told(run, seen)


@pytest.mark.parametrize(("optim", "rate"), [("sgd", 1e-5), ("adamw_torch", 1e-4)])
def test_five_lines_train_what_the_pages_forty_do(tmp_path, optim, rate):
    rows = images(STEPS * 8)
    one, other = (make(tmp_path, rows, optim=optim, learning_rate=rate) for make in (theirs, ours))
    assert len(one[0]) == STEPS
    assert abs(one[0][0] - one[0][-1]) > 1e-3  # the steps move more than what is compared
    assert other[0] == pytest.approx(one[0], rel=1e-6)
    assert other[1] == pytest.approx(one[1], rel=1e-5)
    assert tiny.relative(other[2], one[2]) < 1e-6
    assert tiny.relative(other[3], one[3]) < 1e-6


def test_and_where_the_page_is_off_ours_is_the_mean_of_the_step(tmp_path):
    """Its loss is a mean of each micro-batch, which Trainer adds up; ours is divided by what the step counts."""
    student = tiny_images.without_batch_statistics(models()[0])
    rows = images(8, label=lambda i: i % 3 if i % 4 else -100)
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        seen, (_, teacher) = tiny.Gradients(), models()
        cut = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        args = {**cut, "alpha": 0.5, "temperature": 5.0, "learning_rate": 0.0}
        run = tiny.trainer(
            tmp_path, student, rows, teacher_model=teacher, data_collator=default_data_collator, callbacks=[seen],
            args=args,
        )  # fmt: skip
        run.train()
        found.append((tiny.losses(run), seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5
