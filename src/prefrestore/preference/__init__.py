"""Objectives, rewards and the learned preference: plain functions of tensors, and one small network."""
