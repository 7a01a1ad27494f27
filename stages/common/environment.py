"""What a user's shell exports must neither end a stage nor change a byte that it writes.

Libraries read their variables when they are imported, some when they compute. So this module, of the
standard library alone, is imported before them, and what it removes no child process has either.
"""

import os
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path

# All variables that begin so are removed: whole families, since a library's next release may read more
REMOVED = {
    "how threads share the work; OMP_DYNAMIC makes the loss NaN": ("OMP_", "GOMP_", "KMP_"),
    "instructions and precision of sums and products; traces on standard output": (
        *("MKL_", "DNNL_", "ONEDNN_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NPY_", "NUMPY_"),
        *("CUBLAS", "CUDNN_", "NVIDIA_TF32_OVERRIDE"),
    ),
    "PyTorch's precision, algorithms, logs, what torch.load accepts": ("TORCH_", "PYTORCH_"),
    "the size of oneDNN's cache in PyTorch, which crashes where it is no number": ("LRU_CACHE_CAPACITY",),
    "a backend that is installed for a notebook alone, fonts and sizes": ("MPLBACKEND", "MATPLOTLIBRC"),
    "values that these libraries do not check": ("TQDM_", "RUAMEL_", "YAMLDEBUG", "PANDAS_", "SAFETENSORS_"),
    "warnings as errors, a prompt after the end": ("PYTHONWARNINGS", "PYTHONINSPECT"),
    "the shell by which DVC runs a stage: by /bin/sh without it": ("SHELL",),
    "the repository, where a Git hook says another than that of the folder": (
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX"),
    ),
}
# What a user may choose: the number of threads, which the run record has and a checkpoint depends on;
# where threads and GPU memory are, which changes the time alone
KEPT = {
    *("OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY"),
    *("GOMP_SPINCOUNT", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
}


def hold(environment: MutableMapping[str, str]) -> None:
    """Remove from ``environment`` what `REMOVED` lists, and undo what Python has made of it already."""
    if "PYTHONWARNINGS" in environment:
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
    if "PYTHONINSPECT" in environment and sys.flags.inspect:
        # Python asks at a terminal only; at its prompt, a stage that has failed would end with 0
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # what is installed for this Python comes before what PYTHONPATH offers under the same name
    entries = environment.get("PYTHONPATH", "").split(os.pathsep)
    offered = [str(Path(entry).absolute()) for entry in entries if entry]
    sys.path[1:] = sorted(sys.path[1:], key=lambda entry: entry in offered)
    if not Path(environment.get("DVC_ROOT", ".")).is_dir():  # left over from elsewhere
        environment.pop("DVC_ROOT", None)
    prefixes = tuple(prefix for family in REMOVED.values() for prefix in family)
    for name in [name for name in environment if name.startswith(prefixes) and name not in KEPT]:
        del environment[name]


hold(os.environ)
