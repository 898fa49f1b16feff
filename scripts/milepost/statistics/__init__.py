"""Means, intervals and tests, and what a task's numbers are made of."""
