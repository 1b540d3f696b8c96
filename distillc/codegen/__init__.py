"""Relax import, schedules, kernels, build and link."""
