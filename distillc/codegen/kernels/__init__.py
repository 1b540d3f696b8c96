"""Kernels of our own, written in TIR, and what they are made of."""
