//! Whether the broker got dearer: CPU time per record now against before, beyond the noise of both.
//!
//! Rates and latencies of a shared machine change from minute to minute; CPU time per record changes
//! least, so the verdict is on that alone.

use std::fmt::Write;

use crate::client::Failure;
use crate::comparison;
use crate::history::{self, Figure, Figures};
use crate::options::GateOptions;

/// A change up to this part of the value before is never a regression.
const TOLERANCE_MIN: f64 = 0.15;
/// Nor is one up to so many deviations of the noisier side.
const DEVIATIONS: f64 = 3.0;
/// Noise above this part hides what the gate is for.
const NOISE_MAX: f64 = 0.5;
/// What is compared: the first that both sides have.
const DECIDING: [&str; 2] = [
    "cpu_seconds_per_million_records",
    "cpu_seconds_per_gigabyte",
];

/// A workload that has to be measured, now and before.
pub(crate) struct Pair {
    pub(crate) workload: String,
    pub(crate) now: Option<Figures>,
    /// With the commit it is of.
    pub(crate) before: Option<(String, Figures)>,
    /// Now over before, run by run, if the two took turns.
    pub(crate) ratios: Figures,
}

/// The workloads that were asked for, from reports and the ledger.
pub(crate) fn pairs(options: &GateOptions) -> Result<Vec<Pair>, Failure> {
    let reports = comparison::load(&options.file)?;
    let entries = match &options.ledger {
        Some(ledger) => history::load(ledger)?,
        None => Vec::new(),
    };
    let figures = |broker: &str, workload: &str| {
        let measured = history::measured(&reports, broker).into_iter();
        let mut of_it = measured.filter(|(name, _)| name == workload);
        of_it.next().map(|(_, figures)| figures)
    };
    let pair = |workload: &String| {
        let before = match &options.against {
            Some(other) => figures(other, workload).map(|figures| (other.clone(), figures)),
            None => history::last(&entries, workload)
                .map(|entry| (entry.commit.clone(), entry.figures.clone())),
        };
        let ratios = options.against.as_ref().map_or_else(Figures::new, |other| {
            history::ratios(&reports, workload, &options.broker, other)
        });
        Pair {
            workload: workload.clone(),
            now: figures(&options.broker, workload),
            before,
            ratios,
        }
    };
    Ok(options.workload.iter().map(pair).collect())
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Within the least tolerance.
    Same,
    /// More than that, and within the noise.
    Noise,
    Better,
    Regression,
    /// It has no earlier figure.
    New,
    /// It was not measured now: its run failed.
    Missing,
}

impl Verdict {
    fn is_failure(self) -> bool {
        matches!(self, Verdict::Regression | Verdict::Missing)
    }

    fn text(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::Noise => "within the noise",
            Verdict::Better => "better",
            Verdict::Regression => "REGRESSION",
            Verdict::New => "nothing to compare with",
            Verdict::Missing => "NOT MEASURED",
        }
    }
}

/// What is said of one workload.
#[derive(Debug)]
struct Judgement {
    workload: String,
    commit: String,
    unit: &'static str,
    before: Option<f64>,
    now: Option<f64>,
    change: Option<Change>,
    verdict: Verdict,
}

/// Of all workloads.
pub(crate) struct Outcome {
    judgements: Vec<Judgement>,
}

/// What changed: now over before less 1, and the part of it that counts as noise.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    change: f64,
    tolerance: f64,
}

impl Change {
    fn of(before: Figure, now: Figure) -> Change {
        let relative = |figure: Figure| DEVIATIONS * figure.deviation / figure.median;
        Change {
            change: now.median / before.median - 1.0,
            tolerance: TOLERANCE_MIN.max(relative(before)).max(relative(now)),
        }
    }

    fn of_ratio(ratio: Figure) -> Change {
        Change {
            change: ratio.median - 1.0,
            tolerance: TOLERANCE_MIN.max(DEVIATIONS * ratio.deviation),
        }
    }

    fn verdict(self) -> Verdict {
        if self.change > self.tolerance {
            Verdict::Regression
        } else if self.change < -self.tolerance {
            Verdict::Better
        } else if self.change.abs() > TOLERANCE_MIN {
            Verdict::Noise
        } else {
            Verdict::Same
        }
    }
}

