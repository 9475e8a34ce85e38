"""Finding the lam to take with few images: sample where it decides most, fill in the rest, choose."""

from deradiff.search.folder import Folder as Folder
from deradiff.search.search import Found as Found
from deradiff.search.search import first as first
from deradiff.search.search import search as search
from deradiff.search.settings import Settings as Settings
