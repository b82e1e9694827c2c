"""Networks of the stroke task. Each file that computes imports torch and is loaded only by code that computes."""

from StrokeCTPLib.networks.configurations import CONFIGURATIONS

_HERE = "StrokeCTPLib.networks.multi_input_vgg"

#: What a model file may name as its architecture -> where that class (or function that builds it) is. All take one
#: tensor (n, channels, H, W), maps one after another and then one plane for each number of the patient, and return
#: logits (n, out_channels, H, W): one for a sigmoid, else 2, 3 or 4 classes for a softmax.
NETWORKS = {
    "MultiInputVGG": f"{_HERE}:MultiInputVGG",
    "CompactMultiInputVGG": f"{_HERE}:CompactMultiInputVGG",
    # The published configurations differ in their inputs, which are arguments in the model file, and in training.
    **{name: f"{_HERE}:MultiInputVGG" for name in CONFIGURATIONS},
}
