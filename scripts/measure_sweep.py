"""Time one variant over many problems, beside the variants that it chooses from and the rivals: sweep.json and its samples."""

from pathlib import Path

from evosdpa import command_line, evidence, sweep, timing_step


def main() -> None:
    """Parse arguments, time."""
    parser = timing_step.parser(__doc__)
    parser.add_argument("--beside", type=command_line.existing, nargs="+", required=True, help="libraries of the variants beside it")
    parser.add_argument("--verdicts", type=command_line.existing, nargs="+", required=True, help="verify.json of each of them, in the same order")
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    record = sweep.measure(*timing_step.subject(given), sweep.rungs(given.beside, given.verdicts), given.samples)
    evidence.write(given.output, record)
    print(f"{record.variant} over {len(record.problems)} problems on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
