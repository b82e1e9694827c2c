"""SLEX-Net sliding over a head: the backbone sees each slice once, not once for every neighbour.

The released code runs the backbone on three slices for every centre (3 backbone and 2 SEM passes per slice); here its
logits are kept for the neighbours (1 and 2). They are found again by the image itself, so the result is that of the
plain network whatever the order, the ends of the scan or the normalisation; where a slice looks different to each
neighbour (normalised over each stack), nothing is found again and nothing is saved.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from HemorrhageSegLib.networks.slexnet import SLEXNet
from NeuraxisLib.inference import SlicePredictor, foreground
from NeuraxisLib.openvino_inference import Converted


class SlexPredictor(SlicePredictor):
    """A :class:`SLEXNet` made ready to predict slices; it gives two maps.

    The first is the network's answer (the fused logits' probability), the second the mean probability of the three
    paths without it, which the paper's uncertainty is computed from (hemorrhage specification 1.2).
    """

    def _move(self, device: str) -> None:
        super()._move(device)
        self._logits: dict[bytes, Tensor] = {}

    def _converted(self, network: nn.Module) -> nn.Module:
        network.backbone, network.SMM = Converted(network.backbone), Converted(network.SMM)
        return network

    def _values(self, network: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(network, SLEXNet)
        images = x.split(network.channels, dim=1)
        slices = [image.contiguous() for stack in zip(*(image.split(1) for image in images)) for image in stack]
        logits = self._backbone(network, slices)
        paths = network.paths_of_slices(images, [torch.cat(logits[place::3]) for place in range(3)])
        spread = [foreground(path.float()) for path in (paths.backward, paths.forward, paths.centre)]
        return torch.cat([foreground(paths.fused.float()), sum(spread) / len(spread)], dim=1)

    def _backbone(self, network: SLEXNet, slices: list[Tensor]) -> list[Tensor]:
        """The backbone's logits of slices (1, channels, H, W) in the same order; each image is computed once."""
        keys = [_key(image) for image in slices]
        fresh = {key: image for key, image in zip(keys, slices) if key not in self._logits}
        if fresh:
            computed = network.backbone(torch.cat(list(fresh.values())))
            self._logits.update(zip(fresh, computed.split(1)))
        found = [self._logits[key] for key in keys]
        # the mirror images are kept as well, so twice the neighbours of the last batch
        for old in list(self._logits)[: max(0, len(self._logits) - 2 * len(slices))]:
            del self._logits[old]
        return found


def _key(image: Tensor) -> bytes:
    """What tells images apart, and in which precision they were computed."""
    values = image.contiguous()
    content = values.view(torch.int16 if values.element_size() == 2 else torch.int32).cpu().numpy()
    return hashlib.blake2b(content.tobytes(), digest_size=16).digest() + str(image.dtype).encode()
