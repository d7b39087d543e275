"""Measuring a restoration: distances to a ground truth, identity, landmarks, naturalness."""
