"""How often rules say that a model beats the mean matrix: where it does not, and where it does.

    python benchmarks/verdicts.py

Skills of a study's units (subjects, folds) are drawn from a distribution; each rule sees the same ones. Two things can
be meant by "no better": the mean skill is 0, or a unit is as likely to win as to lose (the median is 0). They differ
where skills are skewed, which they are, being bounded above by 1 and not below. No rule can keep the first for every
distribution: a rare unit in which the model fails badly is in no small sample (last row of that block).

Prints Markdown: per cent of draws in which a rule says "beats", with 5, 6, 10 and 20 units.
"""

import argparse
import time
from functools import partial

import numpy as np
from machine import describe, row, table
from motorsweep.learn.matrix_comparison import mean_interval, sign_test, verdict_of
from motorsweep.learn.resampling import expansion
from scipy import stats
from threadpoolctl import threadpool_limits

UNITS = (5, 6, 10, 20)
RESAMPLES = 2000
CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2


def normal(generator, shape, mean, sd):
    return generator.normal(mean, sd, size=shape)


def one_less_gamma(generator, shape, order, scale):
    """1 - error ratio, where the ratio is of a gamma distribution; order 1 is the exponential one."""
    return 1 - scale * generator.gamma(order, size=shape)


def one_less_lognormal(generator, shape, mean, sd):
    """1 - error ratio; mean and sd are of the ratio's logarithm."""
    return 1 - np.exp(generator.normal(mean, sd, size=shape))


def rarely_ruinous(generator, shape):
    """A unit in ten has a skill of -3, the others one of a third: 0 in the mean."""
    return np.where(generator.random(shape) < 0.1, -3.0, generator.normal(1 / 3, 0.2, size=shape))


DRAWS = {
    "mean skill is 0": {
        "normal, sd 0.2": partial(normal, mean=0, sd=0.2),
        "1 − Gamma(4)/4": partial(one_less_gamma, order=4, scale=0.25),
        "1 − Exp(1)": partial(one_less_gamma, order=1, scale=1),
        "1 − lognormal, sd 0.5": partial(one_less_lognormal, mean=-0.125, sd=0.5),
        "1 − lognormal, sd 1": partial(one_less_lognormal, mean=-0.5, sd=1),
        "−3 in a tenth, else 0.33 ± 0.2": rarely_ruinous,
    },
    "median skill is 0": {
        "1 − Exp(1)/ln 2": partial(one_less_gamma, order=1, scale=1 / np.log(2)),
        "1 − lognormal, sd 0.5": partial(one_less_lognormal, mean=0, sd=0.5),
        "1 − lognormal, sd 1": partial(one_less_lognormal, mean=0, sd=1),
    },
    "the model is better": {
        "normal, 0.2 ± 0.2": partial(normal, mean=0.2, sd=0.2),
        "normal, 0.4 ± 0.2": partial(normal, mean=0.4, sd=0.2),
        "1 − lognormal, −0.5 ± 0.5": partial(one_less_lognormal, mean=-0.5, sd=0.5),
        "1 − lognormal, −1 ± 0.5": partial(one_less_lognormal, mean=-1, sd=0.5),
    },
}


def by_percentiles(skills):
    """The rule before: percentiles of the bootstrapped mean, widened for few units (Hesterberg 2015)."""
    units = skills.shape[1]
    times = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=RESAMPLES).T / units
    level = stats.norm.cdf(expansion(units, CONFIDENCE) * stats.norm.ppf(TAIL))
    return np.quantile(skills @ times, level, axis=1) > 0


def by_student(values):
    """Student's interval of the mean."""
    return stats.ttest_1samp(values, 0, axis=1, alternative="greater").pvalue <= TAIL


def by_log_ratio(skills):
    """Student's interval of the mean logarithm of the error ratio, a scale that is symmetric by construction."""
    return by_student(-np.log(np.maximum(1 - skills, 1e-9)))


def by_lognormal_mean(skills):
    """Generalised interval of the mean error ratio, if that is lognormal (Krishnamoorthy & Mathew 2003)."""
    logs, generator = np.log(np.maximum(1 - skills, 0.05)), np.random.default_rng(0)
    units = logs.shape[1]
    z = generator.standard_normal(RESAMPLES)
    u = np.sqrt(generator.chisquare(units - 1, RESAMPLES) / (units - 1))
    mean, sd = logs.mean(axis=1)[:, None], logs.std(axis=1, ddof=1)[:, None]
    return np.quantile(mean - z / u / np.sqrt(units) * sd + (sd / u) ** 2 / 2, 1 - TAIL, axis=1) < 0


def by_bootstrap_t(skills):
    return mean_interval(skills, CONFIDENCE, resamples=RESAMPLES)[:, 0] > 0


def by_signs(skills):
    return sign_test(skills)[0] <= 0.05


def ours(skills):
    """What a study's verdict says."""
    interval = mean_interval(skills, CONFIDENCE, resamples=RESAMPLES)
    return verdict_of(skills.shape[1], skills.mean(axis=1), interval, *sign_test(skills)) == "beats"


RULES = {
    "percentiles (before)": by_percentiles,
    "Student": by_student,
    "Student, log error ratio": by_log_ratio,
    "lognormal mean": by_lognormal_mean,
    "bootstrap-t": by_bootstrap_t,
    "sign test": by_signs,
    "bootstrap-t and sign test (ours)": ours,
}


def shares(draw, count, seed=0) -> dict[str, list[float]]:
    """Per cent of draws in which each rule says "beats", by number of units."""
    found = {name: [] for name in RULES}
    for units in UNITS:
        skills = draw(np.random.default_rng([seed, units]), (count, units))
        for name, rule in RULES.items():
            found[name].append(100 * float(rule(skills).mean()))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000, help="studies of each kind (default 4000)")
    arguments = parser.parse_args()
    began = time.perf_counter()
    print(describe(threads=1))
    for about, draws in DRAWS.items():
        print(f"\n{about}; 'beats', per cent, with {', '.join(map(str, UNITS))} units")
        table("skills", *RULES)
        for name, draw in draws.items():
            with threadpool_limits(1):
                found = shares(draw, arguments.draws)
            row(name, *(" / ".join(f"{value:.1f}" for value in values) for values in found.values()))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
