"""Networks of the hemorrhage task. Each file imports torch and is loaded only by code that computes."""

_HERE = "HemorrhageSegLib.networks"

#: What a model file may name as its architecture -> where that class (or function that builds it) is. All take
#: ``in_channels``, ``out_channels`` and a width, and return logits (n, out_channels, ...): one channel for a sigmoid,
#: or two for a softmax with the foreground last.
NETWORKS = {
    "BCDUNet": f"{_HERE}.bcdunet:BCDUNet",
    "DRUNet": f"{_HERE}.drunet:DRUNet",
    "MCGUNet": f"{_HERE}.bcdunet:MCGUNet",
    "UNet2D": f"{_HERE}.unet2d:UNet2D",
    "SLEXNet": f"{_HERE}.slexnet:SLEXNet",
    "SLEXNetMultiSlice": f"{_HERE}.slexnet:SLEXNetMultiSlice",
}
