"""The published Pref-Restore files: what they hold, how they are read, converted and sampled as they were published."""
