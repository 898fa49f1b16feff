"""Muon, an optimizer for the matrices of a model: it needs about half of Adam's steps here.

PyTorch has one too; that one works in bfloat16 and matrix by matrix, which costs more than the training step itself on
a CPU without bfloat16 units.

Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum, made orthogonal before it is applied.

    Args:
        matrices: Parameters of two dimensions; embeddings are better left to Adam.
        lr: Learning rate.
        momentum: Share of the momentum that a step keeps.
        weight_decay: Share of a weight, per unit of learning rate, that a step takes away.
    """

    def __init__(
        self, matrices: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:
        """Apply the gradients; matrices of one shape together."""
        for group in self.param_groups:
            updates = defaultdict(list)
            for matrix in group["params"]:
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(average, group["momentum"])
                updates[matrix.shape].append((matrix, update))
            for shape, pairs in updates.items():
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for (matrix, _), update in zip(pairs, orthogonal([u for _, u in pairs]), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def orthogonal(matrices: list[torch.Tensor]) -> torch.Tensor:
    """Nearly orthogonal matrices in the direction of the given ones, shape (n, rows, columns).

    Five Newton-Schulz steps with the source's coefficients, which bring singular values to between about 0.7 and 1.2.
    """
    stack = torch.stack(matrices)
    tall = stack.shape[1] > stack.shape[2]
    if tall:
        stack = stack.mT
    stack = stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = stack @ stack.mT
        stack = 3.4445 * stack + (2.0315 * gram @ gram - 4.775 * gram) @ stack
    return stack.mT if tall else stack
