"""Compile one variant: kernel.so, kernel.cubin and build.json."""

from pathlib import Path

from evosdpa import build, command_line, variants


def main() -> None:
    """Parse arguments, compile."""
    parser = command_line.parser(__doc__, arch=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the files go")
    parser.add_argument("--log", type=Path, help="file for all that the compiler says")
    given = parser.parse_args()
    record = build.compile_variant(variants.resolve(given.variant), given.settings, given.arch, given.folder, given.log)
    print(f"{record.variant}: {record.status.value}{': ' + record.reason if record.reason else f', {record.seconds:.1f} s'}")


if __name__ == "__main__":
    command_line.run(main)
