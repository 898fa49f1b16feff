"""Asking models for verdicts: prompts that fence what is judged, strict reading, calls that are kept, games, rubrics."""
