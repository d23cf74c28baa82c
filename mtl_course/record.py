"""The door to the records: ``python -m mtl_course.record 01`` makes a chapter's record.

It runs the chapter's full-size experiment; ``all`` in place of a number makes every record that is
missing or older than its code.
"""

import sys

from .records.command import main

if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; finished pieces are kept", file=sys.stderr)
        sys.exit(130)
