"""Settings of every test: no deadline for an example, where other work may share the cores."""

from hypothesis import settings

settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
