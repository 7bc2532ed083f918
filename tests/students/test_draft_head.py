"""Draft heads: what they read and when, what an unrolled pass sees, the layout that servers load."""

import copy
import json

import pytest
import tiny
import tiny_drafts
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad
from transformers import AutoConfig

from hf_distill import DraftHead, speculate
from hf_distill.students import lineage

IDS = torch.tensor([[5, 9, 12, 7, 8, 20, 11, 6]])


def run(head, teacher, ids=IDS, mask=None, change=None):
    read = tiny_drafts.states(teacher, head, ids, mask)
    if change is not None:
        read = [change(one) for one in read]
    with torch.no_grad():
        shown = head.eval()(ids, *read, attention_mask=mask)
    return torch.stack([shown.logits, *(shown.further_logits or ())])


@pytest.mark.parametrize("kind", ["llama", *tiny_drafts.CLASSES])
def test_it_begins_as_a_tenth_of_the_last_state_with_the_teachers_embeddings_and_head(kind):
    teacher = tiny_drafts.teacher(kind)
    head = tiny_drafts.draft(teacher)
    read = tiny_drafts.states(teacher, head, IDS)
    assert torch.allclose(head.fused(*read), 0.1 * read[-1], atol=1e-6)
    full = copy.deepcopy(head)
    full.fc.weight.data *= 10  # what attends and what is predicted is the same, but for what the layer adds
    assert torch.allclose(head.norm(head.fused(*read)), full.norm(full.fused(*read)), atol=1e-3)
    assert torch.equal(head.embed_tokens.weight, teacher.get_input_embeddings().weight)
    assert torch.equal(head.lm_head.weight, teacher.lm_head.weight)
    assert torch.equal(head.norm.weight, teacher.model.norm.weight)
    frozen = {name for name, one in head.named_parameters() if not one.requires_grad}
    assert frozen == {"embed_tokens.weight", "lm_head.weight", "norm.weight"}
    assert run(head, teacher).shape == (3, 1, 8, 32)


def test_a_later_token_changes_no_earlier_logits():
    teacher = tiny_drafts.teacher()
    head, other = tiny_drafts.draft(teacher), IDS.clone()
    other[0, 5] = 21
    one, two = run(head, teacher), run(head, teacher, other)
    assert torch.allclose(one[:, :, :5], two[:, :, :5], atol=1e-6)
    assert not torch.allclose(one[:, :, 5], two[:, :, 5], atol=1e-3)


@pytest.mark.parametrize("place", range(1, 8))
def test_the_state_of_a_position_is_not_read_where_its_next_token_is_predicted(place):
    teacher = tiny_drafts.teacher()
    head = tiny_drafts.draft(teacher)

    def later(states):
        states = states.clone()
        states[:, place:] += 1
        return states

    one, two = run(head, teacher), run(head, teacher, change=later)
    # Pass k predicts what follows t having read the teacher up to t - 1 - k, and itself since.
    for number in range(3):
        assert torch.equal(one[number, :, : place + 1 + number], two[number, :, : place + 1 + number])
        assert place + 1 + number >= 8 or not torch.allclose(
            one[number, 0, place + 1 + number], two[number, 0, place + 1 + number]
        )


@pytest.mark.parametrize("kind", ["llama", *tiny_drafts.CLASSES])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_an_unrolled_pass_is_what_the_drafting_loop_computes(kind, length):
    teacher = tiny_drafts.teacher(kind, eos_token_id=None)
    teacher.generation_config.eos_token_id = None
    head, found = tiny_drafts.draft(teacher), []
    handle = head.lm_head.register_forward_hook(lambda module, given, shown: found.append(shown[0, -1]))
    text = speculate(teacher, head, IDS[:, :length], max_new_tokens=6, drafted=3)
    handle.remove()
    # The first step drafts behind the prompt and the teacher's first token; its tokens are the likeliest each time.
    written = torch.cat((text.ids[:, : length + 1], torch.stack(found[:3]).argmax(-1)[None]), dim=1)
    unrolled = run(head, teacher, written)
    for number in range(3):
        assert torch.allclose(unrolled[number, 0, length + number], found[number], atol=1e-5)


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(left):
    teacher = tiny_drafts.teacher()
    head = tiny_drafts.draft(teacher)
    side = (3, 0) if left else (0, 3)
    ids, mask = pad(IDS, side), pad(torch.ones_like(IDS), side)
    found = run(head, teacher, ids, mask)
    found = found[:, :, 3:] if left else found[:, :, :8]
    for number, own in enumerate(run(head, teacher)):
        first = 1 + number  # before there is no teacher's state, or too few passes of its own
        assert torch.allclose(found[number, :, first:], own[:, first:], atol=1e-5)


