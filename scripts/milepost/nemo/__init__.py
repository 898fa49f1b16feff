"""NeMo Evaluator: what it can run, its configuration in, its results out."""
