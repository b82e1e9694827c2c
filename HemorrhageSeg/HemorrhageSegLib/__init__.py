"""Hemorrhage in non-contrast head CT: brain extraction, networks, pipeline. Importing it imports no torch."""
