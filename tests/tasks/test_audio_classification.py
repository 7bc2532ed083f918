"""A class for each recording, by the student's own frames."""

import pytest
import tiny
import tiny_speech

from hf_distill import AudioClassification, Task


def rows(kind, n=8, seed=1):
    return tiny_speech.recordings(n, seed, kind, label=lambda number: number % 3)


def trainer(folder, kind, teacher=None, **parts):
    make = tiny_speech.CLASSIFIERS[kind]
    return tiny.trainer(
        folder, make(), rows(kind), teacher_model=teacher or make(seed=7, width=24, layers=3),
        data_collator=tiny_speech.collate, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("kind", tiny_speech.CLASSIFIERS)
def test_the_mean_of_the_sum_is_the_models_own_loss(kind):
    model = tiny_speech.CLASSIFIERS[kind]().eval()
    task, batch = Task.of(model), tiny_speech.collate(rows(kind, 4))
    assert type(task) is AudioClassification
    outputs = model(**batch)
    task.infer_from_batch(model, batch)
    assert task.hard(outputs, batch).mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("kind", tiny_speech.CLASSIFIERS)
def test_8_x_1_equals_2_x_4(tmp_path, kind):
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, kind, callbacks=[seen], args={**args, "objective": "auto", "alpha": 0.5})
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert "loss/hidden_mse" in found[0][0]
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("kind", ["wav2vec2", "ast"])
def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path, kind):
    runs = [
        trainer(tmp_path / name, kind, args={"teacher_cache": name, "max_steps": 8, "objective": "auto"})
        for name in ("off", "auto")
    ]
    for run in runs:
        run.train()
    live, kept = map(tiny.losses, runs)
    assert kept == pytest.approx(live, rel=1e-5)
    assert tiny.losses(runs[1], "teacher_cache_hits")[-1] == 1.0


def test_frames_are_counted_and_not_samples():
    model = tiny_speech.CLASSIFIERS["wav2vec2"]()
    batch = tiny_speech.collate(rows("wav2vec2", 3))
    counts = Task.of(model).counts(batch)
    assert counts["tokens"] == sum(n // 16 for n in (96, 128, 160))
    assert counts["samples"] == 3
