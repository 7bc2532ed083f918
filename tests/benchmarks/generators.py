"""Does a decoder with a quarter of its teacher's multiply-adds need the teacher, or are real pixels enough?

    python tests/benchmarks/generators.py FOLDER      # of train.parquet and test.parquet: cifar10, image and label

An AutoencoderKL is trained here on all training images, of 16 x 16 pixels; its encoder is then fixed, and makes
latents. Students learn to decode them: of a few images with their pixels, with the teacher's decodes of the same
latents, of more latents whose images nobody has, and of latents that are drawn. Error and PSNR are those of test
images, against the images and against the teacher's decodes; FD is the Frechet distance of a small classifier's
features. One thread.
"""

import argparse
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback, set_seed

from hf_distill import (
    DistillationTrainer,
    DistillationTrainingArguments,
    Generating,
    LatentCollator,
    VAEDecoder,
    encode_latents,
    latent_rows,
)
from hf_distill.experiments.image_generation import trained_features
from hf_distill.reports.frechet import frechet_distance
from hf_distill.reports.table import markdown_table

SIDE, LATENT = 16, (8, 4, 4)
TAP = {"path": "vae.decoder.mid_block", "widths": [16, 48], "weight": 0.1}
# name -> (objective or None: no teacher, alpha, which rows). "few": images and their latents; "more": the same, and
# latents without images; "drawn": latents of a normal distribution; "all": every image.
ROWS = {
    "alone": (None, 0.0, "few"),
    "taught": ({"value_mse": 1.0}, 1.0, "few"),
    "alone, as long": (None, 0.0, "few"),
    "taught, and pixels": ({"value_mse": 1.0}, 0.5, "few"),
    "taught, and the middle": ({"value_mse": 1.0, "tap_mse": TAP}, 1.0, "few"),
    "taught, judged too": ({"value_mse": 1.0, "adversarial": {"on": "sample", "weight": 0.01}}, 1.0, "few"),
    "taught, of drawn latents": ({"value_mse": 1.0}, 1.0, "drawn"),
    "taught, of latents without images": ({"value_mse": 1.0}, 1.0, "more"),
    "alone, of all images": (None, 0.0, "all"),
}


def autoencoder(widths, seed):
    from diffusers import AutoencoderKL

    set_seed(seed)
    return AutoencoderKL(
        block_out_channels=widths, latent_channels=LATENT[0], norm_num_groups=8, mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip


def images_of(path):
    table = pq.read_table(path).to_pydict()
    column = "image" if "image" in table else "img"
    files = (one["bytes"] if isinstance(one, dict) else one for one in table[column])
    pixels = np.stack([np.array(Image.open(io.BytesIO(one)).convert("RGB")) for one in files])
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(pixels, (SIDE, SIDE), mode="area"), torch.tensor(table["label"])


def train_teacher(model, images, epochs):
    rate, total = 3e-3, int(epochs * len(images) / 32)
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=total)
    for step in range(total):
        rows = torch.randint(len(images), (32,))
        found = model.encode(images[rows]).latent_dist
        loss = F.mse_loss(model.decode(found.sample()).sample, images[rows]) + 1e-6 * found.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"teacher, step {step} of {total}: {loss.item():.4f}, {time.process_time():.0f} CPU s", flush=True)
    spread = encode_latents(model, images[:1000]).std().item()
    model.register_to_config(scaling_factor=1 / spread)  # as a diffusion model reads latents
    return model.eval()


def multiply_adds(decoder):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(1, *LATENT))
    return counter.get_total_flops() / 2


@torch.no_grad()
def decoded(decoder, latents):
    decoder.eval()
    return torch.cat([decoder(some) for some in latents.split(100)]).clamp(-1, 1)


class Seconds(TrainerCallback):
    """How long the training itself takes, the teacher's answers included."""

    def on_train_begin(self, args, state, control, **told):
        self.began = time.process_time()

    def on_train_end(self, args, state, control, **told):
        self.taken = time.process_time() - self.began


