"""What every divergence must equal: the textbook formula, naively, in float64."""

import torch


def probabilities(logits, temperature=1.0):
    e = (logits.double() / temperature - (logits.double() / temperature).amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def forward_kl(student, teacher, temperature=1.0):
    return temperature**2 * kl(probabilities(teacher, temperature), probabilities(student, temperature))


def reverse_kl(student, teacher, temperature=1.0):
    return temperature**2 * kl(probabilities(student, temperature), probabilities(teacher, temperature))


def jsd(student, teacher, beta=0.5, temperature=1.0):
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    m = beta * p + (1 - beta) * q
    return temperature**2 * (beta * kl(p, m) + (1 - beta) * kl(q, m))


def skew_forward_kl(student, teacher, skew=0.1, temperature=1.0):
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    return temperature**2 * kl(p, skew * p + (1 - skew) * q)


def skew_reverse_kl(student, teacher, skew=0.1, temperature=1.0):
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    return temperature**2 * kl(q, skew * q + (1 - skew) * p)


def logit_mse(student, teacher):
    return (student.double() - teacher.double()).pow(2).sum(-1) / student.shape[-1]


def top1_cross_entropy(student, teacher):
    q = probabilities(student)
    return torch.stack([-q[i, teacher[i].argmax()].log() for i in range(len(q))])
