"""One encoder for two models: the same losses and gradients, its second forward gone, refused where it is another."""

import copy

import peft
import pytest
import tiny
import tiny_speech
import torch
from tiny_encoder_decoders import FAMILIES

from hf_distill import AdapterOffTeacher, LiveTeacher, SpeechSeq2Seq, Task
from hf_distill.models.encoder import difference, encoder_of, random_part


def models(family, **more):
    make = FAMILIES[family][0]
    teacher, student = make(seed=7, **more), make(seed=5, **more)
    encoder_of(student).load_state_dict(encoder_of(teacher).state_dict())
    encoder_of(student).requires_grad_(False)
    return teacher, student


def trainer(folder, family="whisper", share="on", pair=None, collator=None, **parts):
    teacher, student = pair or models(family)
    _, rows, collate = FAMILIES[family]
    args = {"share_encoder": share, "teacher_cache": "off", **parts.pop("args", {})}
    collate = collator or collate
    run = tiny.trainer(
        folder, student, rows(), data_collator=collate, args=args, **{"teacher_model": teacher, **parts}
    )
    run.heard = count(student)
    return run


def count(student):
    heard = []
    encoder_of(student).register_forward_hook(lambda module, given, output: heard.append(len(heard)))
    return heard


def trained(run, seen):
    run.train()
    return {k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_gradients_and_evaluations_are_the_same_bits_and_the_students_encoder_never_runs(tmp_path, family):
    found = []
    for share in ("off", "on"):
        seen = tiny.Gradients()
        run = trainer(tmp_path, family, share, callbacks=[seen], eval_dataset=FAMILIES[family][1]())
        losses, gradients = trained(run, seen)
        evaluated = {k: v for k, v in run.evaluate().items() if "loss" in k or k.endswith("kl")}
        found.append((losses, tiny.losses(run), evaluated))
        assert bool(run.heard) == (share == "off")
        if share == "off":
            wanted = gradients
    assert found[0] == found[1]
    assert gradients.keys() == wanted.keys()
    assert all(torch.equal(one, wanted[name]) for name, one in gradients.items())


@pytest.mark.parametrize("family", ["whisper", "moonshine", "t5"])
def test_logits_are_the_same_bits(family):
    teacher, student = (one.eval() for one in models(family))
    _, rows, collate = FAMILIES[family]
    batch = dict(collate([dict(row) for row in rows()]))
    task = Task.of(student)
    fed = {name: value for name, value in batch.items() if name != "labels"}
    own = student(**task.inputs(student, fed, batch)).logits
    heard = count(student)
    shown = LiveTeacher(teacher, task)(batch, frozenset({"heads", "encoded"}))
    assert torch.equal(student(**task.inputs(student, fed, batch, shown)).logits, own)
    assert not heard
    assert LiveTeacher(teacher, task)(batch, frozenset({"heads"})).encoded is None


@pytest.mark.parametrize("changes", [{"gradient_accumulation_steps": 4}, {tiny.CHECKPOINTING: True}, {"bf16": True}])
def test_it_is_shared_whatever_a_step_is_made_of(tmp_path, changes):
    changes = {"per_device_train_batch_size": 2, "max_steps": 1, **changes}
    found = []
    for share in ("off", "on"):
        run = trainer(tmp_path, "whisper", share, args=changes)
        run.train()
        found.append(tiny.losses(run))
        assert bool(run.heard) == (share == "off")
    assert found[0] == found[1]


def lora(model):
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=r".*decoder.*q_proj", r=2, lora_dropout=0.0))


def test_a_lora_student_with_adapters_on_its_decoder_shares(tmp_path):
    teacher, student = models("whisper")
    student.requires_grad_(True)
    run = trainer(tmp_path, pair=(teacher, lora(student)))
    run.train()
    assert not run.heard
    base = tiny_speech.whisper()
    run = trainer(tmp_path, pair=(AdapterOffTeacher(), lora(base)))
    run.train()
    assert len(run.heard) == 3  # once a step, for the teacher


