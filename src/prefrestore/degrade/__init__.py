"""Synthetic degradations, seeded: plain functions on arrays that know no model."""

from prefrestore.degrade.presets import PRESETS, DegradationMixture, DegradationRange, get_preset
from prefrestore.degrade.synthetic import DegradedPair, degrade

__all__ = ["PRESETS", "DegradationMixture", "DegradationRange", "DegradedPair", "degrade", "get_preset"]
