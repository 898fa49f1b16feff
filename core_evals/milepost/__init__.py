"""Milepost's scorers as tasks of NeMo Evaluator: put the repository's root on PYTHONPATH (docs/nemo.md).

No module here needs more than Python: any interpreter that NeMo Evaluator's command finds may start it.
"""
