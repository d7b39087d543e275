"""What the service answers, one module a subject; see ``docs/serve.md``."""
