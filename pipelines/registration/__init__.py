"""Visits of a patient on one grid: transforms that are given or estimated, the figures that check them, and resampling.

Matrices here are (4, 4) float64 and map a point of the common space to the space of a visit, both in mm, LPS. That is the
direction in which ITK applies a transform when it resamples: for each voxel of the output it asks where the input has it.
"""
