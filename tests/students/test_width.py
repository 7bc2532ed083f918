"""Students with a part of their teacher's width."""

import copy

import pytest
import tiny
import tiny_images
import tiny_language
import torch
from default_run import slow_but
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BeitConfig,
    BertConfig,
    BloomConfig,
    CLIPConfig,
    CLIPForImageClassification,
    Data2VecVisionConfig,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    DistilBertConfig,
    ElectraConfig,
    GemmaConfig,
    GPT2Config,
    IJepaConfig,
    LlamaConfig,
    ModernBertConfig,
    Phi3Config,
    Qwen2Config,
    RobertaConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTMSNConfig,
    YolosConfig,
    YolosForObjectDetection,
    default_data_collator,
)

from hf_distill import Facts, Signals
from hf_distill.objectives import build
from hf_distill.students import lineage, shrink_width
from hf_distill.students.anatomy import Sizes

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, vocab_size=40)
NAMED = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.5)
GROUPS = dict(num_key_value_heads=2)
CASES = {
    "bert": (AutoModelForSequenceClassification, BertConfig(**SIZES, **NAMED)),
    "bert with words": (AutoModelForMaskedLM, BertConfig(**SIZES, **NAMED)),
    "roberta": (AutoModelForSequenceClassification, RobertaConfig(**SIZES, **NAMED)),
    "electra": (AutoModelForSequenceClassification, ElectraConfig(embedding_size=12, **SIZES, **NAMED)),
    "distilbert": (
        AutoModelForSequenceClassification,
        DistilBertConfig(dim=16, n_layers=2, n_heads=4, hidden_dim=24, vocab_size=40, **NAMED),
    ),
    "modernbert": (
        AutoModelForSequenceClassification, ModernBertConfig(**SIZES, **NAMED, cls_token_id=1, sep_token_id=2),
    ),
    "gpt2": (AutoModelForCausalLM, GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=40, **NAMED)),
    "llama": (AutoModelForCausalLM, LlamaConfig(**SIZES, **NAMED, **GROUPS)),
    "llama for classes": (AutoModelForSequenceClassification, LlamaConfig(**SIZES, **NAMED, **GROUPS)),
    "qwen2": (AutoModelForCausalLM, Qwen2Config(**SIZES, **NAMED, **GROUPS)),
    "gemma": (AutoModelForCausalLM, GemmaConfig(**SIZES, **NAMED, **GROUPS, head_dim=8)),
    "phi3": (AutoModelForCausalLM, Phi3Config(**SIZES, **NAMED, **GROUPS)),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    auto, config = CASES[name]
    model = auto.from_config(copy.deepcopy(config)).eval()
    for parameter in model.parameters():  # biases and norms too, which begin at 0 and 1
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def batches(n=3):
    ids = torch.randint(3, 40, (n, 2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return [{"input_ids": row, "attention_mask": mask, "labels": torch.tensor([0, 1])} for row in ids]


def answers(model, batch=None):
    batch = batches(1)[0] if batch is None else batch
    with torch.no_grad():
        return model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


@pytest.mark.parametrize("name", slow_but(["bert", "llama"], CASES))
def test_its_own_sizes_are_the_teacher(name):
    teacher = made(name)
    sizes = Sizes.of(teacher)
    student = shrink_width(teacher, sizes.hidden_size, sizes.num_heads, sizes.intermediate_size, batches=batches())
    assert torch.equal(answers(student), answers(teacher))


@pytest.mark.parametrize("name", slow_but(["bert", "llama"], CASES))
def test_a_narrow_student_runs_learns_and_is_loaded(name, tmp_path):
    teacher = made(name).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = shrink_width(teacher, 8, 2, 10, batches=batches())
    sizes = Sizes.of(student)
    assert (sizes.hidden_size, sizes.num_heads, sizes.intermediate_size) == (8, 2, 10)
    assert sizes.head_dim == Sizes.of(teacher).head_dim
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(answers(loaded), answers(student))
    answer = student(input_ids=batches(1)[0]["input_ids"]).logits
    answer.square().sum().backward()
    assert all(p.grad is not None for n, p in student.named_parameters() if "pooler" not in n)
    (step,) = student.config.distillation
    assert (len(step["kept"]), step["tokens"]) == (8, 36)
    assert "hidden size 16 to 8" in lineage(loaded)[0]


def test_what_is_never_used_is_what_goes():
    """A model that is half dead answers the same without the dead half."""
    teacher = made("llama")
    layers, alive = teacher.model.layers, torch.tensor([1, 2, 4, 7, 8, 11, 13, 14])
    dead = torch.tensor([i for i in range(16) if i not in alive.tolist()])
    with torch.no_grad():
        teacher.model.embed_tokens.weight[:, dead] = 0
        for layer in layers:
            layer.self_attn.o_proj.weight[dead] = 0
            layer.mlp.down_proj.weight[dead] = 0
            layer.mlp.up_proj.weight[[0, 3, *range(8, 20)]] = 0
    found = shrink_width(teacher, 8, None, 10, batches=batches())
    assert found.config.distillation[0]["kept"] == alive.tolist()
    assert torch.allclose(answers(found), answers(teacher), rtol=1e-4, atol=1e-4)


def test_weak_heads_go_group_by_group():
    teacher = made("llama")
    wanted = shrink_width(teacher, num_heads=2, batches=batches()).model.layers[0].self_attn
    shape = wanted.q_proj.weight.shape, wanted.k_proj.weight.shape, wanted.o_proj.weight.shape
    assert shape == ((8, 16), (8, 16), (16, 8))
    strength = heads(teacher)
    for group, best in enumerate(strength.view(2, 2).argmax(dim=-1)):
        ours = wanted.q_proj.weight.view(2, 4, 16)[group]
        theirs = teacher.model.layers[0].self_attn.q_proj.weight.view(4, 4, 16)[2 * group + int(best)]
        assert torch.equal(ours, theirs)


def heads(teacher):
    """The squared norm of what each head of the first layer gives, added over tokens."""
    seen = []
    hook = teacher.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for batch in batches():
        answers(teacher, batch)
    hook.remove()
    mask = batches(1)[0]["attention_mask"].bool()
    return sum(value[mask].view(-1, 4, 4).square().sum(dim=(0, 2)) for value in seen)


def test_padding_counts_for_nothing():
    teacher, some = made("bert"), batches()
    other = copy.deepcopy(some)
    for batch in other:
        batch["input_ids"][1, 5:] = 39
    one, two = (shrink_width(teacher, 8, 2, 10, batches=given) for given in (some, other))
    assert one.config.distillation == two.config.distillation
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_norm_gives_what_it_gave_on_average():
    teacher = made("llama")
    student = shrink_width(teacher, 8, batches=batches())
    kept = student.config.distillation[0]["kept"]
    first = teacher.model.embed_tokens(batches(1)[0]["input_ids"])
    with torch.no_grad():
        theirs = teacher.model.layers[0].input_layernorm(first)[..., kept]
        ours = student.model.layers[0].input_layernorm(first[..., kept])
    assert 0.9 < float(ours.norm() / theirs.norm()) < 1.1


def test_projections_begin_where_the_dimensions_came_from():
    teacher = tiny.teacher()
    student = shrink_width(teacher, 12, batches=[{"input_ids": torch.tensor([[5, 6, 7, 8]])}])
    kept = student.config.distillation[0]["kept"]
    facts = Facts.of(student)
    assert facts.kept == tuple(kept)
    objective = build({"hidden_mse": {"layers": {1: 1}}})
    objective.build(facts, Facts.of(teacher))
    (term,) = objective.terms.values()
    states = torch.randn(2, 3, 12)
    back = term.projections["1_1"](states)
    assert torch.equal(back[..., kept], states)
    assert back.count_nonzero() == states.count_nonzero()
    shown = torch.zeros(2, 3, 24)
    shown[..., kept] = states
    pair = Signals({}, hidden=(states, states)), Signals({}, hidden=(shown, shown))
    assert term(*pair, {}).total == 0


def test_other_widths_begin_at_random():
    objective = build({"hidden_mse": {"layers": {1: 1}}})
    objective.build(Facts(hidden_size=4, num_layers=1, kept=(0, 1, 2, 9)), Facts(hidden_size=6, num_layers=1))
    (term,) = objective.terms.values()
    assert term.projections["1_1"].weight.count_nonzero() == 24


def test_a_second_cut_knows_the_first_ones_teacher():
    teacher, given = tiny.bert(layers=1, num_attention_heads=4), [{"input_ids": torch.tensor([[5, 6, 7, 8]])}]
    first = shrink_width(teacher, 12, batches=given)
    second = shrink_width(first, 8, batches=given)
    one, two = (model.config.distillation[-1]["kept"] for model in (first, second))
    assert Facts.of(second).kept == tuple(one[i] for i in two)
    assert Facts.of(second).places(Facts.of(first)) == tuple(two)
    assert Facts.of(second).places(Facts.of(teacher)) == tuple(one[i] for i in two)


def test_what_cannot_be_cut_is_refused():
    some, bert, llama = batches(), made("bert"), made("llama")
    for sizes, match in [
        (dict(hidden_size=10), "hidden_size=10 with 2 heads was asked of BertFor.*: ask for a hidden_size of 4 times"),
        (dict(num_heads=2), "hidden_size=16 with 2 heads was asked of BertFor"),
        (
            dict(hidden_size=17),
            "hidden_size=17 was asked of BertForSequenceClassification, which has 16: ask for 1 to",
        ),
        (dict(intermediate_size=0), "intermediate_size=0 was asked of"),
    ]:
        with pytest.raises(ValueError, match=match):
            shrink_width(bert, **sizes, batches=some)
    with pytest.raises(ValueError, match="3 heads were asked of LlamaForCausalLM, which has 2 groups of queries"):
        shrink_width(llama, num_heads=3, batches=some)
    with pytest.raises(ValueError, match="batches is empty"):
        shrink_width(bert, 8, batches=[])
    with pytest.raises(ValueError, match="whose configuration does not give one hidden_size"):
        shrink_width(tiny_language.t5(), 8, batches=some)
    electra = AutoModelForSequenceClassification.from_config(ElectraConfig(embedding_size=8, **SIZES, **NAMED))
    with pytest.raises(ValueError, match=r"at which its class has other parts \(electra.embeddings_project.bias\)"):
        shrink_width(electra, 8, batches=some)
    bloom = AutoModelForCausalLM.from_config(BloomConfig(hidden_size=16, n_layer=1, n_head=4, vocab_size=40))
    before = copy.deepcopy(bloom.state_dict())
    with pytest.raises(ValueError, match="was to be cut"):
        shrink_width(bloom, 8, batches=some)
    assert all(torch.equal(before[name], value) for name, value in bloom.state_dict().items())


SEEN = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8)
CLASSES = dict(SEEN, num_labels=3, initializer_range=0.5)
INSIDE = dict(CLASSES, intermediate_size=24)
SEERS = {
    "vit": (None, ViTConfig(**INSIDE), 5),
    "deit": (DeiTForImageClassification, DeiTConfig(**INSIDE), 6),
    "deit with its token": (DeiTForImageClassificationWithTeacher, DeiTConfig(**INSIDE), 6),
    "beit": (None, BeitConfig(**INSIDE), 5),
    "beit with positions by head": (None, BeitConfig(use_relative_position_bias=True, **INSIDE), 5),
    "data2vec": (None, Data2VecVisionConfig(**INSIDE), 5),
    "dinov2": (None, Dinov2Config(mlp_ratio=2, **CLASSES), 5),
    "dinov2 with registers": (None, Dinov2WithRegistersConfig(mlp_ratio=2, **CLASSES), 9),
    "dinov3": (DINOv3ViTModel, DINOv3ViTConfig(**INSIDE), 5),
    "msn": (None, ViTMSNConfig(**INSIDE), 5),
    "ijepa": (None, IJepaConfig(**INSIDE), 4),
    "yolos": (
        YolosForObjectDetection,
        YolosConfig(num_detection_tokens=2, **{**INSIDE, "image_size": [16, 16]}), 7,
    ),
    "clip": (
        CLIPForImageClassification, CLIPConfig(vision_config=dict(SEEN, intermediate_size=24), num_labels=3), 5,
    ),
}  # fmt: skip


def seer(name):
    torch.manual_seed(0)
    kind, config, _ = SEERS[name]
    config = copy.deepcopy(config)
    model = kind(config) if kind else AutoModelForImageClassification.from_config(config)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pictures(n=3):
    return [{"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(i))} for i in range(n)]


def shown(model):
    with torch.no_grad():
        return next(iter(model.eval()(**pictures(1)[0]).values()))


@pytest.mark.parametrize("name", slow_but(["vit", "clip", "dinov2", "yolos"], SEERS))
def test_a_model_of_images_is_cut_and_all_its_positions_count(name, tmp_path):
    teacher, positions = seer(name).requires_grad_(False), SEERS[name][2]
    before = copy.deepcopy(teacher.state_dict())
    sizes = Sizes.of(teacher)
    whole = shrink_width(teacher, sizes.hidden_size, sizes.num_heads, sizes.intermediate_size, batches=pictures())
    assert all(torch.equal(before[key], value) for key, value in whole.state_dict().items())
    # How a convolution rounds depends on where its weights lie in memory: two copies may differ in the last digit.
    assert torch.allclose(shown(whole), shown(teacher), rtol=1e-5, atol=1e-5)
    inner = 16 if sizes.inner == "mlp_ratio" else 10
    student = shrink_width(teacher, 8, 2, inner, batches=pictures())
    cut = Sizes.of(student)
    assert (cut.hidden_size, cut.num_heads, cut.intermediate_size) == (8, 2, inner)
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    (step,) = student.config.distillation
    assert (len(step["kept"]), step["positions"]) == (8, 3 * 2 * positions)
    held = {key: value for key, value in student.state_dict().items() if "patch" in key and value.ndim == 4}
    (patches,) = held
    assert torch.equal(held[patches], before[patches][step["kept"]])
    student.save_pretrained(tmp_path)
    loaded, info = type(student).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    held = student.state_dict()
    assert all(torch.equal(held[key], value) for key, value in loaded.state_dict().items())
    assert torch.allclose(shown(loaded), shown(student), rtol=1e-5, atol=1e-5)
    assert f"over {3 * 2 * positions} positions" in lineage(loaded)[0]


def test_tokens_of_an_image_model_and_its_head_follow_the_kept_dimensions():
    teacher = seer("vit")
    student = shrink_width(teacher, 8, batches=pictures())
    kept = student.config.distillation[0]["kept"]
    for part in ("cls_token", "position_embeddings"):
        assert torch.equal(getattr(student.vit.embeddings, part), getattr(teacher.vit.embeddings, part)[..., kept])
    assert torch.equal(student.classifier.weight, teacher.classifier.weight[:, kept])
    double = seer("dinov2")  # the class token beside the mean of the patches
    narrow = shrink_width(double, 8, batches=pictures())
    kept = narrow.config.distillation[0]["kept"]
    both = [*kept, *(16 + dimension for dimension in kept)]
    assert torch.equal(narrow.classifier.weight, double.classifier.weight[:, both])
    assert Sizes.of(narrow).intermediate_size == 16  # twice the width, as its teacher's


def test_positions_by_head_go_with_their_heads():
    teacher = seer("beit with positions by head")
    student = shrink_width(teacher, 8, 2, batches=pictures())
    for ours, theirs in zip(student.beit.layers, teacher.beit.layers, strict=True):
        strength = torch.zeros(4)
        for batch in pictures():
            seen = []
            hook = theirs.attention.o_proj.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            with torch.no_grad():
                teacher(**batch)
            hook.remove()
            strength = seen[0].view(-1, 4, 4).square().sum(dim=(0, 2)) + strength
        best = strength.topk(2).indices.sort().values
        table = theirs.relative_position_bias.relative_position_bias_table
        assert torch.equal(ours.relative_position_bias.relative_position_bias_table, table[:, best])


def test_a_narrow_model_of_images_learns_from_its_teacher(tmp_path):
    teacher = seer("vit")
    student = shrink_width(teacher, 8, batches=pictures())
    run = tiny.trainer(
        tmp_path, student, tiny_images.images(4), teacher_model=teacher, data_collator=default_data_collator,
        args={"objective": "auto", "max_steps": 1, "per_device_train_batch_size": 4},
    )  # fmt: skip
    before = copy.deepcopy(student.state_dict())
    assert run.train().training_loss > 0
    assert not torch.equal(before["classifier.weight"], student.classifier.weight)


def test_models_of_images_that_cannot_be_cut_are_refused():
    stages = [tiny_images.resnet(), tiny_images.convnext(), tiny_images.swin()]
    for model in stages:
        with pytest.raises(ValueError, match=r"one hidden_size, one number of .*: keep some of its layers instead"):
            shrink_width(model, 8, batches=pictures())
    tower = SiglipVisionModel(SiglipVisionConfig(**SEEN, intermediate_size=24))
    with pytest.raises(ValueError, match="in_proj_weight follows it in another way: keep some of its layers instead"):
        shrink_width(tower, 8, batches=pictures())
    with pytest.raises(
        ValueError, match=r"intermediate_size=12 with hidden_size=8 was asked of Dinov2.*: ask for a mult"
    ):
        shrink_width(seer("dinov2"), 8, 2, 12, batches=pictures())
    shared = BeitConfig(use_shared_relative_position_bias=True, **INSIDE)
    with pytest.raises(ValueError, match="relative_position_bias_table follows it in another way"):
        shrink_width(AutoModelForImageClassification.from_config(shared), 8, batches=pictures())
