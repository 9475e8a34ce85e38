"""What pages search for is found in seconds."""

from tests.search.conftest import no_advice as no_advice
from tests.search.conftest import quick as quick
