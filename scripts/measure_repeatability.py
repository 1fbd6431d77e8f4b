"""Time copies of one variant against each other: repeatability.json."""

from evosdpa import command_line, evidence, repeatability, timing_step


def main() -> None:
    """Parse arguments, time."""
    given = timing_step.parser(__doc__).parse_args()
    record = repeatability.measure(*timing_step.subject(given))
    evidence.write(given.output, record)
    print(f"{record.variant} against itself on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
