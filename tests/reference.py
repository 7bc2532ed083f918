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


def sampled_forward_kl(student, ids, p, draws, tail, entropy, temperature=1.0):
    log_q, values = probabilities(student, temperature).log(), []
    for i in range(len(log_q)):
        cross = -sum(p[i, k] * log_q[i, kept] for k, kept in enumerate(ids[i]))
        cross = cross - sum(tail[i] / len(draws[i]) * log_q[i, drawn] for drawn in draws[i])
        values.append(temperature**2 * (cross - entropy[i]))
    return torch.stack(values)


def joined(logits, ids, temperature=1.0):
    """Logits over the classes ``ids`` and one for all others: to be read at the same temperature."""
    p, others = probabilities(logits, temperature), torch.ones_like(logits, dtype=torch.bool).scatter(1, ids, False)
    rest = torch.stack([row[kept].sum() for row, kept in zip(p, others, strict=True)])
    return temperature * torch.cat((p.gather(1, ids), rest[:, None]), 1).log()
