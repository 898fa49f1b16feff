"""A-VERT: is a free answer nearer in meaning to the right answer or to a wrong one?"""
