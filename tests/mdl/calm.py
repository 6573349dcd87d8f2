"""Sets hypothesis up for a machine that is busy with other things: slowness is no finding."""

from hypothesis import HealthCheck, settings

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)
