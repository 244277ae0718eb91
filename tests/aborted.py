"""The run of a flow that was aborted."""

import pytest

from batchflow.errors import FlowError


def aborted(flow, **options):
    """Run a flow of which a step fails, and return the run that `FlowError` carries."""
    with pytest.raises(FlowError) as ended:
        flow.run(**options)
    assert any(step.state == "failed" for step in ended.value.run.steps)
    return ended.value.run