/// The figure that decides, if it can be divided by.
fn deciding(figures: &Figures, field: &str) -> Option<Figure> {
    let figure = figures.get(field).copied()?;
    (figure.median > 0.0).then_some(figure)
}

fn unit(field: &str) -> &'static str {
    match field {
        "cpu_seconds_per_gigabyte" => "s/GB",
        _ => "s/M rec",
    }
}

fn judge_one(pair: &Pair) -> Judgement {
    let mut judgement = Judgement {
        workload: pair.workload.clone(),
        commit: pair
            .before
            .as_ref()
            .map_or_else(|| "-".to_owned(), |(commit, _)| commit.clone()),
        unit: "",
        before: None,
        now: None,
        change: None,
        verdict: Verdict::Missing,
    };
    let Some(figures) = &pair.now else {
        return judgement;
    };
    let measured = DECIDING
        .iter()
        .filter_map(|field| Some((*field, deciding(figures, field)?)));
    let measured: Vec<(&str, Figure)> = measured.collect();
    let Some((first, now)) = measured.first().copied() else {
        return judgement;
    };
    (judgement.unit, judgement.now) = (unit(first), Some(now.median));
    judgement.verdict = Verdict::New;
    let Some((_, earlier)) = &pair.before else {
        return judgement;
    };
    for (field, now) in measured {
        if let Some(before) = deciding(earlier, field) {
            judgement.unit = unit(field);
            (judgement.before, judgement.now) = (Some(before.median), Some(now.median));
            let ratio = pair.ratios.get(field).copied();
            let change = ratio.map_or_else(|| Change::of(before, now), Change::of_ratio);
            (judgement.change, judgement.verdict) = (Some(change), change.verdict());
            break;
        }
    }
    judgement
}

/// Says what became of every workload.
pub(crate) fn judge(pairs: &[Pair]) -> Outcome {
    Outcome {
        judgements: pairs.iter().map(judge_one).collect(),
    }
}

impl Outcome {
    /// No workload regressed, and every one was measured.
    pub(crate) fn is_good(&self) -> bool {
        !self
            .judgements
            .iter()
            .any(|judgement| judgement.verdict.is_failure())
    }

    /// No workload has an earlier figure.
    pub(crate) fn is_without_past(&self) -> bool {
        self.judgements
            .iter()
            .all(|judgement| judgement.before.is_none())
    }

    /// Some workload has no earlier figure.
    pub(crate) fn has_new(&self) -> bool {
        let mut judgements = self.judgements.iter();
        judgements.any(|judgement| judgement.verdict == Verdict::New)
    }

    /// Some workload varied so much that a doubling might have passed.
    pub(crate) fn is_noisy(&self) -> bool {
        let mut changes = self
            .judgements
            .iter()
            .filter_map(|judgement| judgement.change);
        changes.any(|change| change.tolerance > NOISE_MAX)
    }

