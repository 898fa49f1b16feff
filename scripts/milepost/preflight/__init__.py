"""What would fail in a run, found before a GPU is asked for."""
