# evo-sdpa: from a kernel's source to a page that says how good it is and how sure that is.
#
#   snakemake --cores 1 all                    everything
#   snakemake --cores 1 results/report.html    the page and what it needs
#   snakemake --cores 1 summary                the ladder in the terminal (results/summary.md has more words)
#   snakemake --cores 1 v1_scalar              one variant's whole chain, by name (children too: v2_wmma@STAGES=3)
#   snakemake --cores 1 sweep                  config.yaml's sweep.variant over many problems, beside the variants it chooses from and the rivals
#   snakemake --cores 1 operator               config.yaml's operator.variants as PyTorch operators: right in a model, and what does a call cost?
#   snakemake --cores 1 evolve                 generations of children from config.yaml's evolve.start
#   snakemake --cores 1 record                 copy this machine's evidence to results/recorded/
#   snakemake --profile profiles/slurm all     everything, as jobs of a cluster (README.md, "On a cluster")
#   snakemake --cores 1 check                  exit 1 unless every variant that config.yaml requires is ok, and the gate too
#   snakemake --cores 1 selftest               the gate against planted wrong kernels; exit 1 when it misses one
#   snakemake --report out.html                Snakemake's own report with the page in it (out.zip keeps the files apart)
#
# Data flows one way: config.yaml and kernels/ -> build -> evidence (one JSON file a step) -> gap -> page and summary.

import os
import sys

sys.path.insert(0, os.path.join(workflow.basedir, "scripts"))
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # `python` is ours below

from evosdpa import config as configuration, invocation, plan as planning, variants

os.chdir(workflow.basedir)
given = invocation.options(sys.argv[1:])
invocation.mend_target_jobs(given)
invocation.claim_folder(given)
invocation.check_queue(given)
try:
    configuration.load("config.yaml")  # says what is wrong in one line, before Snakemake reads the same file
except configuration.ConfigError as error:
    invocation.stop(str(error))


configfile: "config.yaml"


requested = invocation.requested(given)
plan = planning.Plan(config, requested, invocation.sends_jobs(given))

wildcard_constraints:
    variant=variants.NAME,
    device="[a-z0-9][a-z0-9-]*",
    arch=r"sm_\d+a?|host",
    rival="[a-z0-9-]+",
    generation="[0-9]+",


for name, limit in plan.sharing.limits(given).items():
    workflow.register_resource(name, limit)


localrules: all, inspect, rivals, gap, report, writeup, record, check, selftest, summary


# ---- Targets ---------------------------------------------------------------------------------------------------------

rule all:
    input:
        plan.evidence(),
        "results/gap.csv",
        "results/report.html",
        "results/summary.md",


for name in plan.named_targets(requested):

    rule:
        name: name
        localrule: True
        input: plan.chain(name)


# ---- From source to binary: no GPU needed ----------------------------------------------------------------------------
# Needs the source and exactly the headers that it includes. A checkpoint with reproducible output: a reworded comment gives
# the same binary, and then nothing after it runs. A source that does not compile is evidence too; its kernel.so is empty.

checkpoint compile:
    input:
        source=plan.sources,
    output:
        library="results/build/{arch}/{variant}/kernel.so",
        cubin="results/build/{arch}/{variant}/kernel.cubin",
        evidence="results/build/{arch}/{variant}/build.json",
    params:
        code=plan.code("compile_variant"),
        settings=plan.compile_settings,
        compiler=plan.compiler,
    log:
        job="results/logs/{arch}/{variant}/compile.log",
        compiler="results/logs/{arch}/{variant}/compiler.log",
    shell:
        r"""
        python scripts/compile_variant.py {wildcards.variant:q} --arch {wildcards.arch:q} --settings {params.settings:q} \
            --folder $(dirname {output.library:q}) --log {log.compiler:q} 2>&1 | tee {log.job:q}
        """


rule inspect:
    input:
        library="results/build/{arch}/{variant}/kernel.so",
        cubin="results/build/{arch}/{variant}/kernel.cubin",
    output:
        "results/build/{arch}/{variant}/static.json",
    params:
        code=plan.code("inspect_variant"),
        settings=plan.inspect_settings(),
    log:
        "results/logs/{arch}/{variant}/inspect.log",
    shell:
        r"""
        python scripts/inspect_variant.py {wildcards.variant:q} --arch {wildcards.arch:q} --settings {params.settings:q} \
            --folder $(dirname {output:q}) 2>&1 | tee {log:q}
        """


# ---- Evidence from a device ------------------------------------------------------------------------------------------
# One process per variant and step. A wrong answer, a crash or a hang ends as evidence with its log, never as a failed job.

