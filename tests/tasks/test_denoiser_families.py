"""Denoisers that read prompts: UNets of Stable Diffusion, PixArt, SD3 and Flux, all of them tiny."""

import pytest
import tiny
import tiny_denoisers as tiny_d
import torch
from default_run import slow_but
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional as F

from hf_distill import DenoisingCollator, Task, keep_layers

PROMPT = {"encoder_hidden_states": "prompt_embeds"}
POOLED = {**PROMPT, "pooled_projections": "pooled"}
SDXL = {**PROMPT, "added_cond_kwargs.text_embeds": "pooled", "added_cond_kwargs.time_ids": "time_ids"}
FAMILIES = {  # teacher -> its student's layers, its scheduler, what it reads, a module of both
    "unet": (lambda: tiny_d.prompted_unet(2, 7), 1, tiny_d.ddpm, PROMPT, "mid_block"),
    "sdxl": (lambda: tiny_d.sdxl(2, 7), 1, lambda: tiny_d.ddpm("v_prediction"), SDXL, "mid_block"),
    "pixart": (lambda: tiny_d.pixart(3, 7), 2, tiny_d.ddpm, PROMPT, "transformer_blocks.1"),
    "sd3": (lambda: tiny_d.sd3(3, 7), 2, tiny_d.flow, POOLED, "transformer_blocks.0"),
    "flux": (lambda: tiny_d.flux(2, 3, 7), 3, tiny_d.flow, POOLED, "single_transformer_blocks.0"),
}


def parts(family, **options):
    make, layers, scheduler, reads, path = FAMILIES[family]
    teacher = make()
    student = keep_layers(teacher, layers)
    with torch.no_grad():  # so that the two differ
        next(iter(student.parameters())).mul_(1.5)
    collator = DenoisingCollator(
        student,
        scheduler(),
        conditions=reads,
        nothing={"encoder_hidden_states": torch.zeros(3, 8)},
        drop=0.2,
        **options,
    )
    return student, teacher, collator, {"value_mse": 1.0, "tap_mse": {"path": path}}


def trainer(folder, family, student=None, **more):
    ours, teacher, collator, objective = parts(family, **more.pop("noise", {}))
    more = {"objective": objective, "data_collator": collator, **more}
    return tiny.trainer(folder, student or ours, tiny_d.prompts(), teacher_model=teacher, **more)


@pytest.mark.parametrize("family", slow_but(["unet", "flux"], FAMILIES))
def test_8_x_1_equals_2_x_4(tmp_path, family):
    found = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen = tiny.Gradients()
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = trainer(tmp_path, family, callbacks=[seen], args={**args, "alpha": 0.5})
        run.train()
        found.append(({k: v for k, v in run.state.log_history[0].items() if k.startswith("loss")}, seen.first))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert found[0][0]["loss/value_mse"] > 0
    assert tiny.relative(found[1][1], found[0][1]) < 1e-5


@pytest.mark.parametrize("family", slow_but(["flux"], FAMILIES))
def test_answers_to_prompts_are_kept(tmp_path, family):
    runs = {name: trainer(tmp_path / name, family, noise={"recurring": 1}, args={"teacher_cache": name})
            for name in ("off", "auto")}  # fmt: skip
    for run in runs.values():
        run.train()
    assert tiny.losses(runs["auto"]) == pytest.approx(tiny.losses(runs["off"]), rel=1e-5)
    # What is told in a mapping is no column of rows.
    wanted = [] if family == "sdxl" else [0.0, 1.0, 1.0]
    assert tiny.losses(runs["auto"], "teacher_cache_hits") == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_a_text_to_image_model(family):
    task = Task.of(FAMILIES[family][0]())
    assert task.pipeline_tag == "text-to-image"
    assert task.values == (("prediction", "variance") if family == "pixart" else ("prediction",))


