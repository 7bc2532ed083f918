"""``python -m hf_distill.cli``: the command without its name on the path.

Knows: nothing but the command. Does not know: what it does.
"""

import sys

from hf_distill.cli import main

if __name__ == "__main__":
    sys.exit(main())
