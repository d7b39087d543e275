"""Where the photos of a run are restored: in this process (`prefrestore.restoration.batch`), or on a Ray cluster."""
