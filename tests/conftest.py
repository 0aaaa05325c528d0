"""What all tests need of their process."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

# No test is decided by a clock.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts what it runs in the background with Ctrl-C ignored, nohup with SIGHUP, and so would
# be all that tests start; some of them are about it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

_made = tempfile.mkdtemp(prefix="lossledger-tests-")
atexit.register(shutil.rmtree, _made, ignore_errors=True)

# JAX compiles the same small models again and again, in this process and in those that it starts:
# what XLA made of a program is kept until the session ends.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": os.path.join(_made, "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

# Keras imports these wherever they are installed, for wrappers, pictures and one seed more, which
# takes longer than all the rest of it. The processes that tests start have its backend alone.
OTHERS = ["matplotlib", "sklearn"]
if os.environ.get("KERAS_BACKEND") in ("jax", "torch"):
    OTHERS.append("tensorflow")
_without = Path(_made, "without")
_without.mkdir()
for _name in OTHERS:
    (_without / f"{_name}.py").write_text(f"raise ImportError('no {_name} here')\n")
_path = [str(_without), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _path))
