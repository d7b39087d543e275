"""Faces to train on and to measure with: folders, captions, and a generator that draws more."""

from .faces import FaceSet, check_disjoint, load_face_set, shared_persons
from .mix import FaceMix, mix

__all__ = ["FaceMix", "FaceSet", "check_disjoint", "load_face_set", "mix", "shared_persons"]
