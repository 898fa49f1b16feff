"""Plain lm-eval as a harness of NeMo Evaluator."""
