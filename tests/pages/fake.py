"""A made-up study with every shape a report must carry: NaN, infinities, hostile text, long tables, odd labels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analyzer.analysis.drawing import band
from analyzer.analysis.figures import styles
from analyzer.analysis.support import figures as support_figures
from analyzer.records import Estimate, Figure, Result, Verdict

HOSTILE = '</script><img src=x onerror=alert(1)> | `rm` $x$ "q"'


def inputs(*, hostile: str = HOSTILE) -> dict:
    """Keyword arguments of `pages.write.write`."""
    labels = ["base", "rlvr", "distill/v1 α", hostile, "cool"]
    rng = np.random.default_rng(0)
    ks = [2**i for i in range(9)]
    curves = pd.DataFrame(
        [
            {"source": s, "k": k, "pass": 1 - (1 - 0.08 * (i + 1)) ** (k**0.6), "problems": 64}
            for i, s in enumerate(labels)
            for k in ks
        ]
    )
    curves["low"], curves["high"] = curves["pass"] - 0.05, curves["pass"] + 0.05
    keys = [f"{s}/p{p}/{i}" for s in labels for p in range(4) for i in range(6)]  # of the traces in conftest
    members = pd.DataFrame({"key": keys, "cluster": np.arange(len(keys)) % 3})
    members[["x", "y"]] = rng.normal(size=(len(keys), 2))
    flagged = [f"{hostile}/p2/3", "distill/v1 α/p1/2", "distill/v1 α/p0/0", "distill/v1 α/p1/3", "distill/v1 α/p3/1"]
    windows = [
        {"source": key.rsplit("/", 2)[0], "key": key, "problem": key.split("/")[-2], "text": f"7 {hostile}"}
        for key in flagged
    ]
    cloud = pd.DataFrame({"x": rng.normal(size=3000), "y": rng.normal(size=3000), "source": rng.choice(labels, 3000)})
    ecdf = pd.DataFrame(
        [
            {"source": s, "nll": x, "share": (j + 1) / 40}
            for i, s in enumerate(labels)
            for j, x in enumerate(np.sort(rng.gamma(2 + i, 0.2, 40)))
        ]
    )
    shares = pd.DataFrame(
        [
            {"source": s, "kind": k, "share": v}
            for s in labels
            for k, v in zip(["unshifted", "marginal", "shifted"], rng.dirichlet([20, 4, 1]), strict=True)
        ]
    )

    def boundary(result, ax):
        for s, look in styles(labels).items():
            band(ax, result.tables["pass_at_k"].query("source == @s"), "pass", look, s)
        ax.set(xlabel="k", ylabel="pass@k")
        return ax

    def ppl(result, ax):
        for s, look in styles(labels).items():
            part = result.tables["ecdf"].query("source == @s")
            ax.plot(part["nll"], part["share"], label=s, color=look["color"], linestyle=look["linestyle"])
        ax.set(xscale="log", xlabel="NLL (nats/token)", ylabel="share of traces")
        ax.legend(title="source")
        return ax

    def clusters(result, ax):
        import seaborn as sns

        sns.scatterplot(
            result.tables["map"],
            x="x",
            y="y",
            hue="source",
            style="source",
            s=6,
            ax=ax,
            palette={s: look["color"] for s, look in styles(labels).items()},
        )
        sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5))
        return ax

    def ranks(result, ax):
        import seaborn as sns

        sns.barplot(result.tables["shares"], x="share", y="source", hue="kind", ax=ax)
        return ax

    def broken(result, ax):
        raise ValueError(f"no {hostile}")

    nan = math.nan
    estimates = {
        f"{s}.{key}": Estimate(
            0.1 * (i + 1) + shift, 0.1 * i + shift, 0.1 * (i + 2) + shift, 64, "problem bootstrap", ""
        )
        for i, s in enumerate(labels)
        for key, shift in (("pass@1", 0.01), ("pass@64", 0.25), ("pass@256", 0.3), ("crossover_k", 12.0))
    }
    estimates["base.crossover_k"] = Estimate(nan, note="the reference does not cross itself")
    estimates[f"{hostile}.crossover_k"] = Estimate(math.inf, 12, math.inf, 64, "problem bootstrap", "")
    results = {
        "tokens": Result(
            "tokens",
            "Which tokens does the base find unlikely?",
            {
                f"{s}.{k}": Estimate(v, v - 0.01, v + 0.013, 64, "problem bootstrap")
                for s in labels
                for k, v in (("unshifted", 0.91), ("marginal", 0.07), ("shifted", 0.0212))
            },
            {
                "shares": shares,
                "worst windows": pd.DataFrame(
                    [
                        {
                            "key": f"{s}/q1/0",
                            "window": f"{hostile} then 3 * (4 + 5) = 27\nso the answer",
                            "nats": 9.123456,
                            "ids": [1, 2, 3],
                        }
                        for s in labels
                    ]
                ),
            },
            (f"URIAL ranks the greedy token; here {hostile}.",),
        ),
        "boundary": Result(
            "boundary",
            "What can be solved in k tries?",
            estimates,
            {
                "pass_at_k": curves,
                "coverage": pd.DataFrame(
                    {
                        "source": labels[1:],
                        "both": [40, 30, 20, 41],
                        "reference_only": [9, 5, 2, 1],
                        "source_only": [0, 12, 11, 0],
                        "neither": [15, 17, 31, 22],
                        "n": [64] * 4,
                    }
                ),
            },
            ("Problems join on their question.",),
            {"eps": 0.05, "bad": nan},
            0,
        ),
        "support": Result(
            "support",
            "Could k draws from the reference have given these traces?",
            {
                **{
                    f"{s}.reach@64": Estimate(0.3 * i + 0.0012, 0.3 * i, 0.3 * i + 0.0345, 64, "problem bootstrap")
                    for i, s in enumerate(labels[:3])
                },
                **{
                    f"{s}.{key}@64": Estimate(value, low, high, 64, "by problem", note)
                    for s, share in (("rlvr", 0.011), ("distill/v1 α", 0.42))
                    for key, value, low, high, note in (
                        ("beyond", 0.8372, 0.8021, 0.8677, "whole traces against the base, T=1"),
                        ("hurdles", 2 * share, share, 3 * share, ""),
                        ("hurdle_share", share, share / 2, 2 * share, ""),
                        ("hurdle_rate", 30 * share, 10 * share, 50 * share, ""),
                        ("horizon", 13.5, 10.7, nan, "its upper end is beyond the traces"),
                    )
                },
                "distill/v1 α.horizon@64": Estimate(
                    nan, 90, nan, 64, "", "beyond the traces: the excess ends at 0.437"
                ),
                "rlvr.temperature_share": Estimate(0.08, 0.05, 0.11, 64, "Student's t over problems", "T=0.6"),
                f"{hostile}.reach@64": Estimate(nan, note="the policy of this source was not given (--policy)"),
                "distill/v1 α.novel@64": Estimate(0.25, 0.2, 0.31, 64, "certified at level .05"),
                "base.sampler_inside": Estimate(1, 1, 1, 64, "exact"),
            },
            {
                "curve": pd.DataFrame(
                    {
                        "source": ["base"] * 300,
                        "k": range(300),
                        "reach": np.linspace(0, 1, 300),
                        "log_ratio": [math.inf] * 300,
                    }
                ),
                "plane_counts": pd.DataFrame({"source": labels[1:]}),
                **local(hostile),
                "flagged_windows": pd.DataFrame(windows),
            },
            ("Likelihood under base at T=1.",),
            {"tau": 0.02, "budget": 64},
            0,
        ),
        "clusters": Result(
            "clusters",
            "Do traces form groups that the reference lacks?",
            {"rlvr.novel_cluster_mass": Estimate(0.02, 0, 0.05, 64, "problem bootstrap")},
            {"map": cloud, "members": members, "empty": pd.DataFrame({"a": []})},
            (),
            {"clustered": 200},
        ),
        "perplexity": Result(
            "perplexity",
            "How likely are the traces under the base?",
            {
                f"{s}.{k}": Estimate(v * (i + 1), v * (i + 1) * 0.93, v * (i + 1) * 1.08, 64, "problem bootstrap")
                for i, s in enumerate(labels)
                for k, v in (("ppl.median", 1.4), ("nll_per_token", 0.31))
            },
            {"ecdf": ecdf},
            (),
            {},
            0,
        ),
    }
    verdicts = [
        Verdict(
            "rlvr",
            "base",
            "sequence",
            64,
            "reweighted",
            True,
            (
                "whole traces beyond 64 draws: 0.837 (at least 0.811) over 512 traces, at T=1.",
                "1.1% of the traces hold a step more than 64 times as likely as under the base",
                "no temperature does it: T=0.6 explains 8% of the divergence from the base",
                "likelier than draws of the base itself, by 0.050 nats a token",
                "steps and answers do not differ",
            ),
            None,
        ),
        Verdict("rlvr", "base", "steps", 64, "inside", False, ("x",)),
        Verdict("rlvr", "base", "answer", 64, "inside"),
        Verdict("distill/v1 α", "base", "sequence", 64, "sharpened", False, ("x",)),
        Verdict(
            "distill/v1 α",
            "base",
            "answer",
            64,
            "outside",
            True,
            (
                "12 problems solved that 256 draws of base never solve (3.1 expected by chance)",
                "novel@64 = .25 [.20, .31]",
            ),
            "12 problems being solved by further draws of base.",
        ),
        Verdict(
            hostile,
            "base",
            "sequence",
            64,
            "undetermined",
            True,
            ("no policy was given", hostile),
            f"--policy for {hostile}",
        ),
        Verdict("cool", "base", "sequence", 64, "inside", True, ("the upper bound of reach@64 is .011",)),
    ]
    figures = {
        "boundary": {
            "pass@k": Figure(
                boundary,
                "pass_at_k",
                lambda r: f"pass@k over 64 problems; rlvr {hostile} falls below base at k = 20 [12, 31].",
                1,
            ),
            "broken": Figure(broken, "pass_at_k", lambda r: "never drawn"),
            "nothing": Figure(boundary, "absent", lambda r: "never drawn"),
        },
        "perplexity": {
            "ecdf": Figure(
                ppl,
                "ecdf",
                lambda r: "Mean surprisal under base per trace: distill lies above base (n = 40 traces each).",
            ),
            "again": Figure(
                ppl, "ecdf", lambda r: "The same again, to see two figures side by side (n = 40 traces each)."
            ),
        },
        "clusters": {
            "map": Figure(
                clusters, "map", lambda r: "Two principal components of 3,000 traces; no group is rlvr's alone.", 2
            )
        },
        "support": {name: support_figures.FIGURES[name] for name in ("prefix", "kinds", "places")},
        "tokens": {"ranks": Figure(ranks, "shares", lambda r: "Rank classes of sampled tokens under base.", 2)},
    }
    ledger = {
        "rows": 1010,
        "rows_used": 1000,
        "rows_rejected": 10,
        "traces": 2000,
        "traces_scored": 1990,
        "traces_rejected": 10,
        "by_reason": {"no response field": 4, f"broken JSON {hostile}": 6, "over the model's length": 10},
    }
    sources = {
        s: {"traces": 400, "problems": 64, "tokens": 51234 + i, "correct": None if i == 4 else 100 + i}
        for i, s in enumerate(labels)
    }
    meta = {
        "version": "0.1.0",
        "command": ["analyzer", "report", f"odd={hostile}", "-o", "out"],
        "seeds": {"bootstrap": 0},
        "scorers": {"base": "models/base"},
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "decisions": [f"BOS once; {hostile}", "EOS as in the ids."],
        "left_out": [{"analysis": "steps", "why": f"no step column {hostile}"}],
    }
    return {
        "results": results,
        "verdicts": verdicts,
        "ledger": ledger,
        "sources": sources,
        "figures": figures,
        "meta": meta,
    }


def local(hostile: str) -> dict[str, pd.DataFrame]:
    """The tables of `support` on steps: two sources beyond the base, a third with hostile text in every place."""
    nan, sources = math.nan, {"rlvr": 1, "distill/v1 α": 8, hostile: 1}
    places = [
        {
            "source": s, "key": f"{s}/p{i % 4}/{i // 4 % 6}", "problem": f"p{i % 4}", "position": 7 + i,
            "tokens": 1 + 3 * (i % 2), "text": hostile if s == hostile else " 17\n", "kind": "number",
            "nats": 30.0 - i, "log_q": -0.1, "log_p": -15.0 if i else -math.inf, "rank": nan if i == 1 else 41.0,
            "likelier": f"{hostile!r} 0.9; ' 4' 0.01", "before": f"so {hostile} =", "correct": None if i else True,
        }
        for s, n in sources.items()
        for i in range(n)
    ]  # fmt: skip
    kinds = [
        {"source": s, "by": by, "name": name, "hurdles": 3.0, "share": share, "example": repr(hostile)}
        for s in ("rlvr", "distill/v1 α")
        for by, names, share in (("kind", ("number", "other"), 0.5), ("tenth", map(str, range(1, 11)), 0.1))
        for name in names
    ]
    prefix = [
        {"source": s, "law": law, "tokens": w, "excess": e, "low": e / 2, "high": min(1, 2 * e), "n": 64, "problems": 4}
        for s in ("rlvr", "distill/v1 α")
        for law in ("T=1", "every law")
        for w, e in ((1, 0.0), (10, 0.2), (30, 0.84))
    ]
    laws = [
        {"source": s, "law": law, "k": k, "excess": 0.8, "low": 0.7, "high": 0.9, "n": 64, "given_low": 0.75,
         "given_high": 0.85, "log_ratio": math.inf if law == "T=0.1" else 7.2}
        for s in ("base", "rlvr", "distill/v1 α")
        for law in ("T=1", "T=0.1")
        for k in (32.0, 64.0, 128.0)
    ]  # fmt: skip
    evidence = [
        {"source": s, "laws": law, "share_low": low, "no_log_q": why, "no_verdict": ""}
        for s, law, low, why in (
            ("rlvr", "T=1", 0.01, ""),
            ("distill/v1 α", "T=1", 0.4, ""),
            ("cool", "T=1", 0.0, ""),
            (hostile, None, nan, f"the model that produced {hostile} is not known"),
        )
    ]
    stretches = [
        {"source": "rlvr", "key": "rlvr/p0/1", "problem": "p0", "position": 3, "tokens": 32, "nats": 12.5,
         "text": f"{hostile} " * 9, "correct": False}
    ]  # fmt: skip
    tables = {"hurdles": places, "hurdle_kinds": kinds, "prefix": prefix, "laws": laws, "evidence": evidence}
    return {name: pd.DataFrame(rows) for name, rows in (tables | {"stretches": stretches}).items()}
