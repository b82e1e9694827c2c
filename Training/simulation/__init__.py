"""Simulated scans with exact truth, built on real anatomy. Everything is deterministic by seed."""
