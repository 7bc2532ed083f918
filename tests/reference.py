"""What every divergence must equal: the textbook formula, naively, in float64."""

import math

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


def alpha_beta(student, teacher, alpha, beta, temperature=1.0):
    """Each case of the definition by itself: ABKD, definition 3.1, with the limits of Cichocki et al., 2011."""
    p, q, s = probabilities(teacher, temperature), probabilities(student, temperature), alpha + beta
    if alpha == beta == 0:
        terms = (p.log() - q.log()) ** 2 / 2
    elif alpha == 0:
        terms = (q**beta * (q / p).log() * beta - q**beta + p**beta) / beta**2
    elif beta == 0:
        terms = (p**alpha * (p / q).log() * alpha - p**alpha + q**alpha) / alpha**2
    elif s == 0:
        terms = ((q / p).log() * alpha + (p / q) ** alpha - 1) / alpha**2
    else:
        terms = -(p**alpha * q**beta - alpha / s * p**s - beta / s * q**s) / (alpha * beta)
    return temperature**2 * terms.sum(-1)


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


def hidden_cosine(student, teacher, mask):
    """Added over the real tokens of [B, T, H]."""
    total = 0.0
    for b, t in mask.nonzero().tolist():
        s, w = student[b, t], teacher[b, t]
        total = total + 1 - (s @ w) / (s.norm() * w.norm())
    return total


def pkd(student, teacher, mask, token):
    """The squared distance of two directions, at one token of each row or as the mean over all of its tokens."""
    total = 0.0
    for b in range(len(mask)):
        real = mask[b].nonzero().flatten().tolist()
        chosen = {"first": real[:1], "last": real[-1:], "all": real}[token]
        for t in chosen:
            gap = student[b, t] / student[b, t].norm() - teacher[b, t] / teacher[b, t].norm()
            total = total + gap @ gap / len(chosen)
    return total


