"""What a campaign evaluates: its configuration, checkpoints, tasks and models."""
