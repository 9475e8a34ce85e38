"""What pages search for is found in seconds."""

from tests.search.conftest import quick as quick
