"""How released training sets lie on the disk: one small adapter per layout, all of which yield the same.

An adapter is a module with ``find(root, options) -> Found``, which pairs files by name and reads no image, and
``read(source, options) -> StoredCase``, which reads one case. Another released set is one more module and one line.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from NeuraxisLib.errors import check_choice

#: Layout -> (module, what it is in words).
LAYOUTS = {
    "csv": ("Training.layouts.table", "NIfTI, NRRD or DICOM pairs listed in a CSV, such as simulate writes"),
    "hemseg": ("Training.layouts.hemseg", "HemSeg: {train,val,test}/{image,label}/*.nii.gz"),
    "hemseg-dicom": ("Training.layouts.hemseg_dicom", "HemSeg: RSNA DICOM files selected by the jsonl list"),
    "slexnet-png": ("Training.layouts.slexnet_png", "SLEX-Net: brain/PATIENT/N.png and label/PATIENT/N.png"),
    "slexnet-h5": ("Training.layouts.slexnet_h5", "SLEX-Net: data_{train,val,test}/SUBJECT_SLICE.h5 stacks"),
    "drunet": ("Training.layouts.drunet", "DR-UNet: images/N.png and masks/N.png, one slice each"),
    "stavanger": ("Training.layouts.stavanger", "Stavanger: colour-coded CT perfusion maps and their ground truth"),
    "maps": ("Training.layouts.maps_table", "CT perfusion maps listed in a CSV: folders of files, DICOM or results"),
    "bids": ("Training.layouts.bids", "BIDS: sub-*/... images, masks in derivatives/*/sub-*/..."),
    "spine-generic": ("Training.layouts.spine_points", "BIDS with single-voxel disc labels in derivatives"),
    "sct-discs": ("Training.layouts.spine_points", "NAME.nii.gz with NAME_label-disc.nii.gz in the numbers of the SCT"),
    "spine-masks": ("Training.layouts.spine_masks", "spine MR with masks of vertebrae, canal and discs, as SPIDER"),
}


def get_layout(name: str) -> ModuleType:
    """The adapter of that name; InputError names the known ones otherwise."""
    check_choice("layout", name, LAYOUTS)
    return import_module(LAYOUTS[name][0])
