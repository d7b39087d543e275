"""The page for people and the HTTP service for programs: thin, over ``restoration/``."""