def test_an_encoder_may_be_the_teachers_own_module(tmp_path):
    found = []
    for copied in (True, False):
        teacher, student = models("whisper")
        student.model.encoder = copy.deepcopy(teacher.model.encoder) if copied else teacher.model.encoder
        student.model.encoder.requires_grad_(False)
        run = trainer(tmp_path, pair=(teacher, student), args={"share_encoder": "on"})
        run.train()
        found.append(tiny.losses(run))
        assert len(run.heard) == (0 if copied else 3)
    assert found[0] == found[1]


def test_what_a_memory_answers_brings_no_states_and_the_students_encoder_runs(tmp_path):
    found = {}
    for cache in ("off", "auto"):
        args = {"teacher_cache": cache, "max_steps": -1, "num_train_epochs": 3, "per_device_train_batch_size": 4}
        run = trainer(tmp_path / cache, args=args)
        run.train()
        found[cache] = tiny.losses(run)
        assert len(run.heard) == {"off": 0, "auto": 4}[cache]  # two steps of each of two epochs
    assert found["auto"] == pytest.approx(found["off"], rel=1e-6)


def test_an_encoder_that_is_not_the_teachers_runs_under_auto(tmp_path):
    teacher, student = models("whisper")
    student.model.encoder.requires_grad_(True)
    run = trainer(tmp_path, pair=(teacher, student), share="auto")
    run.train()
    assert len(run.heard) == 3


def test_it_is_told_once_that_it_is_shared(tmp_path, caplog):
    with caplog.at_level("INFO", logger="hf_distill.training.shared_encoder"):
        trainer(tmp_path, share="auto").train()
    assert [one.getMessage() for one in caplog.records if "runs once for both" in one.getMessage()] == [
        "The encoder of WhisperForConditionalGeneration is frozen and the teacher's own: it runs once for both."
    ]


def test_dropout_is_no_obstacle_where_nothing_drops(tmp_path):
    """In evaluation nothing is random; a student that keeps its encoder in eval shares in training too."""
    pair = models("whisper", dropout=0.1)
    run = trainer(tmp_path, share="auto", pair=pair, eval_dataset=FAMILIES["whisper"][1]())
    run.train()
    assert len(run.heard) == 3
    run.evaluate()
    assert len(run.heard) == 3

    class Still(type(pair[1])):
        def train(self, mode=True):
            super().train(mode)
            self.model.encoder.eval()
            return self

    teacher, student = models("whisper", dropout=0.1)
    student.__class__ = Still
    run = trainer(tmp_path, pair=(teacher, student))
    run.train()
    assert not run.heard


def thawed(teacher, student):
    student.model.encoder.conv1.requires_grad_(True)


def moved(teacher, student):
    teacher.model.encoder.layers[0].fc1.weight.data[0, 0] += 1e-3


def louder(teacher, student):
    student.model.encoder.layers[0].activation_fn = torch.nn.ReLU()


def masked(teacher, student):
    student.config.apply_spec_augment, student.config.mask_time_prob = True, 0.05


def dropping(teacher, student):
    student.model.encoder.layers[0].dropout = 0.1


@pytest.mark.parametrize(
    ("change", "told", "settings"),
    [
        (thawed, r"encoder is trained \(2 of its parameters, such as conv1.weight\): freeze it with", {}),
        (moved, r"is not the teacher's \(its layers.0.fc1.weight has other values\): copy", {}),
        (louder, r"is not the teacher's \(it has other settings \(layers.0.activation_fn", {}),
        (dropping, r"is random in training \(layers.0.dropout=0.1\): set that to 0", {}),
        (masked, r"is random in training \(mask_time_prob=0.05\): set that to 0", {}),
        (None, r"computes in torch.float32 and the student under mixed precision: leave teacher_dtype",
         {"teacher_dtype": "float32", "bf16": True}),
        (None, r"the objective needs hidden:encoder of the student's own encoder: leave that term out",
         {"objective": {"hidden_mse": {"stream": "encoder"}}}),
    ],
)  # fmt: skip
def test_on_refuses_what_cannot_be_shared(tmp_path, change, told, settings):
    pair = models("whisper")
    if change is not None:
        change(*pair)
    with pytest.raises(ValueError, match=f"share_encoder=on was asked for, but .*{told}"):
        trainer(tmp_path, pair=pair, args=settings)


