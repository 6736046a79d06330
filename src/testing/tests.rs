//! Seeds in bulk, one seed again, and each rule shown to be needed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::simulation::{Report, run};
use crate::rule::{self, Rule};

/// Seeds of a run that does not say otherwise.
const SEEDS: u64 = 300;
/// Seeds that may be tried until breaking a rule shows; most show within thirty.
const SEEDS_PER_RULE: u64 = 2_000;
/// Threads that they are spread over.
const THREADS: u64 = 2;

#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn failure(seed: u64, report: &Report) -> String {
    format!(
        "seed {seed} failed:\n  {}\n\n{}\n\nthe last events:\n{}\n\nagain: \
         FRAZIL_SEED={seed} cargo test --features testing --lib simulation_holds",
        report.wrong.join("\n  "),
        report.scenario,
        report.trace.join("\n"),
    )
}

#[test]
fn simulation_holds() {
    if let Some(seed) = number("FRAZIL_SEED") {
        let report = run(seed).unwrap();
        assert!(report.wrong.is_empty(), "{}", failure(seed, &report));
        return;
    }
    let seeds = number("FRAZIL_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let rows = AtomicU64::new(0);
    let failures: Vec<(u64, Report)> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return failed;
                }
                let report = run(seed).unwrap();
                rows.fetch_add(report.rows as u64, Ordering::Relaxed);
                if !report.wrong.is_empty() {
                    failed.push((seed, report));
                }
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{seeds} seeds, {} rows", rows.load(Ordering::Relaxed));
    let list: Vec<_> = failures.iter().map(|(seed, report)| format!("{seed}: {}", report.wrong[0])).collect();
    assert!(
        failures.is_empty(),
        "{}\n{} of {seeds} failed:\n{}",
        failure(failures[0].0, &failures[0].1),
        list.len(),
        list.join("\n")
    );
}

#[test]
fn simulation_repeats() {
    for seed in 0..6 {
        let (first, again) = (run(seed).unwrap(), run(seed).unwrap());
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}

#[test]
fn simulation_needs_every_rule() {
    let seeds = number("FRAZIL_SEEDS").unwrap_or(SEEDS_PER_RULE);
    let needed = |rule: Rule| {
        rule::break_on_this_thread(Some(rule));
        let found = (0..seeds).find_map(|seed| {
            let report = run(seed).unwrap();
            report.wrong.first().map(|wrong| format!("{rule:?}: seed {seed}: {wrong}"))
        });
        rule::break_on_this_thread(None);
        found.unwrap_or_else(|| format!("{rule:?} is not needed"))
    };
    let (even, odd): (Vec<_>, Vec<_>) = Rule::ALL.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads = [even, odd]
            .map(|rules| scope.spawn(move || rules.into_iter().map(|(_, rule)| needed(rule)).collect::<Vec<_>>()));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{}", found.join("\n"));
    assert!(!found.iter().any(|text| text.ends_with("is not needed")), "{}", found.join("\n"));
}
