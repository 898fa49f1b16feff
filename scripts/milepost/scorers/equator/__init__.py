"""EQUATOR: is an answer right by an answer key? Evaluators, in the role of a strict teacher, say so."""
