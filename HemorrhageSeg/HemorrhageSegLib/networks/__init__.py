"""Networks of the hemorrhage task. Each file imports torch and is loaded only by code that computes."""

#: What a model file may name as its architecture -> where that class is.
NETWORKS = {"DRUNet": "HemorrhageSegLib.networks.drunet:DRUNet"}
