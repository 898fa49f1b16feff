"""Checkpoints compared: pairs, steps, ranks."""
