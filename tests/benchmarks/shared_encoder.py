"""What does a student of 30 seconds of speech cost, with an encoder of its own and with its frozen teacher's?

    python tests/benchmarks/shared_encoder.py
    python tests/benchmarks/shared_encoder.py --device cuda --rows 8

Random models of Whisper tiny's size (four layers in the encoder, the teacher's decoder has four and the student's
two), rows of 3,000 frames with ``--letters`` labels each. One thread on a CPU, seconds of the process; on a GPU
seconds. The least of ``--rounds`` of the student's forward alone, and of a whole training step with its teacher. The
last line is how many times less the student's forward costs where it reads the teacher's encoder.
"""

import argparse
import copy
import tempfile
import time

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from hf_distill import DistillationTrainer, DistillationTrainingArguments, LiveTeacher, Task
from hf_distill.reports import markdown_table


def models():
    torch.manual_seed(0)
    config = WhisperConfig(encoder_layers=4, decoder_layers=4, d_model=384, encoder_ffn_dim=1536, decoder_ffn_dim=1536)
    config.encoder_attention_heads = config.decoder_attention_heads = 6
    teacher = WhisperForConditionalGeneration(config)
    smaller = copy.deepcopy(config)
    smaller.decoder_layers = 2
    student = WhisperForConditionalGeneration(smaller)
    student.model.encoder.load_state_dict(teacher.model.encoder.state_dict())
    student.model.encoder.requires_grad_(False)
    return teacher, student


def seconds(call, rounds, device):
    def clock():
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    call()
    found = []
    for _ in range(rounds):
        begun = clock()
        call()
        found.append(clock() - begun)
    return min(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--letters", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    teacher, student = (one.to(given.device) for one in models())
    batch = {
        "input_features": torch.randn(given.rows, 80, 3000, device=given.device),
        "labels": torch.randint(5, 50000, (given.rows, given.letters), device=given.device),
    }
    fed, task = {"input_features": batch["input_features"]}, Task.of(student)
    shown = LiveTeacher(teacher.eval(), task)(batch, frozenset({"heads", "encoded"}))
    outputs, times = {}, {}

    def forward(name, taught):
        outputs[name] = student(**task.inputs(student, fed, batch, taught), use_cache=False).logits

    for name, taught in (("its own", None), ("the teacher's", shown)):
        times[name] = [seconds(lambda name=name, taught=taught: forward(name, taught), given.rounds, given.device)]
    rows = [{n: one[row].cpu() for n, one in batch.items()} for row in range(given.rows)]
    for name, share in (("its own", "off"), ("the teacher's", "on")):
        args = DistillationTrainingArguments(
            tempfile.mkdtemp(), share_encoder=share, teacher_cache="off", report_to="none", max_steps=1,
            disable_tqdm=True, use_cpu=given.device == "cpu", per_device_train_batch_size=given.rows,
            dataloader_pin_memory=False, save_strategy="no",
        )  # fmt: skip
        run = DistillationTrainer(student, args, train_dataset=rows, teacher_model=teacher)
        run.create_optimizer()

        def step(run=run):
            run.training_step(run.model.train(), dict(batch), None)
            run.model.zero_grad()

        times[name].append(seconds(step, given.rounds, given.device))
    table = [[name, *(f"{one / given.rows:.3f}" for one in some)] for name, some in times.items()]
    print(markdown_table(["the student's encoder", "s a row, student's forward", "s a row, a training step"], table))
    difference = (outputs["its own"] - outputs["the teacher's"]).abs().max().item()
    print(f"largest difference of a logit: {difference:g}")
    own, shared = (some[0] for some in times.values())
    print(f"{own / shared:.1f}")


if __name__ == "__main__":
    main()
