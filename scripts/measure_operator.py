"""Check a variant as a PyTorch operator and time calls of it: operator.json."""

from evosdpa import command_line, evidence, operator, timing_step


def main() -> None:
    """Parse arguments, check, time."""
    given = timing_step.parser(__doc__).parse_args()
    variant, config, device, build, verify, library, _ = timing_step.subject(given)
    record = operator.measure(variant, config, device, build, verify, library)
    evidence.write(given.output, record)
    costs = ", ".join(f"{one.name} {one.time_us:.4g} us" for one in record.costs)
    print(f"{record.variant} as an operator on {record.device}: {record.status.value} {record.reason or costs}")


if __name__ == "__main__":
    command_line.run(main)
