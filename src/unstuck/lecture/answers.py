"""What a classifier says of each sample, as log-probabilities, whatever form its outputs have.

    log_p, labels = answers(problem)
    log_p.exp().amax(1), log_p.argmax(1) == labels         # how sure, and whether right
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.errors import NotMeasurable
from unstuck.probes.objective import class_axis, form_of
from unstuck.problem import Problem
from unstuck.sandbox import sandbox

TINY = 1e-300
"""A probability of 0 counts as this one: its logarithm is finite."""


def answers(problem: Problem) -> tuple[Tensor, Tensor]:
    """Log-probabilities [samples, classes] and labels [samples] of the training batches at the last state, float64.

    Two classes behind one output z are (0, z). Raises NotMeasurable where the task is no classification, or where the
    outputs are no logits and no probabilities. A forward pass a batch.
    """
    kind, task = problem.criterion.kind, problem.criterion.task
    if task not in {"classes", "onehot", "binary"}:
        raise NotMeasurable(f"the task is no choice between classes ({task})")
    model = problem.twin(last=True).eval()
    made = []
    with sandbox(0), torch.no_grad():
        for batch in problem.data:
            result = problem.evaluate(model, batch)
            if result.output is None or result.target is None:
                raise NotMeasurable("the criterion's call was not seen again")
            made.append(_binary(kind, result.output, result.target) if task == "binary" else
                        _several(problem, result.output, result.target))  # fmt: skip
    log_p, labels = (torch.cat(parts) for parts in zip(*made, strict=True))
    return log_p[labels >= 0], labels[labels >= 0]


def _binary(kind: str, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    z, labels = output.double().flatten(), (target.flatten() > 0.5).long()
    if kind == "bce_logits":
        return torch.log_softmax(torch.stack([torch.zeros_like(z), z], 1), 1), labels
    if not bool(((z >= 0) & (z <= 1)).all()):
        raise NotMeasurable("the outputs are neither logits nor probabilities")
    return torch.stack([1 - z, z], 1).clamp_min(TINY).log(), labels


def _several(problem: Problem, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    axis = class_axis(problem, output, target)
    form, over = form_of(output, axis)
    output = output.double().movedim(axis, -1).flatten(0, -2)
    if problem.criterion.task == "onehot":
        labels = target.movedim(axis, -1).flatten(0, -2).argmax(1)
    else:
        labels = target.flatten()
    if problem.criterion.kind == "cross_entropy" or (form == "log-probabilities" and over == axis):
        return torch.log_softmax(output, 1), labels
    if form == "probabilities" and over == axis:
        return output.clamp_min(TINY).log(), labels
    raise NotMeasurable("the outputs are neither logits nor probabilities")