class Study:
    def __init__(self, asked):
        self.asked = asked
        (images, labels), (test, _) = (images_of(Path(asked.folder) / f"{name}.parquet") for name in ("train", "test"))
        images, labels = images[: asked.images], labels[: asked.images]
        self.validation, self.test = test[-500:], test[: asked.test]
        self.features = trained_features(images, labels, 10, epochs=asked.feature_epochs)
        print(f"features: {time.process_time():.0f} CPU s", flush=True)
        vae = autoencoder(tuple(asked.teacher), 0)
        if asked.keep and Path(asked.keep).is_dir():
            vae = type(vae).from_pretrained(asked.keep).eval()
        else:
            vae = train_teacher(vae, images, asked.teacher_epochs)
            if asked.keep:
                vae.save_pretrained(asked.keep)
        self.teacher = VAEDecoder(vae).eval()
        sizes = [multiply_adds(one) for one in (self.teacher, self.student(0))]
        print(f"multiply-adds of decoding: {sizes[0]:,.0f} and {sizes[1]:,.0f}: {sizes[1] / sizes[0]:.3f}", flush=True)
        assert sizes[1] <= sizes[0] / 4
        self.latents = {"train": encode_latents(vae, images)}
        self.latents |= {name: encode_latents(vae, getattr(self, name)) for name in ("validation", "test")}
        few = [{"latents": z, "target": image} for z, image in zip(self.latents["train"], images, strict=True)]
        more = [{**row, "target": row["target"] if number < asked.few else None} for number, row in enumerate(few)]
        self.rows = {"few": few[: asked.few], "more": more, "all": few, "drawn": latent_rows(len(few))}
        self.real = self.seen(self.test)

    def student(self, seed):
        return VAEDecoder(autoencoder(tuple(self.asked.student), seed))

    @torch.no_grad()
    def seen(self, images):
        return torch.cat([self.features.body(some) for some in images.split(250)]).numpy()

    def measured(self, decoder):
        made, theirs = decoded(decoder, self.latents["test"]), decoded(self.teacher, self.latents["test"])
        errors = [F.mse_loss(made, other).item() for other in (self.test, theirs)]
        fd = frechet_distance(self.seen(made), self.real)
        return {"mse": errors[0], "psnr": 10 * np.log10(4 / errors[0]), "to teacher": errors[1], "fd": fd}

    def run(self, name, rate, seed, steps):
        objective, alpha, rows = ROWS[name]
        set_seed(seed)
        student, seconds = self.student(seed), Seconds()
        drawn = rows == "drawn"
        collator = LatentCollator(
            {"latents": LATENT} if drawn else None,
            None if drawn else {"latents": "latents"},
            None if drawn else "target",
        )
        with tempfile.TemporaryDirectory() as folder:
            args = DistillationTrainingArguments(
                folder, use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=10**6, save_strategy="no",
                per_device_train_batch_size=32, max_steps=steps, learning_rate=rate, lr_scheduler_type="cosine",
                warmup_steps=0.1, weight_decay=0.01, seed=seed, dataloader_pin_memory=False,
                alpha=alpha if objective else None, objective=objective or "auto",
            )  # fmt: skip
            DistillationTrainer(
                student, args, train_dataset=self.rows[rows], data_collator=collator, callbacks=[seconds],
                teacher_model=self.teacher if objective else None, task=Generating(supervised=not drawn),
            ).train()  # fmt: skip
        check = F.mse_loss(decoded(student, self.latents["validation"]), self.validation).item()
        return check, {**self.measured(student), "seconds": seconds.taken}

    def best(self, name, rates, steps):
        found = {rate: self.run(name, rate, self.asked.seeds[0], steps) for rate in rates}
        rate = min(found, key=lambda one: found[one][0])
        return rate, found[rate][1], {one: round(check, 5) for one, (check, _) in found.items()}


def spread(values):
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(np.mean(values)), error


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=8000, help="the teacher's; of others latents alone are known")
    parser.add_argument("--few", type=int, default=200, help="images whose pixels students see")
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--teacher", type=int, nargs="+", default=[24, 48, 48])
    parser.add_argument("--student", type=int, nargs="+", default=[16, 16, 16])
    parser.add_argument("--keep", help="a folder for the teacher; one that is there is loaded")
    parser.add_argument("--teacher_epochs", type=float, default=10.0)
    parser.add_argument("--feature_epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[4e-3, 8e-3, 1.6e-2, 3.2e-2])
    parser.add_argument("--only", nargs="+", default=list(ROWS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    study, rates, told, taken = Study(asked), {}, [], {}
    floor = study.measured(study.teacher)
    told.append(["teacher", "", f"{1e3 * floor['mse']:.2f}", f"{floor['psnr']:.2f}", "", f"{floor['fd']:.2f}", "", ""])
    print(" | ".join(told[0]), flush=True)
    for name in asked.only:
        steps, tuned = asked.steps, {}
        if name == "alone, as long":
            steps = round(steps * taken["taught"] / taken["alone"])
        kind = ROWS[name][0] is None
        if name in ("alone", "taught"):
            rates[kind], first, tuned = study.best(name, asked.rates, steps)
            found = [first]
        else:
            found = []
        rate = rates.setdefault(kind, asked.rates[0])  # where neither is asked for that is tuned
        found += [study.run(name, rate, seed, steps)[1] for seed in asked.seeds[len(found) :]]
        taken[name] = np.mean([one["seconds"] for one in found])
        numbers = {key: spread([one[key] for one in found]) for key in found[0]}
        cells = [
            f"{1e3 * numbers['mse'][0]:.2f} ± {1e3 * numbers['mse'][1]:.2f}",
            "{:.2f} ± {:.2f}".format(*numbers["psnr"]),
            f"{1e3 * numbers['to teacher'][0]:.2f} ± {1e3 * numbers['to teacher'][1]:.2f}",
            "{:.2f} ± {:.2f}".format(*numbers["fd"]),
        ]
        told.append([name, f"{rate:g}", *cells, f"{steps}", f"{taken[name]:.0f}"])
        print(" | ".join(told[-1]), tuned or "", [round(1e3 * one["mse"], 2) for one in found], flush=True)
    heads = ["decoder", "rate", "MSE x 1000", "PSNR", "MSE to teacher x 1000", "FD", "steps", "CPU s"]
    print(markdown_table(heads, told))
    print(f"{time.process_time():.0f} CPU s in all")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
