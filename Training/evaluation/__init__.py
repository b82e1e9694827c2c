"""Judging results against the truth: metrics, groups, tables as the papers print them, plots and a report."""
