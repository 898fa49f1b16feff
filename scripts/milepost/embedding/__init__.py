"""Similarity of texts: embedders, rerankers, and vectors that are kept."""
