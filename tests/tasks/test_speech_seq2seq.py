"""Whisper and its like: all of an encoder-decoder, of recordings."""

import pytest
import tiny
import tiny_speech

from hf_distill import SpeechSeq2Seq, Task


def trainer(folder, kind, data=None, **parts):
    make = tiny_speech.WRITERS[kind]
    return tiny.trainer(
        folder, make(), data or tiny_speech.recordings(kind=kind), teacher_model=make(seed=7, width=24),
        data_collator=tiny_speech.collate, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("kind", tiny_speech.WRITERS)
def test_the_mean_of_the_sum_is_the_models_own_loss(kind):
    model = tiny_speech.WRITERS[kind]().eval()
    task, batch = Task.of(model), tiny_speech.collate(tiny_speech.recordings(4, kind=kind))
    assert type(task) is SpeechSeq2Seq
    outputs = model(**batch)
    assert task.hard(outputs, batch).mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("kind", tiny_speech.WRITERS)
def test_8_x_1_equals_2_x_4(tmp_path, kind):
    inside = {"term": "hidden_mse", "stream": "encoder"}
    rows, found = tiny_speech.recordings(kind=kind), []
    if kind != "whisper":  # whose convolutions, or group norms, feel the padding behind a recording
        rows = [{n: one if n == "labels" else one[: len(rows[0][n])] for n, one in row.items()} for row in rows]
    for batch, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        args |= {"objective": {"forward_kl": 1.0, "hidden_mse": 1.0, "inside": inside}, "alpha": 0.5}
        run = trainer(tmp_path, kind, rows, callbacks=[seen], args=args)
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path):
    runs = [trainer(tmp_path / n, "whisper", args={"teacher_cache": n, "max_steps": 8}) for n in ("off", "auto")]
    for run in runs:
        run.train()
    live, kept = map(tiny.losses, runs)
    assert kept == pytest.approx(live, rel=1e-5)
    assert tiny.losses(runs[1], "teacher_cache_hits")[-1] == 1.0
