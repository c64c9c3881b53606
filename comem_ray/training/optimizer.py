"""AdamW on float32 masters of the adapter's parameters, with warm-up, cosine decay and clipping.

The parameters may be bfloat16. An update of 5e-5 would vanish in its 8 bits, and so would a gradient summed over
micro-batches. So gradients are collected in float32, steps are taken in float32, and the result is copied back.

Source of the recipe: CoMEM (arXiv 2505.17670): AdamW, cosine, 3% warm-up, clipping 3.0. As in the usual trainers,
biases and norms have no weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from comem_ray.config import TrainingConfig


class MasterAdamW:
    """The optimizer of a run of `steps` steps."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        steps: int,
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        self.parameters, self.config, self.steps = dict(parameters), config, steps
        self.masters = {n: p.detach().float().clone() for n, p in parameters.items()}
        decayed = [m for m in self.masters.values() if m.ndim >= 2]
        plain = [m for m in self.masters.values() if m.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas)

    def collect(self) -> None:
        """Moves the gradients of a micro-batch onto the masters, in float32."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                master = self.masters[name]
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """The collected gradients in the parameters' order, zeros for a missing one (to be summed over workers)."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [m.grad for m in self.masters.values() if m.grad is not None]

    def step(self, number: int) -> tuple[float, float]:
        """Takes step `number` (from 0). Returns the gradient norm before clipping, and the learning rate."""
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), self.config.clip_norm)
        rate = self.config.learning_rate * schedule(number, self.steps, self.config.warmup)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad()
        self._copy_back()
        return float(norm), rate

    @torch.no_grad()
    def _copy_back(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """The state that a continued run needs, as named tensors (masters, moments, counts)."""
        state = {f"{n}|master": m for n, m in self.masters.items()}
        for name, master in self.masters.items():
            state |= {f"{name}|{key}": value for key, value in self._adamw.state.get(master, {}).items()}
        return {key: value.detach().cpu().contiguous() for key, value in state.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Loads `state`, and sets the parameters to its masters."""
        for key, value in state.items():
            name, _, field = key.rpartition("|")
            master = self.masters[name]
            if field == "master":
                master.copy_(value)
            else:
                self._adamw.state[master][field] = value if field == "step" else value.to(master.device)
        self._copy_back()


def schedule(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: a linear rise in the warm-up, then half a cosine down to 0 at `steps`."""
    rise = math.ceil(steps * warmup)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
