"""Time one variant: bench.json and samples.csv.gz."""

from pathlib import Path

from evosdpa import benchmarking, command_line, evidence, timing_step


def main() -> None:
    """Parse arguments, time."""
    parser = timing_step.parser(__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    record = benchmarking.bench_variant(*timing_step.subject(given), given.samples)
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