rule verify:
    input:
        library=plan.library_input,
        fill_shared=plan.fill_shared_input,
    output:
        "results/{device}/{variant}/verify.json",
    params:
        code=plan.code("verify_variant"),
        settings=plan.verify_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/verify.log",
    resources:
        **plan.sharing.check_resources(),
    shell:
        r"""
        python scripts/verify_variant.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --fill-shared {input.fill_shared:q} --output {output:q} 2>&1 | tee {log:q}
        """


rule sanitize:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
    output:
        "results/{device}/{variant}/sanitize.json",
    params:
        code=plan.code("sanitize_variant"),
        settings=plan.sanitize_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/sanitize.log",
    resources:
        **plan.sharing.check_resources(),
    shell:
        r"""
        python scripts/sanitize_variant.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --output {output:q} 2>&1 | tee {log:q}
        """


# Times are taken with every core reserved (with several GPUs: its share of them): a compile beside it would disturb launch-bound kernels.

rule bench:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
        floors=plan.floor_inputs,
    output:
        evidence="results/{device}/{variant}/bench.json",
        samples="results/{device}/{variant}/samples.csv.gz",
    params:
        code=plan.code("bench_variant"),
        settings=plan.bench_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/bench.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/bench_variant.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --floors {input.floors:q} \
            --output {output.evidence:q} --samples {output.samples:q} 2>&1 | tee {log:q}
        """


rule profile:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
    output:
        "results/{device}/{variant}/profile.json",
    params:
        code=plan.code("profile_variant"),
        settings=plan.profile_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/profile.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/profile_variant.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --output {output:q} 2>&1 | tee {log:q}
        """


# One job a rival, in the same company as a variant; what is not installed says so in its evidence.