def test_flux_reads_latents_as_diffusers_packs_them():
    from diffusers import FluxPipeline

    student, _, collator, _ = parts("flux")
    rows = [{**row, "latents": F.pad(row["latents"], (0, 4))} for row in tiny_d.prompts(2)]  # 4 x 8
    batch = collator(rows)
    clean = torch.stack([row["latents"] for row in rows])
    packed = FluxPipeline._pack_latents(clean, 2, 4, 4, 8)
    share = batch["timestep"].view(-1, 1, 1)  # from 0 to 1: the model itself multiplies
    torch.testing.assert_close(batch["hidden_states"] - share * batch["target"], packed, rtol=1e-4, atol=1e-4)
    ids = FluxPipeline._prepare_latent_image_ids(2, 2, 4, torch.device("cpu"), torch.float32)
    assert torch.equal(batch["img_ids"][1], ids)
    fed = Task.of(student).inputs(student, {n: v for n, v in batch.items() if n != "target"}, batch)
    assert fed["img_ids"].shape == (8, 3)
    assert student(**fed).sample.shape == batch["target"].shape


def test_the_last_block_of_sd3_stays_the_last():
    teacher = tiny_d.sd3(4, 7)
    student = keep_layers(teacher, 2, preset="lowest")
    assert lineage_of(student) == [0, 3]  # the last one says nothing of the prompt any more
    with pytest.raises(ValueError, match=r"was to be transformer_blocks.1.* of another kind there: keep other blocks"):
        keep_layers(teacher, [0, 1])


def test_flux_has_two_lists_of_blocks():
    student = keep_layers(tiny_d.flux(2, 4, 7), [[1], [0, 3]])
    assert (student.config.num_layers, student.config.num_single_layers) == (1, 2)
    assert lineage_of(student) == [[1], [0, 3]]
    with pytest.raises(ValueError, match=r"FluxTransformer2DModel, whose 2 stages have \[2, 4\] layers"):
        keep_layers(tiny_d.flux(2, 4), 1)


def lineage_of(student):
    return student.config["_distillation"][-1]["layers"]


def test_an_adapter_is_trained_and_loaded_again(tmp_path):
    student = tiny_d.prompted_unet(1)
    adapted = get_peft_model(student, LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    run = trainer(tmp_path, "unet", adapted, args={"max_steps": 2})
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    run.train()
    changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora" in name for name in changed if not name.startswith("distillation"))
    run.save_model()
    again = PeftModel.from_pretrained(tiny_d.prompted_unet(1), tmp_path)
    noisy = {"sample": torch.ones(1, 4, 4, 4), "timestep": 3, "encoder_hidden_states": torch.ones(1, 3, 8)}
    with torch.no_grad():
        assert torch.equal(again.eval()(**noisy).sample, adapted.eval()(**noisy).sample)
    run.create_model_card()
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "from diffusers import AutoModel" in text
    assert "model = PeftModel.from_pretrained(AutoModel.from_pretrained(" in text


def test_a_scheduler_of_diffusion_is_refused_for_flux():
    with pytest.raises(ValueError, match="matches flows, the scheduler's prediction_type is epsilon"):
        DenoisingCollator(tiny_d.flux(), tiny_d.ddpm())


def test_a_model_that_was_distilled_from_its_guidance_is_told_it():
    model, scheduler = tiny_d.flux(guidance_embeds=True), tiny_d.flow()
    batch = DenoisingCollator(model, scheduler, conditions=POOLED, guidance=3.5)(tiny_d.prompts(2))
    assert batch["guidance"].tolist() == [3.5, 3.5]
    fed = Task.of(model).inputs(model, {n: v for n, v in batch.items() if n != "target"}, batch)
    assert model(**fed).sample.isfinite().all()
    with pytest.raises(ValueError, match=r"which reads its guidance .guidance_embeds.: pass guidance="):
        DenoisingCollator(model, scheduler)
    with pytest.raises(ValueError, match=r"guidance=3.5 was given for DiT.* which does not read its guidance"):
        DenoisingCollator(tiny_d.dit(), tiny_d.ddpm(), guidance=3.5)
