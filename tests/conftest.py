"""Settings of all tests."""

import pytest
import torch
from hypothesis import settings

# On a busy machine an example takes as long as it takes; the timeout of the test guards against one that hangs.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def denormals_come_back():
    """Trainings in this process flush denormals, which later tests draw (`cltmlib.repeatable.flush_denormals`)."""
    yield
    torch.set_flush_denormal(False)