    /// For the terminal.
    pub(crate) fn to_table(&self) -> String {
        let mut text = format!(
            "{:<48} {:<20} {:>9} {:>9} {:<8} {:>8} {:>6}  verdict\n",
            "broker CPU", "against", "before", "now", "", "change", "noise"
        );
        let number = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
        };
        for judgement in &self.judgements {
            let percent = |part: Option<f64>, text: fn(f64) -> String| {
                part.map_or_else(|| "-".to_owned(), |part| text(100.0 * part))
            };
            let change = judgement.change.map(|change| change.change);
            let change = percent(change, |percent| format!("{percent:+.1}%"));
            let noise = judgement.change.map(|change| change.tolerance);
            let noise = percent(noise, |percent| format!("{percent:.0}%"));
            let _ = writeln!(
                text,
                "{:<48} {:<20} {:>9} {:>9} {:<8} {change:>8} {noise:>6}  {}",
                judgement.workload,
                judgement.commit,
                number(judgement.before),
                number(judgement.now),
                judgement.unit,
                judgement.verdict.text()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(field: &'static str, values: &[f64]) -> Figures {
        let figure = Figure::of(values.to_vec()).expect("values");
        Figures::from([(field, figure)])
    }

    /// CPU seconds per million records, before and now.
    fn pair(before: &[f64], now: &[f64]) -> Pair {
        Pair {
            workload: "large".to_owned(),
            now: Some(figures(DECIDING[0], now)),
            before: Some(("abc".to_owned(), figures(DECIDING[0], before))),
            ratios: Figures::new(),
        }
    }

    fn verdict_of(pair: Pair) -> (Verdict, bool) {
        let outcome = judge(&[pair]);
        (outcome.judgements[0].verdict, outcome.is_good())
    }

    #[test]
    fn the_same_cost_is_no_regression() {
        let pair = pair(&[1.00, 1.01, 0.99], &[1.05, 1.04, 1.14]);
        assert_eq!(verdict_of(pair), (Verdict::Same, true));
    }

    #[test]
    fn a_higher_cost_than_the_noise_is_a_regression() {
        let pair = pair(&[1.00, 1.01, 0.99], &[1.22, 1.20, 1.21]);
        let outcome = judge(&[pair]);
        assert!(!outcome.is_good());
        let table = outcome.to_table();
        assert!(
            table.contains("+21.0%") && table.contains("REGRESSION"),
            "{table}"
        );
        assert!(table.contains("abc"), "{table}");
    }

    #[test]
    fn noise_of_either_side_widens_what_is_tolerated() {
        let noisy = [1.0, 1.4, 1.1, 1.5, 1.25];
        let steady = [1.0, 1.0, 1.01];
        assert_eq!(verdict_of(pair(&steady, &noisy)), (Verdict::Noise, true));
        let low = [0.8, 0.99, 1.1, 1.2, 0.9];
        assert_eq!(
            verdict_of(pair(&low, &[1.25, 1.25, 1.25])),
            (Verdict::Noise, true)
        );
        let far = noisy.map(|value| value * 3.0);
        assert_eq!(
            verdict_of(pair(&steady, &far)),
            (Verdict::Regression, false)
        );
    }

    #[test]
    fn ratios_of_turns_see_through_a_machine_that_changes() {
        let turns = Pair {
            ratios: figures(DECIDING[0], &[1.20, 1.21, 1.19]),
            ..pair(&[1.0, 2.0, 4.0], &[1.20, 2.42, 4.76])
        };
        assert_eq!(verdict_of(turns), (Verdict::Regression, false));
        let without = pair(&[1.0, 2.0, 4.0], &[1.20, 2.42, 4.76]);
        let outcome = judge(&[without]);
        assert!(outcome.is_good() && outcome.is_noisy());
        assert!(!judge(&[pair(&[1.0], &[1.0])]).is_noisy());
    }

    #[test]
    fn one_wild_run_decides_nothing() {
        let pair = pair(&[1.0, 1.0, 1.0], &[1.0, 7.0, 1.02]);
        assert_eq!(verdict_of(pair), (Verdict::Same, true));
    }

    #[test]
    fn a_lower_cost_is_better() {
        let pair = pair(&[1.0, 1.0, 1.0], &[0.7, 0.71, 0.69]);
        assert_eq!(verdict_of(pair), (Verdict::Better, true));
    }

    #[test]
    fn a_workload_that_was_not_measured_fails() {
        let pair = Pair {
            now: None,
            ..pair(&[1.0], &[1.0])
        };
        assert_eq!(verdict_of(pair), (Verdict::Missing, false));
        let without_cpu = Pair {
            now: Some(Figures::new()),
            ..self::pair(&[1.0], &[1.0])
        };
        assert_eq!(verdict_of(without_cpu), (Verdict::Missing, false));
    }

    #[test]
    fn a_workload_without_a_past_is_not_judged() {
        let new = Pair {
            before: None,
            ..pair(&[1.0], &[1.0])
        };
        let outcome = judge(&[new]);
        assert!(outcome.is_good() && outcome.is_without_past() && outcome.has_new());
        assert!(!judge(&[pair(&[1.0], &[1.0])]).is_without_past());
    }

    #[test]
    fn bytes_decide_where_one_side_counted_no_records() {
        let pair = Pair {
            workload: "read".to_owned(),
            now: Some(figures(DECIDING[1], &[2.0])),
            before: Some(("abc".to_owned(), figures(DECIDING[1], &[1.0]))),
            ratios: Figures::new(),
        };
        let outcome = judge(&[pair]);
        assert!(!outcome.is_good());
        assert!(outcome.to_table().contains("s/GB"));
    }
}
