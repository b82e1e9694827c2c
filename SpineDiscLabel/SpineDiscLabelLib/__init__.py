"""Intervertebral discs in sagittal spine MR: networks that see them, where they lie, what they are called."""
