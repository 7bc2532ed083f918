"""The control of a draft head: a layer with the same embeddings and head, which learns and reads no state."""

import tiny_drafts
import torch

from hf_distill.experiments.drafts import plain_draft


def test_a_plain_draft_has_the_heads_embeddings_and_a_layer_of_its_own():
    head = tiny_drafts.draft(tiny_drafts.teacher("qwen3", head_dim=12))
    plain = plain_draft(head)
    shared = {"model.embed_tokens": head.embed_tokens, "model.norm": head.norm, "lm_head": head.lm_head}
    for name, part in shared.items():
        own = plain.get_submodule(name)
        assert torch.equal(own.weight, part.weight)
        assert own.weight is not part.weight
        assert not own.weight.requires_grad
    assert all(one.requires_grad for one in plain.model.layers.parameters())
    assert len(plain.model.layers) == 1
    assert plain.model.layers[0].mlp.up_proj.weight.shape == head.midlayer.mlp.up_proj.weight.shape
    assert plain.model.layers[0].self_attn.o_proj.weight.shape == head.midlayer.self_attn.o_proj.weight.shape
    assert plain.config.rope_parameters == head.config.rope_parameters
    assert type(plain).__name__ == "LlamaForCausalLM"
