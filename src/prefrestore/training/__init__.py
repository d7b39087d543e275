"""Training: one readable module a stage over one small shared loop."""
