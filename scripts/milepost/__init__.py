"""Milepost: score every checkpoint of a training run. This package never imports Snakemake."""

__version__ = "0.1.0"
