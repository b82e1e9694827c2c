"""Networks of the disc task. Each file imports torch and is loaded only by code that computes."""

_HERE = "SpineDiscLabelLib.networks"

#: What a model file may name as its architecture -> where that class is. All take ``in_channels``, ``width`` and
#: ``classes`` and return a list of heat maps (n, classes, rows, columns), the best last, without an activation.
NETWORKS = {
    "StackedHourglass": f"{_HERE}.hourglass:StackedHourglass",
}
