"""The job that serves a checkpoint and asks it everything."""
