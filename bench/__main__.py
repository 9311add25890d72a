"""`python -m bench`, started by `./dev bench` with the addresses of a stack of its own."""

import argparse
import datetime
import json
import os
import sys
import warnings
from pathlib import Path

import django


def main() -> int:
    """Measure, print, keep. Status 1 when a request failed; what was missed is in the results and no failure."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure OpenCrane on a stack of its own.")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1,000 tenants, 100,000 audit entries and 200,000 records of usage only, less time",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has TEXT in its name; several by commas")
    parser.add_argument("--seconds", type=float, help="for each figure")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the results there, for example bench/results")
    arguments = parser.parse_args()
    missing = [name for name in ("OPENCRANE_BENCH_URL", "OPENCRANE_BENCH_TOKEN") if not os.environ.get(name)]
    if missing:
        print(f"bench: {' and '.join(missing)} are not set; start it with ./dev bench", file=sys.stderr)
        return 2

    os.environ["DJANGO_SETTINGS_MODULE"] = "opencrane.settings"
    os.environ["OPENCRANE_DATABASE_POOL"] = "false"
    os.environ["OPENCRANE_LOG_LEVEL"] = "ERROR"
    warnings.simplefilter("ignore")
    django.setup()
    # What follows needs Django's models.
    from django.db import connection

    from bench import machine
    from bench.client import Target
    from bench.figures import Results
    from bench.scenarios import Bench, Plan

    plan = Plan(only=arguments.only)
    if arguments.quick:
        plan = Plan(
            only=arguments.only,
            seconds=1.0,
            large=1_000,
            audit=100_000,
            usage=200_000,
            writes=60,
            deep_pages=50,
            is_quick=True,
        )
    if arguments.seconds:
        plan.seconds = arguments.seconds
    url, token = os.environ["OPENCRANE_BENCH_URL"], os.environ["OPENCRANE_BENCH_TOKEN"]
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgres = cursor.fetchone()[0]
    began = datetime.datetime.now(datetime.UTC)
    facts = {"measured": f"{began:%Y-%m-%d}", **machine.describe(), "PostgreSQL": postgres}
    results = Results(facts | {"load average before": machine.load()})
    bench = Bench(
        plan=plan,
        target=Target(url, {"Authorization": f"Bearer {token}"}),
        anonymous=Target(url),
        token=token,
        pids=json.loads(os.environ.get("OPENCRANE_BENCH_PIDS") or "{}"),
        results=results,
        say=lambda line: print(line, flush=True),
    )
    bench.run()
    results.machine["load average after"] = machine.load()
    results.machine["seconds"] = round((datetime.datetime.now(datetime.UTC) - began).total_seconds())
    results.notes = [
        "Times are what one client on the same machine sees, its own share included; it takes turns with the servers "
        "on the same cores. CPU is per request, of the web process and of all processes of the stack, counted in steps "
        "of 10 ms over the whole run of a figure. SQL is counted in a process of its own that calls the same view. "
        "Floors are measured in the same run: /healthz is the smallest Django view, json_agg the same rows straight "
        "from PostgreSQL, bare calls the same objects on the API server alone, by the client that the workers use. The "
        "cluster is the development cluster.",
    ]
    print("\n" + "\n".join(f"{name}: {value}" for name, value in results.machine.items()))
    for name, value in results.memory.items():
        print(f"memory, {name}: {value and round(value)} MiB")
    missed = [each.name for each in results.figures if each.met is False]
    print(f"missed: {', '.join(missed)}" if missed else "everything that is wanted was met")
    if arguments.save:
        for file in results.save(arguments.save, f"{began:%Y-%m-%d}"):
            print(f"written: {file}")
    return 1 if any(each.failures for each in results.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
