"""Fetch a source archive the way pip finds it, and nothing more.

``pip download`` of a source archive runs the package's own set-up, only to learn what it depends
on. This asks pip's index for the file and stores it as it is: nothing of it is unpacked or run. It
is a script for the Python that has pip, with the command line of ``pip download``:

    python sdist.py download OPTIONS --dest FOLDER NAME==VERSION

The settings that pip knows (index, proxy, certificates) hold. It leans on pip's internals, so a pip
that changed them is said by name; the caller verifies the checksum.
"""

import re
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Exit status 0 when the archive lies in the folder, else 1, after a line "ERROR: ..."."""
    try:
        from pip import __version__
    except ImportError:
        print("ERROR: No module named pip", file=sys.stderr)
        return 1
    try:
        from pip._internal.commands import create_command

        command = create_command(arguments[0])
        options, [requirement] = command.parse_args(arguments[1:])
        name, version = requirement.split("==")
        with command.main_context():
            session = command.get_default_session(options)
            finder = command._build_package_finder(options, session)
            links = [
                candidate.link
                for candidate in finder.find_all_candidates(name)
                if str(candidate.version) == version and not candidate.link.is_wheel
            ]
            if not links:
                print(f"ERROR: No source archive of {requirement} was found", file=sys.stderr)
                return 1
            answer = session.get(links[0].url_without_fragment)
            answer.raise_for_status()
            (Path(options.download_dir) / links[0].filename).write_bytes(answer.content)
    except (ImportError, AttributeError, TypeError) as error:
        print(f"ERROR: pip {__version__} has other internals ({error})", file=sys.stderr)
        return 1
    except Exception as error:
        # whatever network, index or disk do to pip's own code; an address may hold a password
        said = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))
        print(f"ERROR: {said}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
