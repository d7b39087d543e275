"""Geometry, detection, masks and blending of faces: plain functions on arrays, no restoration model."""
