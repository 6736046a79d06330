//! Each row of what is decided before a partition is read.

use uuid::Uuid;

use super::*;
use crate::pipeline::machine::tests::{at, settings, survey, t};
use crate::ports::{Progress, Suspension};

fn decided(settings: &Settings, survey: &Survey, partitions: &[i32]) -> String {
    match decide(settings, survey, &partitions.iter().map(|p| t(*p)).collect()) {
        Decision::Start(starts) => {
            let starts = starts.iter().map(|(source, at)| format!("{source}@{}", at.next));
            std::iter::once("start".to_owned()).chain(starts).collect::<Vec<_>>().join(" ")
        }
        Decision::CommitFirst(plan) => {
            let step = |(source, step): (&TopicPartition, &Advance)| {
                format!("{source} {}..{}", step.from.map_or(-1, |from| from.0), step.to.next)
            };
            let mut said = vec!["commit".to_owned()];
            said.extend(plan.advances.iter().map(step));
            said.extend(plan.gaps.iter().map(|gap| format!("gap {}..{}", gap.from, gap.to)));
            said.extend(plan.identity.topics.values().map(|topic| format!("incarnation {}", topic.incarnation)));
            said.join(" ")
        }
        Decision::Wait(_) => "wait".to_owned(),
        Decision::Suspended(_) => "suspended".to_owned(),
        Decision::Halt(_) => "halt".to_owned(),
    }
}

#[test]
fn start_is_resolved_once_and_for_all_partitions() {
    let found = |at_time: &[(i32, i64)]| {
        let mut survey = survey(Recovery::Fresh, &[(3, 9), (0, 4)]);
        survey.at_time = at_time.iter().map(|(p, next)| (t(*p), NextOffset(*next))).collect();
        survey
    };
    let check = |start: StartAt, expected: &str| {
        let settings = Settings { start, ..settings() };
        assert_eq!(decided(&settings, &found(&[(0, 5)]), &[1]), expected);
    };
    check(StartAt::Earliest, "commit t[0] -1..3 t[1] -1..0 incarnation 0");
    check(StartAt::Latest, "commit t[0] -1..9 t[1] -1..4 incarnation 0");
    check(StartAt::Timestamp(1), "commit t[0] -1..5 t[1] -1..4 incarnation 0");
    check(StartAt::Offsets([(1, 2)].into()), "commit t[0] -1..3 t[1] -1..2 incarnation 0");
}

#[test]
fn a_known_partition_goes_on_from_the_ledger() {
    let known = |positions: &[(i32, i64)], logs: &[(i64, i64)]| survey(Recovery::At(at(positions)), logs);
    let latest = Settings { start: StartAt::Latest, ..settings() };
    let lenient =
        Settings { on_gap: OnGap::Continue, on_topic_change: OnTopicChange::NewIncarnation, ..latest.clone() };
    assert_eq!(decided(&latest, &known(&[(0, 5)], &[(0, 9)]), &[0]), "start t[0]@5");
    assert_eq!(
        decided(&latest, &known(&[(0, 5)], &[(0, 9), (0, 7)]), &[0, 1]),
        "commit t[1] -1..0 incarnation 0",
        "a new partition"
    );
    assert_eq!(decided(&latest, &known(&[(0, 5)], &[(6, 9)]), &[0]), "halt", "a gap");
    assert_eq!(decided(&lenient, &known(&[(0, 5)], &[(6, 9)]), &[0]), "commit t[0] 5..6 gap 5..6");
    assert_eq!(decided(&latest, &known(&[(0, 5)], &[(0, 4)]), &[0]), "halt", "the ledger is above the log's end");
    assert_eq!(decided(&lenient, &known(&[(0, 5)], &[(0, 4)]), &[0]), "commit t[0] -1..0 incarnation 1");
    assert_eq!(decided(&latest, &known(&[(0, 5)], &[(0, 9)]), &[]), "start");
}

#[test]
fn another_source_under_the_name_is_a_change() {
    let lenient = Settings { on_topic_change: OnTopicChange::NewIncarnation, ..settings() };
    let check = |change: &dyn Fn(&mut TopicFacts), strict: &str, then: &str| {
        let mut found = survey(Recovery::At(at(&[(0, 5)])), &[(0, 9)]);
        found.topics.values_mut().flatten().for_each(change);
        assert_eq!(
            (decided(&settings(), &found, &[0]).as_str(), decided(&lenient, &found, &[0]).as_str()),
            (strict, then)
        );
    };
    check(&|_| {}, "start t[0]@5", "start t[0]@5");
    check(&|facts| facts.topic_id = Some(Uuid::from_u128(2)), "halt", "commit t[0] -1..0 incarnation 1");
    check(&|facts| facts.cluster_id = "other".to_owned(), "halt", "commit t[0] -1..0 incarnation 1");
    check(&|facts| facts.topic_id = None, "start t[0]@5", "start t[0]@5");
    check(&|facts| facts.cluster_id = String::new(), "start t[0]@5", "start t[0]@5");
}

#[test]
fn a_table_that_cannot_be_gone_on_with_says_so() {
    let suspension = Some(Suspension { reason: "bad".to_owned(), since_ms: 1 });
    let suspended = Recovery::At(Progress { suspension, ..at(&[(0, 5)]) });
    assert_eq!(decided(&settings(), &survey(suspended, &[(0, 9)]), &[0]), "suspended");
    assert_eq!(decided(&settings(), &survey(Recovery::Halted("rolled back".to_owned()), &[(0, 9)]), &[0]), "halt");
    let mut gone = survey(Recovery::At(at(&[(0, 5)])), &[(0, 9)]);
    gone.topics.insert("t".to_owned(), None);
    assert_eq!(decided(&settings(), &gone, &[0]), "wait");
    let mut leaderless = survey(Recovery::At(at(&[(0, 5)])), &[(0, 9)]);
    leaderless.watermarks.clear();
    assert_eq!(decided(&settings(), &leaderless, &[0]), "wait");
}
