"""Public names, imported on first use (lazy_loader)."""

from .config import CasbiConfig as CasbiConfig
from .dwarfs import build_dwarfs as build_dwarfs
from .library import Library as Library
from .library import read_library as read_library
from .library import write_library as write_library
from .members import MemberSamples as MemberSamples
from .members import sample_members as sample_members
from .plane import Plane as Plane
from .readers import read_halo as read_halo
from .simulator import CasbiSimulator as CasbiSimulator

__version__: str
