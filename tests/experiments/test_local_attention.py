import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import ModernBertConfig, ModernBertForMaskedLM

from hf_distill.experiments.local_attention import LOCAL, attend_safely

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def modern_bert(kind=LOCAL, **config):
    torch.manual_seed(0)
    return ModernBertForMaskedLM(
        ModernBertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            pad_token_id=0, layer_types=[kind], local_attention=4, **config,
        )
    )  # fmt: skip


@pytest.mark.parametrize("kind", [LOCAL, "full_attention"])
def test_local_layers_attend_plainly_on_a_gpu_alone(kind):
    model = modern_bert(kind)
    attend_safely(CPU, model)
    assert model.config._attn_implementation == "sdpa"
    attend_safely(GPU, model)
    assert model.config._attn_implementation == ("eager" if kind == LOCAL else "sdpa")


def test_an_adapter_on_it_and_models_without_such_layers(tmp_path):
    model = get_peft_model(modern_bert(), LoraConfig(target_modules=["Wqkv"]))
    attend_safely(GPU, model)
    assert model.base_model.model.config._attn_implementation == "eager"
    attend_safely(GPU, tiny.bert(), str(tmp_path), None)


def test_plain_products_give_what_the_faster_way_gives_where_something_is_seen():
    """And a finite gradient where nothing is: padding with nothing but padding around it."""
    ids = torch.randint(5, 29, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    fast, plain = modern_bert(), modern_bert()
    attend_safely(GPU, plain)
    shown = [one.eval()(input_ids=ids, attention_mask=mask).logits for one in (fast, plain)]
    torch.testing.assert_close(shown[0][mask.bool()], shown[1][mask.bool()])
    shown[1][mask.bool()].square().mean().backward()
    gradients = [value.grad for value in plain.parameters() if value.grad is not None]
    assert gradients
    assert all(value.isfinite().all() for value in gradients)
