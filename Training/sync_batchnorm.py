"""BatchNorm over the samples of all processes, on the CPU as on GPUs (torch's own SyncBatchNorm is for GPUs only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from Training.distributed import world_size


def synchronise(network: nn.Module) -> nn.Module:
    """Replace every BatchNorm by one whose statistics are those of the whole batch; weights and names stay.

    Optimisers made before still move the same parameters. Without other processes nothing is replaced.
    """
    if world_size() == 1:
        return network
    if type(network) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        return _converted(network)
    for name, child in network.named_children():
        setattr(network, name, synchronise(child))
    return network


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm of (n, channels, ...) of any rank; in training mode mean and variance are those of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; processes must call it in the same order. With one process, or in eval mode, as torch does.

        Raises:
            ValueError: all processes together hold one value per channel, whose variance says nothing.
        """
        if not self.training or world_size() == 1:
            return super().forward(x)
        out, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        self._keep_running(mean, variance, float(count))
        return out

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"BatchNorm needs (n, channels, ...), not {x.dim()} axes.")

    @torch.no_grad()
    def _keep_running(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """The running averages as torch keeps them: of the unbiased variance."""
        if self.running_mean is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), share)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias with the mean and variance over all processes.

    Means and squared deviations of the processes are combined by the formula of Chan, Golub and LeVeque (1983), which
    loses no digits where the mean is large. Backward: with g the gradient times weight and h the normalised x,
    (g - mean(g) - h mean(g h)) / sqrt(variance + eps), means over all processes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        exact = _exact(x)
        mean, deviation, count = _combined(exact)
        if count <= 1:
            raise ValueError("BatchNorm needs more than one value per channel; raise the batch or the image size.")
        variance = deviation / count
        scale = torch.rsqrt(variance + eps)
        normalised = (exact - _spread(mean, x)) * _spread(scale, x)
        ctx.save_for_backward(x, mean, scale, weight)
        ctx.count = count
        out = normalised if weight is None else torch.addcmul(_spread(bias, x), normalised, _spread(weight, x))
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight = ctx.saved_tensors
        gradient, exact = _exact(gradient), _exact(x)
        normalised = (exact - _spread(mean, x)) * _spread(scale, x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        own = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        everywhere = own.clone()
        distributed.all_reduce(everywhere)
        of_gradient, of_product = everywhere / ctx.count
        factor = scale if weight is None else scale * weight
        back = (gradient - _spread(of_gradient, x) - normalised * _spread(of_product, x)) * _spread(factor, x)
        return back.to(x.dtype), None if weight is None else own[1], None if weight is None else own[0], None


def _combined(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, sum of squared deviations, count) per channel over all processes; x: (n, channels, ...)."""
    axes, channels = [axis for axis in range(x.dim()) if axis != 1], x.shape[1]
    variance, mean = torch.var_mean(x, axes, correction=0)
    count = x.new_tensor([x.numel() / channels])
    own = torch.cat([count, mean, variance * count])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(parts, own)
    counts, means, deviations = torch.stack(parts).split([1, channels, channels], dim=1)
    everywhere = counts.sum()
    overall = (counts * means).sum(dim=0) / everywhere
    return overall, (deviations + counts * (means - overall) ** 2).sum(dim=0), everywhere


def _exact(x: Tensor) -> Tensor:
    """In at least single precision: sums of half-precision numbers would be off."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _spread(per_channel: Tensor, x: Tensor) -> Tensor:
    """(channels,) in the shape that multiplies (n, channels, ...)."""
    return per_channel.view(1, -1, *[1] * (x.dim() - 2))


def _converted(norm: _BatchNorm) -> GlobalBatchNorm:
    """A :class:`GlobalBatchNorm` that owns the very parameters and buffers of ``norm``."""
    made = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(norm, name))
    return made.train(norm.training)
