"""The released disc network on tensors by name, formulated from disc specification 2.1 alone.

Independent of our network: names as in the authors' checkpoints, one function per layer, no modules.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Original:
    """Makes, and then uses, the tensors of a checkpoint: every one is drawn when it is first asked for.

    Args:
        width: channels of the hourglasses (256 in the released code).
        seed: of the random values.
    """

    def __init__(self, width: int = 16, seed: int = 0):
        self.width = width
        self.tensors: dict[str, Tensor] = {}
        self._random = torch.Generator().manual_seed(seed)

    def checkpoint(self) -> dict:
        """What the authors' training script saves."""
        return {"model_weights": {f"module.{name}": tensor for name, tensor in self.tensors.items()}}

    def _tensor(self, name: str, shape: tuple[int, ...], scale: float, shift: float = 0.0) -> Tensor:
        if name not in self.tensors:
            self.tensors[name] = shift + scale * torch.randn(shape, generator=self._random)
        return self.tensors[name]

    def conv(self, x: Tensor, name: str, outputs: int, size: int = 1, bias: bool = True, **more) -> Tensor:
        inputs = x.shape[1]
        weight = self._tensor(f"{name}.weight", (outputs, inputs, size, size), (inputs * size * size) ** -0.5)
        offset = self._tensor(f"{name}.bias", (outputs,), 0.1) if bias else None
        return F.conv2d(x, weight, offset, **more)

    def norm(self, x: Tensor, name: str) -> Tensor:
        shape = (x.shape[1],)
        weight, bias = self._tensor(f"{name}.weight", shape, 0.1, 1.0), self._tensor(f"{name}.bias", shape, 0.1)
        mean = self._tensor(f"{name}.running_mean", shape, 0.1)
        variance = self._tensor(f"{name}.running_var", shape, 0.0, 1.3)
        self.tensors.setdefault(f"{name}.num_batches_tracked", torch.tensor(7))
        shown = [value[None, :, None, None] for value in (mean, variance, weight, bias)]
        return (x - shown[0]) / torch.sqrt(shown[1] + 1e-5) * shown[2] + shown[3]

    def bottleneck(self, x: Tensor, name: str, half: int) -> Tensor:
        out = self.conv(torch.relu(self.norm(x, f"{name}.bn1")), f"{name}.conv1", half)
        out = self.conv(torch.relu(self.norm(out, f"{name}.bn2")), f"{name}.conv2", half, 3, padding=1)
        out = self.conv(torch.relu(self.norm(out, f"{name}.bn3")), f"{name}.conv3", 2 * half)
        return out + (x if x.shape[1] == 2 * half else self.conv(x, f"{name}.downsample.0", 2 * half))

    def bottlenecks(self, x: Tensor, name: str, blocks: int) -> Tensor:
        for block in range(blocks):
            x = self.bottleneck(x, f"{name}.{block}", self.width // 2)
        return x

    def node(self, x: Tensor, name: str, level: int, blocks: int) -> Tensor:
        up = self.bottlenecks(x, f"{name}.{level}.0", blocks)
        low = self.bottlenecks(F.max_pool2d(x, 2), f"{name}.{level}.1", blocks)
        inner = self.node(low, name, level - 1, blocks) if level else self.bottlenecks(low, f"{name}.0.3", blocks)
        low = self.bottlenecks(inner, f"{name}.{level}.2", blocks)
        return up + low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def attention(self, x: Tensor) -> Tensor:
        for number, outputs in ((0, self.width // 2), (3, 16), (6, 8)):
            x = self.conv(x, f"attention.{number}", outputs, bias=False)
            x = torch.relu(self.norm(x, f"attention.{number + 1}"))
        return 1 / (1 + torch.exp(-self.conv(x, "attention.9", 1, bias=False)))

    def __call__(self, x: Tensor, stacks: int = 2, blocks: int = 1, classes: int = 11, attention: bool = True):
        """Heat maps (n, classes, H, W) of every stack."""
        quarter = self.width // 4
        x = torch.relu(self.norm(self.conv(x, "conv1", quarter, 7, stride=2, padding=3), "bn1"))
        x = F.max_pool2d(self.bottleneck(x, "layer1.0", quarter), 2)
        x = self.bottleneck(self.bottleneck(x, "layer2.0", self.width // 2), "layer3.0", self.width // 2)
        features, maps = [], []
        for stack in range(stacks):
            y = self.bottlenecks(self.node(x, f"hg.{stack}.hg", 3, blocks), f"res.{stack}", blocks)
            y = torch.relu(self.norm(self.conv(y, f"fc.{stack}.0", self.width), f"fc.{stack}.1"))
            features.append(y)
            if stack == stacks - 1 and attention:
                y = y * self.attention(torch.cat(features, dim=1))
            score = self.conv(y, f"score.{stack}", classes)
            maps.append(F.interpolate(score, scale_factor=4, mode="bilinear", align_corners=False))
            if stack < stacks - 1:
                x = x + self.conv(y, f"fc_.{stack}", self.width) + self.conv(score, f"score_.{stack}", self.width)
        return maps
