"""BatchNorm over the samples of all processes, on the CPU as on GPUs (torch's own SyncBatchNorm is for GPUs only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
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

    Backward: with g the gradient times weight, h the normalised x and s = sqrt(variance + eps), the gradient is
    g / s - (mean(g) + h mean(g h)) / s with means over all processes. Its first term, and the sums for the second, are
    torch's backward of a BatchNorm whose statistics are given; the second is another BatchNorm of x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        mean, variance, count = _statistics(x)
        if count <= 1:
            raise ValueError("BatchNorm needs more than one value per channel; raise the batch or the image size.")
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        exact, wanted = _exact(x), [True, True, True]
        back, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            _exact(gradient), exact, weight, mean, variance, None, None, False, ctx.eps, wanted
        )
        everywhere = torch.stack([of_bias, of_weight])
        distributed.all_reduce(everywhere)
        scale = torch.rsqrt(variance + ctx.eps)
        factor = scale if weight is None else scale * weight
        of_one, of_x = everywhere / count * factor
        unit = torch.full_like(variance, 1 - ctx.eps)  # so that this BatchNorm only takes the mean off
        back -= functional.batch_norm(exact, mean, unit, of_x * scale, of_one, False, 0.0, ctx.eps)
        return (
            back.to(x.dtype),
            of_weight if weight is not None else None,
            of_bias if weight is not None else None,
            None,
        )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, count) per channel over all processes; x: (n, channels, ...).

    Two passes per process, whose results are combined by the formula of Chan, Golub and LeVeque (1983): no digits are
    lost where the mean is large. (torch's own single pass over channels-last images is off by 1e-4.)
    """
    exact, axes, channels = _exact(x), [axis for axis in range(x.dim()) if axis != 1], x.shape[1]
    count = exact.new_tensor([x.numel() / channels])
    mean = exact.sum(axes) / count
    deviation = (exact - mean.view(1, -1, *[1] * (x.dim() - 2))).square_().sum(axes)
    own = torch.cat([count, mean, deviation])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(parts, own)
    counts, means, deviations = torch.stack(parts).split([1, channels, channels], dim=1)
    everywhere = counts.sum()
    overall = (counts * means).sum(dim=0) / everywhere
    deviation = (deviations + counts * (means - overall) ** 2).sum(dim=0)
    return overall, deviation / everywhere, everywhere


def _exact(x: Tensor) -> Tensor:
    """In at least single precision: sums of half-precision numbers would be off."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _converted(norm: _BatchNorm) -> GlobalBatchNorm:
    """A :class:`GlobalBatchNorm` that owns the very parameters and buffers of ``norm``."""
    made = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(norm, name))
    return made.train(norm.training)
