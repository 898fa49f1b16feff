"""Answers as they come, and what an attempt took: append-only files that outlive a job."""
