"""Networks of the hemorrhage task. Each file imports torch and is loaded only by code that computes."""

_HERE = "HemorrhageSegLib.networks"

#: What a model file may name as its architecture -> where that class (or function that builds it) is. All take
#: ``in_channels``, ``base`` (a width) and ``out_channels`` and return logits (n, out_channels, ...): one channel for a
#: sigmoid, or two for a softmax with the foreground last.
NETWORKS = {
    # for slices
    "DRUNet": f"{_HERE}.drunet:DRUNet",
    "UNet2D": f"{_HERE}.unet2d:UNet2D",
    "SLEXNet": f"{_HERE}.slexnet:SLEXNet",
    "SLEXNetMultiSlice": f"{_HERE}.slexnet:SLEXNetMultiSlice",
    "BCDUNet": f"{_HERE}.bcdunet:BCDUNet",
    "MCGUNet": f"{_HERE}.bcdunet:MCGUNet",
    # for volumes
    "UNet3D": f"{_HERE}.monai_networks:UNet3D",
    "VNet": f"{_HERE}.monai_networks:VNet",
    "SegResNet": f"{_HERE}.monai_networks:SegResNet",
    "AttentionUNet": f"{_HERE}.monai_networks:AttentionUNet",
    "UNETR": f"{_HERE}.monai_networks:UNETR",
    "SwinUNETR": f"{_HERE}.monai_networks:SwinUNETR",
}
