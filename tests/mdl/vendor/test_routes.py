"""The vendor server's process: faults on request."""

from __future__ import annotations

import pytest

from mdl.settings import VendorSettings
from mdl.vendor.routes import Fault, inflict, run
from mdl.vendor.stand_in import VendorServer
from service.errors import OperatorError
from service.run import Shutdown


async def test_faults_last_until_they_are_healed(vendor: VendorServer) -> None:
    """Refusing and pausing; dropping and garbage happen once."""
    for kind in ("refuse", "pause", "drop", "garbage"):
        inflict(vendor, Fault(kind))  # type: ignore[arg-type]
    assert (vendor.refusing, vendor.paused) == (True, True)
    inflict(vendor, Fault("heal"))
    assert (vendor.refusing, vendor.paused) == (False, False)


async def test_it_is_not_fed_by_the_vendor() -> None:
    """Reselling is not what it is for."""
    with pytest.raises(OperatorError, match="cannot be fed by the vendor"):
        await run(VendorSettings(feed="massive", vendor_admin_port=0, port=0), Shutdown())
