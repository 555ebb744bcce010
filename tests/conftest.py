"""Settings of all tests."""

from hypothesis import settings

# On a busy machine an example takes as long as it takes; the timeout of the test guards against one that hangs.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