def cka(student, teacher, mask):
    """One minus the linear alignment by its definition with kernels: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))."""
    x, y = student[mask], teacher[mask]
    n = len(x)
    centre = torch.eye(n, dtype=x.dtype) - 1 / n
    a, b = centre @ (x @ x.T) @ centre, centre @ (y @ y.T) @ centre
    return n * (1 - (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt())


def attention(student, teacher, mask, kind):
    """Added over real queries of [B, heads, T, T], the mean over heads; what the student gives nothing is left out."""
    total, heads = 0.0, student.shape[1]
    for b, t in mask.nonzero().tolist():
        for h in range(heads):
            left = mask[b] & (student[b, h, t] > 0)
            s, w = student[b, h, t][left], teacher[b, h, t][left]
            s, w = s / s.sum(), w / w.sum()
            total = total + ((s - w).pow(2).sum() if kind == "mse" else (w * (w / s).log()).sum()) / heads
    return total


def minilm(student, teacher, mask, relations, heads):
    """KL of the relations of two (q, k, v), head by head and token by token, over the real tokens of each row."""
    total = 0.0
    for b in range(len(mask)):
        for relation in relations:
            for h in range(heads):
                logs = []
                for model in (student, teacher):
                    x, y = (model["qkv".index(letter)][b][mask[b]].chunk(heads, dim=-1)[h] for letter in relation)
                    logs.append((x @ y.T / x.shape[-1] ** 0.5).log_softmax(-1))
                total = total + (logs[1].exp() * (logs[1] - logs[0])).sum() / heads
    return total


def dkd(student, teacher, target, alpha, beta, temperature=1.0):
    p, q, values = probabilities(teacher, temperature), probabilities(student, temperature), []
    for i, c in enumerate(target.tolist()):
        pair = [torch.stack((one[i, c], 1 - one[i, c])) for one in (p, q)]
        rest = [torch.cat((one[i, :c], one[i, c + 1 :])) / (1 - one[i, c]) for one in (p, q)]
        values.append(temperature**2 * (alpha * kl(*pair) + beta * kl(*rest)))
    return torch.stack(values)


def standardised_kl(student, teacher, temperature=1.0):
    z = [(one - one.mean(-1, keepdim=True)) / one.std(-1, correction=0, keepdim=True) for one in (student, teacher)]
    return forward_kl(*z, temperature)


def dist(student, teacher, beta, gamma, temperature=1.0):
    """The mean over rows, equations 8 to 10."""
    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    inter = [1 - torch.corrcoef(torch.stack((p[i], q[i])))[0, 1] for i in range(len(p))]
    intra = [1 - torch.corrcoef(torch.stack((p[:, j], q[:, j])))[0, 1] for j in range(p.shape[1])]
    return temperature**2 * (beta * sum(inter) / len(inter) + gamma * sum(intra) / len(intra))


def topk_kl(student, teacher, k, temperature=1.0):
    ids = torch.stack([torch.tensor(sorted(range(len(row)), key=lambda j: -row[j])[:k]) for row in teacher.tolist()])
    p, q = (probabilities(joined(one, ids, temperature), temperature) for one in (teacher, student))
    return temperature**2 * kl(p, q)


def adaptive_kl(student, teacher, mu, temperature=1.0):
    p, q, values = probabilities(teacher, temperature), probabilities(student, temperature), []
    for i in range(len(p)):
        held, likely = 0.0, set()
        for j in sorted(range(p.shape[1]), key=lambda j: -p[i, j]):
            if held >= mu:
                break
            held, likely = held + p[i, j].item(), likely | {j}
        gaps = [
            [(p[i, j] - q[i, j]).abs().item() for j in range(p.shape[1]) if (j in likely) is side]
            for side in (True, False)
        ]
        head, tail = (sum(side) for side in gaps)
        values.append((head * kl(p[i], q[i]) + tail * kl(q[i], p[i])) / (head + tail))
    return temperature**2 * torch.stack(values)


def pooled(states, mask, pool="mean"):
    """One vector for each row of [B, T, H]."""
    vectors = []
    for b in range(len(mask)):
        real = mask[b].nonzero().flatten().tolist()
        chosen = {"mean": real, "first": real[:1], "last": real[-1:]}[pool]
        vectors.append(sum(states[b, t] for t in chosen) / len(chosen))
    return torch.stack(vectors)


def huber(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def rkd_distance(student, teacher):
    """The mean over the pairs of different rows."""
    pairs = [(i, j) for i in range(len(student)) for j in range(len(student)) if i != j]
    both = []
    for v in (student, teacher):
        d = [((v[i] - v[j]) ** 2).sum().sqrt() for i, j in pairs]
        both.append([one * len(d) / sum(d) for one in d])
    return sum(huber(s - t) for s, t in zip(*both, strict=True)) / len(pairs)


def rkd_angle(student, teacher):
    """The mean over the triples of different rows."""
    n = range(len(student))
    triples = [(i, j, k) for i in n for j in n for k in n if i != j and j != k and i != k]
    total = 0.0
    for i, j, k in triples:
        s, t = (torch.cosine_similarity(v[i] - v[j], v[k] - v[j], dim=0) for v in (student, teacher))
        total = total + huber(s - t)
    return total / len(triples)


def similarity(student, teacher):
    """Equations of section 3.1: the squared norm over the squared number of rows."""
    g = []
    for v in (student, teacher):
        rows = [torch.stack([v[i] @ v[j] for j in range(len(v))]) for i in range(len(v))]
        g.append(torch.stack([row / row.norm() for row in rows]))
    return ((g[0] - g[1]) ** 2).sum() / len(student) ** 2


def info_nce(student, teacher, everyone, temperature):
    """Added over rows; ``everyone`` holds what each row of ``teacher`` is told from, itself included, once."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        scores = torch.stack([torch.cosine_similarity(s, other, dim=0) / temperature for other in everyone])
        total = total + scores.logsumexp(0) - torch.cosine_similarity(s, t, dim=0) / temperature
    return total


def discriminated(student, teacher):
    """The mean of two cross-entropies of scores [B], teacher 1 and student 0, added over rows."""
    return -(torch.sigmoid(teacher).log() + (1 - torch.sigmoid(student)).log()).sum() / 2


def uld(student, teacher):
    """Equation 7 with the closed form of section 3.2; rows [n, V], whose V may differ, added."""
    total = 0.0
    for s, t in zip(student.double().softmax(-1).tolist(), teacher.double().softmax(-1).tolist(), strict=True):
        size = max(len(s), len(t))
        s, t = (sorted(one, reverse=True) + [0.0] * (size - len(one)) for one in (s, t))
        total += sum(abs(a - b) for a, b in zip(s, t, strict=True))
    return total


def span_classes(logits, tokens, shared, place=None):
    """The classes of one span, ``logits`` [k, V] of its k tokens: the ``shared`` columns, the span, all others."""
    q = logits.double().softmax(-1)
    span = math.prod(q[i, token].item() for i, token in enumerate(tokens))
    first = q[0].clone()
    first[tokens[0]] -= span
    classes = [first[column].item() for column in shared]
    if place is None:
        classes.append(span)
    else:
        classes[place] += span
    return torch.tensor([*classes, 1 - sum(classes)], dtype=torch.float64)


def calibration_error(logits, labels, bins=15):
    """Guo et al. 2017, eq. 3, bin by bin: above (m - 1) / bins, up to m / bins."""
    p, error = probabilities(logits), 0.0
    sure, chosen = p.amax(-1).tolist(), p.argmax(-1).tolist()
    for m in range(1, bins + 1):
        inside = [i for i, c in enumerate(sure) if (m - 1) / bins < c <= m / bins]
        if inside:
            right = sum(chosen[i] == labels[i] for i in inside) / len(inside)
            error += len(inside) / len(sure) * abs(right - sum(sure[i] for i in inside) / len(inside))
    return error


def scores(vectors, n, kind="dot"):
    """Each query's products with its n candidates, group by group."""
    found = []
    for group in vectors.double().split(1 + n):
        query, *others = group / group.norm(dim=-1, keepdim=True) if kind == "cosine" else group
        found.append(torch.stack([(query * other).sum() for other in others]))
    return torch.stack(found)


def margin_mse(student, teacher):
    """Hofstätter et al., 2020: the mean over groups of the mean squared difference of margins, per group."""
    found = []
    for ours, theirs in zip(student.double(), teacher.double(), strict=True):
        found.append(sum(((ours[0] - a) - (theirs[0] - b)) ** 2 for a, b in zip(ours[1:], theirs[1:], strict=True)))
    return torch.stack(found) / (student.shape[1] - 1)


def similarity_kl(student, teacher, temperature):
    """CompRess: what each row's cosines with all others say, in each model's own space; added over rows."""
    total = 0.0
    for row in range(len(student)):
        sides = []
        for vectors in (student.double(), teacher.double()):
            unit = vectors / vectors.norm(dim=-1, keepdim=True)
            others = torch.stack([unit[row] @ unit[other] for other in range(len(unit)) if other != row])
            sides.append(torch.softmax(others / temperature, dim=-1))
        total = total + (sides[1] * (sides[1].log() - sides[0].log())).sum()
    return total
