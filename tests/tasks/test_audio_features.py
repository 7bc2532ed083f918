"""A state for each frame, of audio models without a head."""

import pytest
import tiny
import tiny_speech
import torch
from transformers import HubertModel, Wav2Vec2Model

from hf_distill import AudioFeatures, Task

MODELS = {
    "wav2vec2": lambda seed=0, **sizes: tiny_speech.wav2vec2(seed, Wav2Vec2Model, **sizes),
    "hubert": lambda seed=0, **sizes: tiny_speech.hubert(seed, HubertModel, **sizes),
    "ast": lambda seed=0, **sizes: tiny_speech.ast(seed, **sizes).audio_spectrogram_transformer,
    "features": lambda seed=0, **sizes: tiny_speech.features(seed, **sizes).wav2vec2_bert,
}
MANY = {"distilhubert": 1.0, "hidden_mse": {"layers": {-1: [1, 2, 3]}}, "pooled_mse": 1.0}


def rows(kind):
    return [{n: one for n, one in row.items() if n != "labels"} for row in tiny_speech.recordings(kind=kind)]


def trainer(folder, kind, teacher=None, **parts):
    make = MODELS[kind]
    return tiny.trainer(
        folder, make(), rows(kind), teacher_model=teacher or make(seed=7, width=24, layers=3),
        data_collator=tiny_speech.collate, **parts,
    )  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_the_task_is_found(kind):
    task = Task.of(MODELS[kind]())
    assert type(task) is AudioFeatures
    assert task.label_names == ()


def test_encoder_decoders_and_texts_are_none():
    assert AudioFeatures.from_model(tiny_speech.whisper().model) is None
    assert AudioFeatures.from_model(tiny.bert().bert) is None
    assert type(Task.of(tiny_speech.wav2vec2())) is not AudioFeatures
    assert Task.find(MODELS["hubert"]()) is None  # without a teacher nothing can train it


@pytest.mark.parametrize("kind", MODELS)
def test_8_x_1_equals_2_x_4(tmp_path, kind):
    found = []
    for batch, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, kind, callbacks=[seen], args={**args, "objective": MANY})
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    for name, value in found[0][0].items():
        assert found[1][0][name] == pytest.approx(value, rel=1e-5), name
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5
    assert sum("hidden_mse.projections" in name for name in found[0][1]) == 3


@pytest.mark.parametrize(("kind", "rate"), [("hubert", (4, 4)), ("hubert", (4, 2)), ("hubert", (8, 4)), ("ast", None)])
def test_a_kept_teacher_teaches_what_a_live_one_does(tmp_path, kind, rate):
    """Also one of another rate, finer or coarser."""
    found = []
    for name in ("off", "auto"):
        more = {"strides": rate} if rate else {}
        teacher = MODELS[kind](seed=7, width=24, layers=3, **more)
        args = {"teacher_cache": name, "max_steps": 6, "per_device_train_batch_size": 4, "objective": MANY}
        run = trainer(tmp_path / name, kind, teacher, args=args)
        run.train()
        found.append(tiny.losses(run))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert tiny.losses(run, "teacher_cache_hits")[-1] == 1.0


def test_frames_of_another_rate_are_the_mean_of_those_that_fall_onto_one(tmp_path):
    student, teacher = MODELS["hubert"](), MODELS["hubert"](seed=7, strides=(4, 2))
    run = trainer(tmp_path, "hubert", teacher, args={"objective": {"hidden_mse": {"layers": {2: 2}}}})
    batch = tiny_speech.collate(rows("hubert")[:1])
    with torch.no_grad():
        ours = student.eval()(**batch, output_hidden_states=True).hidden_states[2]
        theirs = teacher.eval()(**batch, output_hidden_states=True).hidden_states[2]
    assert (ours.shape[1], theirs.shape[1]) == (6, 12)
    wanted = torch.nn.functional.mse_loss(ours, theirs.view(1, 6, 2, 16).mean(dim=2))
    assert run.evaluate(rows("hubert")[:1])["eval_loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_logits_and_labels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="forward_kl compares logits, a model of AutoModel has none"):
        trainer(tmp_path, "hubert", args={"objective": "forward_kl"})
    with pytest.raises(ValueError, match=r"alpha=0\.5 trains on labels, a model of AutoModel has no head"):
        trainer(tmp_path, "hubert", args={"alpha": 0.5})
