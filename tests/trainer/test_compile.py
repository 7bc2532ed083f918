"""A compiled student learns the same, and is compiled once."""

import pytest
import tiny
import torch
from default_run import slow_but
from torch._dynamo.utils import get_compilation_metrics
from transformers import TrainerCallback


class Compilations(TrainerCallback):
    """How many graphs there were after each step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.append(len(get_compilation_metrics()))


def losses(folder, rows, **args):
    torch._dynamo.reset()
    seen = Compilations()
    run = tiny.trainer(
        folder, data=rows, teacher_model=tiny.teacher(), callbacks=[seen], args={"max_steps": 8, **args}
    )
    run.train()
    return tiny.losses(run), [count - seen.seen[0] for count in seen.seen]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("backend", slow_but(["eager"], ["eager", "inductor"]))
def test_torch_compile_gives_the_same_losses_and_compiles_nothing_after_its_first_steps(tmp_path, backend):
    torch.set_num_threads(1)
    rows = tiny.rows(64)
    eager, none = losses(tmp_path, rows)
    compiled, graphs = losses(tmp_path, rows, torch_compile_backend=backend)
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert none == [0] * 8
    # Rows are padded to the longest of their batch: a second length makes the graph take any, and that is all.
    assert graphs[-1] <= 2
    assert graphs[3:] == [graphs[3]] * 5
    same = [{**row, "input_ids": (row["input_ids"] * 4)[:8], "attention_mask": [1] * 8} for row in rows]
    assert losses(tmp_path, same, torch_compile_backend=backend)[1] == [0] * 8
