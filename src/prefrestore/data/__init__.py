"""Faces to train on and to measure with: folders, captions, and a generator that draws more."""

from prefrestore.data.faces import FaceSet, check_disjoint, load_face_set, shared_persons
from prefrestore.data.mix import FaceMix, mix

__all__ = ["FaceMix", "FaceSet", "check_disjoint", "load_face_set", "mix", "shared_persons"]
