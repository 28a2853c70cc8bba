"""Applies a model to a cube: fields on the cube's grid, tile by tile, in bounded memory, resumable after a kill."""
