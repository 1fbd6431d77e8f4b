"""Time one variant alone and beside a busy GPU of this machine: neighbour.json."""

from evosdpa import command_line, evidence, neighbour, timing_step


def main() -> None:
    """Parse arguments, time."""
    given = timing_step.parser(__doc__).parse_args()
    record = neighbour.measure(*timing_step.subject(given))
    evidence.write(given.output, record)
    verdicts = ", ".join(f"{one['mode']} {one['ratio']:.4f} {one['verdict']}" for one in record.results)
    print(f"{record.variant} beside a busy GPU on {record.device}: {record.status.value} {verdicts} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
