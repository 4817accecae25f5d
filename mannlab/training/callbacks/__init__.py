"""What happens beside training: checkpoints, progress, pictures, guards. One file each."""

from mannlab.training.callbacks.averages import Averages
from mannlab.training.callbacks.checkpoints import Checkpoints
from mannlab.training.callbacks.dashboard import Dashboard
from mannlab.training.callbacks.guard import FiniteGuard
from mannlab.training.callbacks.health import MemoryHealth
from mannlab.training.callbacks.hparams import HyperParameters
from mannlab.training.callbacks.pictures import Pictures
from mannlab.training.callbacks.progress import Progress
from mannlab.training.callbacks.solved import StopWhenSolved
from mannlab.training.callbacks.stop import GracefulStop

__all__ = [
    "Averages",
    "Checkpoints",
    "Dashboard",
    "FiniteGuard",
    "GracefulStop",
    "HyperParameters",
    "MemoryHealth",
    "Pictures",
    "Progress",
    "StopWhenSolved",
]
