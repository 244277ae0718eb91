"""Ways of failing on Ray take minutes, for it makes a worker anew in a second: they run in the suite of clusters."""

import pytest


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.cluster)])
def remote(request, warm):
    """Each kind of executor with processes of its own, warm."""
    return warm(request.param)
