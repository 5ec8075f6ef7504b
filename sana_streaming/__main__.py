"""`python -m sana_streaming` is the command line."""

import sys

from sana_streaming.cli import main

sys.exit(main())