def test_eager_attention_gives_the_same():
    teacher = tiny_drafts.teacher()
    head = tiny_drafts.draft(teacher)
    wanted = run(head, teacher)
    head.set_attn_implementation("eager")
    assert torch.allclose(run(head, teacher), wanted, atol=1e-5)


NAMES = {
    "embed_tokens.weight": [32, 16], "fc.weight": [16, 48], "lm_head.weight": [32, 16], "norm.weight": [16],
    "midlayer.hidden_norm.weight": [16], "midlayer.input_layernorm.weight": [16],
    "midlayer.post_attention_layernorm.weight": [16], "midlayer.self_attn.q_proj.weight": [24, 32],
    "midlayer.self_attn.k_proj.weight": [12, 32], "midlayer.self_attn.v_proj.weight": [12, 32],
    "midlayer.self_attn.o_proj.weight": [16, 24], "midlayer.mlp.gate_proj.weight": [32, 16],
    "midlayer.mlp.up_proj.weight": [32, 16], "midlayer.mlp.down_proj.weight": [16, 32],
}  # fmt: skip


@pytest.mark.parametrize("layers", [8, 3])
def test_it_is_saved_as_servers_load_it_and_comes_back(tmp_path, layers):
    teacher = tiny_drafts.teacher(
        "qwen3", layers, head_dim=12, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    )
    head = tiny_drafts.draft(teacher)
    head.save_pretrained(tmp_path)
    assert type(head) is DraftHead
    assert {name: list(one.shape) for name, one in load_file(tmp_path / "model.safetensors").items()} == NAMES
    config = json.loads((tmp_path / "config.json").read_text())
    asked = {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1}
    asked |= {
        "draft_vocab_size": 32,
        "vocab_size": 32,
        "head_dim": 12,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
    }
    assert asked.items() <= config.items()
    if layers == 8:  # what both servers read by themselves
        assert not {"eagle_config", "eagle_aux_hidden_state_layer_ids"} & config.keys()
    else:  # vLLM names the layer that a state enters, SGLang the one before
        assert config["eagle_aux_hidden_state_layer_ids"] == [1, 2, 2]
        assert config["eagle_config"] == {"use_aux_hidden_state": True, "eagle_aux_hidden_state_layer_ids": [0, 1, 1]}
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters["rope_theta"] == 1e6
    again = DraftHead.from_pretrained(tmp_path)
    assert torch.equal(run(again, teacher), run(head, teacher))
    assert not again.lm_head.weight.requires_grad
    assert again.fc.weight.requires_grad
    again.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config


def test_how_it_was_made_is_told():
    told = (
        "It reads what enters layers 1, 2 and 2 of `LlamaForCausalLM`, whose embeddings and head it has, and began as"
    )
    assert lineage(tiny_drafts.draft())[0].startswith(told)


def test_what_cannot_be_made_or_called_is_refused_in_a_sentence():
    teacher = tiny_drafts.teacher()
    for given, told in (
        ({"layers": [1, 2]}, r"layers=\[1, 2\] were given, a draft head reads what enters three of the teacher's 3"),
        ({"layers": [1, 2, 3]}, "give three numbers from 0 to 2"),
        ({"unrolled": 0}, "unrolled=0 was given"),
    ):
        with pytest.raises(ValueError, match=told):
            DraftHead.from_teacher(teacher, **given)
    with pytest.raises(ValueError, match="a draft head was asked for BertForSequenceClassification, servers load"):
        DraftHead.from_teacher(tiny.bert())
    head = tiny_drafts.draft(teacher)
    with pytest.raises(ValueError, match=r"called without its teacher's states: give hidden\[1\], hidden\[2\]"):
        head(IDS)
    with pytest.raises(ValueError, match="called without its teacher's states"):
        head(IDS, tiny_drafts.states(teacher, head, IDS)[0])
    with pytest.raises(ValueError, match=r"a draft head was asked to write.*speculate\(teacher, draft, ids\)"):
        head.generate(IDS)


def test_weights_of_another_head_do_not_pass_for_its_own(tmp_path):
    tiny_drafts.draft().save_pretrained(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    save_file({name: one for name, one in kept.items() if name != "fc.weight"}, tmp_path / "model.safetensors")
    found, told = DraftHead.from_pretrained(tmp_path, output_loading_info=True)
    assert set(told["missing_keys"]) == {"fc.weight"}
    assert not found.norm.weight.requires_grad