def test_on_refuses_models_and_teachers_without_such_an_encoder(tmp_path):
    parts = {"teacher_model": tiny.teacher(), "args": {"share_encoder": "on"}}
    with pytest.raises(ValueError, match="BertForSequenceClassification is no encoder with a decoder"):
        tiny.trainer(tmp_path, **parts)
    teacher, student = models("whisper")
    with pytest.raises(ValueError, match="shows no states of a frozen encoder: use one model as teacher"):
        trainer(tmp_path, pair=([teacher, tiny_speech.whisper(seed=9)], student))

    class Old(SpeechSeq2Seq):
        def inputs(self, model, fed, batch):
            return super().inputs(model, fed, batch)

    with pytest.raises(ValueError, match=r"the inputs\(\) of Old takes no argument teacher: add it"):
        trainer(tmp_path, pair=(teacher, student), task=Old())


def test_on_refuses_a_batch_of_which_the_teacher_reads_something_else(tmp_path):
    def collate(rows):
        batch = tiny_speech.collate(rows)
        return {**batch, "teacher_input_features": batch["input_features"] + 1}

    run = trainer(tmp_path, share="on", collator=collate)
    with pytest.raises(ValueError, match=r"reads a column of its own \(teacher_input_features\): leave it out"):
        run.train()
    run = trainer(tmp_path, share="auto", collator=collate)
    run.train()
    assert len(run.heard) == 3


def test_an_encoder_that_is_thawed_or_written_to_while_it_trains_is_the_students_own_again(tmp_path):
    for change in (
        lambda encoder: encoder.requires_grad_(True),
        lambda encoder: encoder.layer_norm.bias.data.add_(0.1),
    ):

        class Change(tiny.TrainerCallback):
            def on_step_end(self, args, state, control, model=None, change=change, **kwargs):
                if state.global_step == 1:
                    change(model.model.encoder)

        run = trainer(tmp_path, share="auto", callbacks=[Change()])
        run.train()
        assert len(run.heard) == 2
        run = trainer(tmp_path, share="on", callbacks=[Change()])
        with pytest.raises(ValueError, match="share_encoder=on was asked for, but the student's encoder is"):
            run.train()


def test_with_alpha_0_the_teacher_is_not_asked_for_its_states(tmp_path):
    run = trainer(tmp_path, args={"alpha": 0.0})
    run.train()
    assert len(run.heard) == 3


def test_two_encoders_are_the_same_one_by_their_tensors_and_settings():
    one, other = models("bart")
    assert difference(encoder_of(one), encoder_of(other)) == ""
    encoder_of(other).layers[0].self_attn.scaling *= 2
    assert difference(encoder_of(one), encoder_of(other)) == "it has other settings (layers.0.self_attn.scaling)"
    one, other = models("t5")
    other.config._attn_implementation = "eager"
    encoder_of(other).config._attn_implementation = "other"
    assert difference(encoder_of(one), encoder_of(other)) == "it has other settings (attention)"
    encoder_of(one).half()
    encoder_of(other).config._attn_implementation = encoder_of(one).config._attn_implementation
    assert "is torch.float16, the other's torch.float32" in difference(encoder_of(one), encoder_of(other))


def test_batch_norms_make_another_encoder_in_training():
    model = tiny_speech.whisper()
    model.model.encoder.norm = torch.nn.BatchNorm1d(4)
    assert random_part(model.train()) == "norm takes means over the batch"
    assert random_part(model.eval()) == ""
