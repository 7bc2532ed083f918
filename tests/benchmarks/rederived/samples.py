"""Images that are made of noise: the Frechet distance by scipy's root of a matrix, and classes that are seen.

Knows: denoisers, diffusers' schedulers. Does not know: how a denoiser is trained. The small classifier whose features
are compared is not kept: the recipe trains it again on the training images.
"""

import diffusers
import numpy as np
import torch
from rederived.run import Found
from scipy.linalg import sqrtm

GROUPS, BATCH = 20, 250


def measure(run):
    scoring, recipe = run.experiment.scoring, run.experiment.recipe
    real = {name: seen(scoring, images_of(scoring, run.experiment.splits[name])) for name in ("train", "test")}
    each = {}
    for name, model in run.models.items():
        images, wanted = made(model, scoring, recipe)
        features = seen(scoring, images)
        with torch.no_grad():
            shares = scoring.features.head(torch.from_numpy(features)).double().softmax(dim=1).numpy()
        each[name] = {"fd": groups(features, real["test"]), "sureness": shares.max(axis=1)}
        if scoring.conditioned:
            each[name]["class_accuracy"] = (shares.argmax(axis=1) == wanted).astype(float)
    details = {"training_images_fd": distance(real["train"], real["test"])}
    details |= {"samples": recipe.samples, "sampling_steps": recipe.sampling_steps}
    plotted = "class_accuracy" if scoring.conditioned else "sureness"
    return Found("fd", plotted, each, {name: {} for name in each}, lower=True, details=details)


def images_of(scoring, rows):
    return torch.stack([scoring.collator.read({"image": one}, "image", 0) for one in rows["image"][:]])


def seen(scoring, images):
    with torch.no_grad():
        return scoring.features.body(images).numpy()


def made(model, scoring, recipe):
    """Samples from -1 to 1 by DDIM or along the flow, and the classes that were asked for, in turn."""
    flow = "Flow" in type(scoring.scheduler).__name__
    kind = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.DDIMScheduler
    told = {name: one for name, one in scoring.scheduler.config.items() if not name.startswith("_")}
    wanted = np.arange(recipe.samples) % scoring.classes
    size = tuple(images_of(scoring, scoring.train.select([0]))[0].shape)
    noise, found = torch.randn(recipe.samples, *size, generator=torch.Generator().manual_seed(0)), []
    for start in range(0, recipe.samples, BATCH):
        scheduler, images = kind.from_config(told), noise[start : start + BATCH]
        scheduler.set_timesteps(recipe.sampling_steps)
        asked = {"class_labels": torch.from_numpy(wanted[start : start + BATCH])} if scoring.conditioned else {}
        for time in scheduler.timesteps:
            with torch.no_grad():
                shown = model(images, timestep=time.expand(len(images)), **asked).sample
            images = scheduler.step(shown[:, : size[0]], time, images).prev_sample
        found.append(images.clamp(-1, 1))
    return torch.cat(found), wanted


def distance(ours, theirs):
    """Heusel et al. 2017, equation 6."""
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    first, second = np.cov(ours.T), np.cov(theirs.T)
    root = np.real(sqrtm(first @ second))
    return float(((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum() + np.trace(first + second - 2 * root))


def groups(ours, theirs):
    """The jackknife's pseudo-values over runs of neighbours, moved to the distance itself."""
    parts = [np.arange(len(ours)) * GROUPS // len(ours) != one for one in range(GROUPS)]
    without = np.array([distance(ours[part], theirs) for part in parts])
    return distance(ours, theirs) + (GROUPS - 1) * (without.mean() - without)
