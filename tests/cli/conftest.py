"""What the command line shares with other rooms' tests."""

from tests.search.conftest import quick as quick
