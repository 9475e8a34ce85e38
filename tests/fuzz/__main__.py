"""``python -m tests.fuzz [CASES [TARGET ...]]``: many mutations of every target; failing bytes go into the corpus."""

import sys
import traceback
from hashlib import sha256

from tests.fuzz.harness import CORPUS, explore
from tests.fuzz.mutations import last_drawn
from tests.fuzz.targets import targets


def main() -> int:
    cases, names = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000, sys.argv[2:]
    tried = crashes = 0
    with targets() as by_name:
        chosen = {name: by_name[name] for name in names or by_name}
        share = -(-cases // len(chosen))
        for name, target in chosen.items():
            try:
                tried += explore(target, share, derandomized=False)
            except Exception:  # noqa: BLE001  (whatever a reader raises is a find)
                crashes += 1
                traceback.print_exc(limit=-6)
                content = last_drawn()
                path = CORPUS / name / sha256(content).hexdigest()[:12]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                sys.stdout.write(f"{name}: {content[:300]!r} in {path}\n")
    sys.stdout.write(f"cases tried {tried:,}, crashes {crashes}\n")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
