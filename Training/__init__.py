"""Headless training: simulation, fitting, evaluation. A set of tools; Slicer never loads it."""