rule rival:
    input:
        floors=plan.floor_inputs,
    output:
        evidence="results/{device}/rivals/{rival}/bench.json",
        samples="results/{device}/rivals/{rival}/samples.csv.gz",
    params:
        code=plan.code("bench_rival"),
        settings=plan.bench_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/rivals/{rival}.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/bench_rival.py {wildcards.rival:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --floors {input.floors:q} --output {output.evidence:q} --samples {output.samples:q} 2>&1 | tee {log:q}
        """


rule rivals:
    input:
        runs=plan.rival_runs,
    output:
        evidence="results/{device}/rivals/bench.json",
        samples="results/{device}/rivals/samples.csv.gz",
    params:
        code=plan.code("join_rivals"),
    log:
        "results/logs/{device}/rivals/join.log",
    shell:
        r"""
        python scripts/join_rivals.py {input.runs:q} --device {wildcards.device:q} --output {output.evidence:q} \
            --samples {output.samples:q} 2>&1 | tee {log:q}
        """


# ---- The gate proves itself -------------------------------------------------------------------------------------------
# Planted wrong kernels must be rejected, each by the checks meant for it; a binary must not be told apart from itself. The planted
# sources are a parameter, comments apart: they are compiled inside the job, so no binary shows that only a comment changed.

rule planted:
    input:
        fill_shared=plan.fill_shared_input,
    output:
        "results/{device}/selftest/selftest.json",
    params:
        code=plan.code("selftest_gate"),
        sources=plan.planted_sources,
        settings=plan.selftest_settings,
        compiler=plan.device_compiler,
        arch=plan.device_arch,
        device=plan.device_identity,
    log:
        "results/logs/{device}/selftest/selftest.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/selftest_gate.py --device {wildcards.device:q} --arch {params.arch:q} --settings {params.settings:q} \
            --jobs {threads} --fill-shared {input.fill_shared:q} --output {output:q} 2>&1 | tee {log:q}
        """


rule repeatability:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
        floors=plan.floor_inputs,
    output:
        "results/{device}/{variant}/repeatability.json",
    params:
        code=plan.code("measure_repeatability"),
        settings=plan.repeatability_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/repeatability.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/measure_repeatability.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --floors {input.floors:q} --output {output:q} 2>&1 | tee {log:q}
        """


# Only when it is asked for by its file: what a busy GPU beside it does to a timing.

rule neighbour:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
        floors=plan.floor_inputs,
    output:
        "results/{device}/{variant}/neighbour.json",
    params:
        code=plan.code("measure_neighbour"),
        settings=plan.repeatability_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/neighbour.log",
    threads: plan.sharing.timing_threads(workflow, whole=True)
    resources:
        gpu=max(1, plan.gpus), # all of them: none of the others may be busy too
    shell:
        r"""
        python scripts/measure_neighbour.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --floors {input.floors:q} --output {output:q} 2>&1 | tee {log:q}
        """


# Only when it is asked for, by this name or by its file: one variant over many problems, timed beside those that it chooses from and the rivals.

rule sweep:
    localrule: True
    input:
        plan.sweep_files(),


rule swept:
    input:
        library=plan.swept_input,
        verify="results/{device}/{variant}/verify.json",
        floors=plan.floor_inputs,
        beside=plan.beside_libraries,
        verdicts=plan.beside_verdicts,
    output:
        evidence="results/{device}/{variant}/sweep.json",
        samples="results/{device}/{variant}/sweep.csv.gz",
    params:
        code=plan.code("measure_sweep"),
        settings=plan.sweep_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/sweep.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/measure_sweep.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --floors {input.floors:q} --beside {input.beside:q} --verdicts {input.verdicts:q} \
            --output {output.evidence:q} --samples {output.samples:q} 2>&1 | tee {log:q}
        """


# Only when it is asked for, by this name or by its file: a variant as a PyTorch operator.

rule operator:
    localrule: True
    input:
        plan.operator_files(),


rule called:
    input:
        library=plan.library_input,
        verify="results/{device}/{variant}/verify.json",
    output:
        "results/{device}/{variant}/operator.json",
    params:
        code=plan.code("measure_operator"),
        settings=plan.operator_settings,
        device=plan.device_identity,
    log:
        "results/logs/{device}/{variant}/operator.log",
    threads: plan.sharing.timing_threads(workflow)
    resources:
        **plan.sharing.timing_resources(),
    shell:
        r"""
        python scripts/measure_operator.py {wildcards.variant:q} --device {wildcards.device:q} --settings {params.settings:q} \
            --library {input.library:q} --verify {input.verify:q} --output {output:q} 2>&1 | tee {log:q}
        """


# ---- An evolution -----------------------------------------------------------------------------------------------------
# Only when it is asked for: children are variants like all others, and what an evolution found is not measured again because a page
# is made. Which children there are is known when they were proposed, hence the checkpoints. A generation is made once: again only when
# seed, start or the evidence that it rests on change, not with every new prompt or setting, which are for generations to come. So the
# settings are no parameters; they go through the environment.

if plan.evolution:
    os.environ["EVOSDPA_SETTINGS"] = plan.evolution.whole_settings()

    checkpoint propose:
        localrule: True
        input:
            populations=plan.evolution.populations_before,
        output:
            "results/{device}/evolve/gen{generation}/proposal.json",
        params:
            search=plan.evolution.search(),
            arch=plan.arch,
        log:
            "results/logs/{device}/evolve/gen{generation}/propose.log",
        shell:
            r"""
            python scripts/propose_children.py --device {wildcards.device:q} --arch {params.arch:q} --settings "$EVOSDPA_SETTINGS" \
                --generation {wildcards.generation:q} --output {output:q} 2>&1 | tee {log:q}
            """

    checkpoint screen:
        localrule: True
        input:
            populations=plan.evolution.populations_before,
            proposal="results/{device}/evolve/gen{generation}/proposal.json",
            binaries=lambda wildcards: plan.evolution.binaries(checkpoints.propose.get(**wildcards).output[0]),
        output:
            "results/{device}/evolve/gen{generation}/screening.json",
        params:
            search=plan.evolution.search(),
            arch=plan.arch,
        log:
            "results/logs/{device}/evolve/gen{generation}/screen.log",
        shell:
            r"""
            python scripts/screen_children.py --device {wildcards.device:q} --arch {params.arch:q} --settings "$EVOSDPA_SETTINGS" \
                --proposal {input.proposal:q} --output {output:q} 2>&1 | tee {log:q}
            """

    # Only what decides who is right and how fast: a profile made again times nothing again.

    rule finals:
        input:
            populations=plan.evolution.populations_before,
            screening="results/{device}/evolve/gen{generation}/screening.json",
            decisive=lambda wildcards: plan.evolution.decisive(checkpoints.screen.get(**wildcards).output[0]),
            floors=plan.floor_inputs,
        output:
            evidence="results/{device}/evolve/gen{generation}/finals/bench.json",
            samples="results/{device}/evolve/gen{generation}/finals/samples.csv.gz",
        params:
            search=plan.evolution.search(),
            device=plan.device_identity,
            arch=plan.arch,
        log:
            "results/logs/{device}/evolve/gen{generation}/finals.log",
        threads: plan.sharing.timing_threads(workflow)
        resources:
            **plan.sharing.timing_resources(),
        shell:
            r"""
            python scripts/time_finalists.py --device {wildcards.device:q} --arch {params.arch:q} --settings "$EVOSDPA_SETTINGS" \
                --screening {input.screening:q} --floors {input.floors:q} --output {output.evidence:q} --samples {output.samples:q} 2>&1 | tee {log:q}
            """

    checkpoint select:
        localrule: True
        input:
            populations=plan.evolution.populations_before,
            screening="results/{device}/evolve/gen{generation}/screening.json",
            finals="results/{device}/evolve/gen{generation}/finals/bench.json",
            measured=lambda wildcards: [ancient(path) for path in plan.evolution.measured(checkpoints.screen.get(**wildcards).output[0])],
        output:
            "results/{device}/evolve/gen{generation}/population.json",
        params:
            search=plan.evolution.search(),
        log:
            "results/logs/{device}/evolve/gen{generation}/select.log",
        shell:
            r"""
            python scripts/select_elites.py --device {wildcards.device:q} --settings "$EVOSDPA_SETTINGS" --screening {input.screening:q} \
                --finals {input.finals:q} --output {output:q} 2>&1 | tee {log:q}
            """

    # The last elites beside what the evolution began with, once more: the run that chose an elite flatters it.

    rule closing:
        input:
            populations=plan.evolution.populations_before,
            last=plan.evolution.population,
            floors=plan.floor_inputs,
        output:
            evidence="results/{device}/evolve/gen{generation}/closing/bench.json",
            samples="results/{device}/evolve/gen{generation}/closing/samples.csv.gz",
        params:
            search=plan.evolution.search(),
            device=plan.device_identity,
            arch=plan.arch,
        log:
            "results/logs/{device}/evolve/gen{generation}/closing.log",
        threads: plan.sharing.timing_threads(workflow)
        resources:
            **plan.sharing.timing_resources(),
        shell:
            r"""
            python scripts/time_finalists.py --device {wildcards.device:q} --arch {params.arch:q} --settings "$EVOSDPA_SETTINGS" \
                --generation {wildcards.generation:q} --floors {input.floors:q} --output {output.evidence:q} --samples {output.samples:q} 2>&1 | tee {log:q}
            """

    rule evolve:
        localrule: True
        input:
            population=plan.evolution.last_population(),
            closing=plan.evolution.closing(),
        shell:
            "python scripts/print_evolution.py --device {plan.evolution.device:q} --closing {input.closing:q}"


# ---- From evidence to the page ---------------------------------------------------------------------------------------
# All evidence of this machine, recorded evidence of others, and the sources as they are now, which decide what is stale. What is marked
# with report() goes into Snakemake's own report.

rule gap:
    input:
        evidence=plan.evidence_files(),
        recorded=plan.recorded(),
        sources=plan.all_sources(),
        evolution=plan.evolution_files(),
    output:
        table=report("results/gap.csv", category="Times", caption="scripts/captions/table.rst"),
        json="results/gap.json",
    params:
        code=plan.code("build_gap"),
        only_asked_for=plan.only_asked_for(),
        settings=plan.gap_settings(),
    log:
        "results/logs/gap.log",
    shell:
        r"""
        python scripts/build_gap.py --plan {params.settings:q} --table {output.table:q} --json {output.json:q} 2>&1 | tee {log:q}
        """


rule report:
    input:
        gap="results/gap.json",
    output:
        report("results/report.html", category="Page", caption="scripts/captions/page.rst"),
    params:
        code=plan.code("build_report"),
    log:
        "results/logs/report.log",
    shell:
        r"""
        python scripts/build_report.py --gap {input.gap:q} --output {output:q} 2>&1 | tee {log:q}
        """


rule writeup:
    input:
        gap="results/gap.json",
    output:
        report("results/summary.md", category="Summary", caption="scripts/captions/summary.rst"),
    params:
        code=plan.code("build_summary"),
    log:
        "results/logs/writeup.log",
    shell:
        r"""
        python scripts/build_summary.py --gap {input.gap:q} --output {output:q} 2>&1 | tee {log:q}
        """


# Prints, so it has no output and always runs; the page is named, not made.

rule summary:
    input:
        gap="results/gap.json",
        summary="results/summary.md",
    shell:
        "python scripts/print_summary.py --gap {input.gap:q} --summary {input.summary:q}"


rule record:
    input:
        evidence=plan.evidence(),
        gap="results/gap.json",
    shell:
        "python scripts/record_evidence.py --gap {input.gap:q}"


rule selftest:
    input:
        plan.selftest_files(),
        plan.repeatability_files(),
    shell:
        "python scripts/check_selftest.py {input:q}"


rule check:
    input:
        gap="results/gap.json",
    shell:
        "python scripts/check_variants.py --gap {input.gap:q}"
