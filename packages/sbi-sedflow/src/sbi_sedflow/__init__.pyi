"""Public names, imported on first use (lazy_loader)."""

from .analysis import SedflowAnalysis as SedflowAnalysis
from .arrays import fit as fit
from .bases import Bases as Bases
from .bases import parametric_bases as parametric_bases
from .bases import provabgs_bases as provabgs_bases
from .bases import tng_bases as tng_bases
from .catalogue import read_catalogue as read_catalogue
from .catalogue import write_catalogue as write_catalogue
from .emulator import ProvabgsEmulator as ProvabgsEmulator
from .flags import Flag as Flag
from .forward import ForwardModel as ForwardModel
from .simulator import SedflowSimulator as SedflowSimulator
from .ssp import SSPGrid as SSPGrid
from .ssp import load_library as load_library
from .tables import read_galaxies as read_galaxies
from .tables import read_nsa as read_nsa

__version__: str
