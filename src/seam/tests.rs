//! Views as prefixes: by example, and by property for every order of events.

use std::collections::BTreeSet;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::ledger::{Ledger, Position, TopicLedger};
use crate::model::schema::{Field, Type};
use crate::ports::{Progress, Recovery};

fn source(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn version(sequence_number: i64, positions: &[i64]) -> TableState {
    let at = |next: &i64| Position { next: NextOffset(*next), leader_epoch: None };
    let partitions = (0..).zip(positions.iter().map(at)).collect();
    let topics = BTreeMap::from([("t".to_owned(), TopicLedger { partitions, ..TopicLedger::default() })]);
    TableState {
        table: "a.b".parse().unwrap(),
        uuid: Uuid::from_u128(1),
        snapshot_id: Some(sequence_number),
        sequence_number,
        schema: Arc::default(),
        recovery: Recovery::At(Progress { ledger: Ledger { topics, ..Ledger::default() }, ..Progress::default() }),
        rows: 0,
        newest_ms: None,
        properties: Arc::default(),
        shape: Arc::default(),
    }
}

/// The offsets `first..next` of a partition, one row each.
fn batch(partition: i32, first: i64, next: i64) -> TailBatch {
    let schema = TableSchema { schema_id: 0, ..TableSchema::of(vec![Field::required("offset", Type::Long)]) };
    let column = Arc::new(Int64Array::from_iter_values(first..next));
    let rows = RecordBatch::try_new(schema.to_arrow(), vec![column]).unwrap();
    let (first, next) = (NextOffset(first), NextOffset(next));
    TailBatch {
        source: source(partition),
        first,
        next,
        newest_ms: Some(next.0),
        schema: Arc::new(schema),
        rows,
        offset_column: 0,
    }
}

/// The rows of a view's tail: partition and offset.
fn rows(view: &View) -> Vec<(i32, i64)> {
    let of = |batch: &TailBatch| {
        let offsets = batch.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        let partition = batch.source.partition;
        offsets.into_iter().map(move |offset| (partition, offset))
    };
    view.tail.iter().flat_map(of).collect()
}

fn seam() -> Seam {
    Seam::new(Budget::new("tail", usize::MAX))
}

#[test]
fn nothing_is_seen_before_the_table() {
    let seam = seam();
    seam.append(batch(0, 0, 2));
    assert!(seam.now().is_none() && seam.version().is_none());
}

#[test]
fn a_commit_moves_rows_from_the_tail_to_the_version() {
    let seam = seam();
    seam.publish(&version(1, &[5, 0]));
    seam.append(batch(0, 5, 7));
    seam.append(batch(0, 7, 10));
    seam.append(batch(1, 0, 1));
    let before = seam.now().unwrap();
    assert_eq!(rows(&before), [(0, 5), (0, 6), (0, 7), (0, 8), (0, 9), (1, 0)]);
    assert_eq!(before.as_of.offsets, BTreeMap::from([(source(0), NextOffset(10)), (source(1), NextOffset(1))]));
    assert_eq!(before.as_of.newest_ms, Some(10));
    seam.publish(&version(2, &[7, 1]));
    let after = seam.now().unwrap();
    assert_eq!(rows(&after), [(0, 7), (0, 8), (0, 9)]);
    assert_eq!((after.as_of.offsets, after.as_of.snapshot_id), (before.as_of.offsets.clone(), Some(2)));
    // Who read before still has what it took.
    assert_eq!(rows(&before).len(), 6);
    assert_eq!(seam.version().unwrap().offsets()[&source(0)], NextOffset(7));
}

#[test]
fn an_older_version_is_passed_over() {
    let seam = seam();
    seam.publish(&version(2, &[7]));
    seam.publish(&version(1, &[5]));
    assert_eq!(seam.now().unwrap().as_of.snapshot_id, Some(2));
}

#[test]
fn what_another_writer_committed_of_a_batch_leaves_the_tail() {
    let seam = seam();
    seam.publish(&version(1, &[0]));
    seam.append(batch(0, 0, 4));
    seam.publish(&version(2, &[3]));
    let view = seam.now().unwrap();
    assert_eq!((rows(&view), view.as_of.offsets[&source(0)]), (vec![(0, 3)], NextOffset(4)));
}

#[test]
fn a_follower_shows_what_others_commit_and_leaves_what_is_kept() {
    let seam = seam();
    seam.attend();
    seam.keep([source(0)].iter());
    seam.publish(&version(1, &[0, 5]));
    assert_eq!(seam.others().into_keys().collect::<Vec<_>>(), [source(1)]);
    // A batch that begins below the ledger, one that goes on, and one of a partition that is this process's own.
    seam.follow(batch(1, 3, 7));
    seam.follow(batch(1, 7, 9));
    seam.follow(batch(0, 0, 2));
    seam.append(batch(0, 0, 1));
    assert_eq!(rows(&seam.now().unwrap()), [(0, 0), (1, 5), (1, 6), (1, 7), (1, 8)]);
    assert_eq!(seam.others()[&source(1)].next, NextOffset(9));
    assert_eq!(seam.held().1.len(), 1, "what others commit is not this process's to index");
    // The other's commit ends inside a batch.
    seam.publish(&version(2, &[0, 6]));
    assert_eq!(rows(&seam.now().unwrap()), [(0, 0), (1, 6), (1, 7), (1, 8)]);
    // What this process drops is its own.
    seam.clear();
    assert_eq!(rows(&seam.now().unwrap()), [(1, 6), (1, 7), (1, 8)]);
    // The partition becomes its own: it reads from the ledger.
    seam.keep([source(1)].iter());
    seam.follow(batch(1, 9, 10));
    assert_eq!(rows(&seam.now().unwrap()), []);
    seam.append(batch(1, 6, 8));
    assert_eq!(rows(&seam.now().unwrap()), [(1, 6), (1, 7)]);
    seam.release(&[source(1)]);
    seam.follow(batch(1, 6, 7));
    seam.unfollow(&source(1));
    assert_eq!(rows(&seam.now().unwrap()), []);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_view_waits_for_a_follower_within_bounds() {
    let (seam, clock, least) = (seam(), Clock::simulated(1), BTreeMap::new());
    seam.attend();
    seam.publish(&version(1, &[0]));
    let limit = Duration::from_secs(30);
    let (view, ()) = tokio::join!(seam.fresh(&least, &clock, limit), async {
        seam.next_ask().await;
        seam.follow(batch(0, 0, 3));
        tokio::task::yield_now().await;
        seam.follow(batch(0, 3, 4));
        seam.settle(&source(0));
    });
    assert_eq!(rows(&view.unwrap()).len(), 4);
    // One that reads and reads is not waited for for ever.
    seam.unfollow(&source(0));
    let until = clock.elapsed() + FOLLOW_PATIENCE;
    assert_eq!(rows(&seam.fresh(&least, &clock, limit).await.unwrap()), []);
    assert_eq!(clock.elapsed(), until);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_budget_a_fresh_view_waits_for_the_commit() {
    let seam = Seam::new(Budget::new("tail", 1));
    let (clock, least, limit) = (Clock::simulated(1), BTreeMap::new(), Duration::from_secs(3));
    seam.publish(&version(1, &[0]));
    seam.append(batch(0, 0, 2));
    seam.append(batch(0, 2, 4));
    assert!(seam.now().is_none(), "the first batch was let go");
    let error = seam.fresh(&least, &clock, limit).await.unwrap_err();
    assert!(error.chain().contains("outgrew its memory"), "{}", error.chain());
    let (view, ()) = tokio::join!(seam.fresh(&least, &clock, limit), async { seam.publish(&version(2, &[2])) });
    assert_eq!(rows(&view.unwrap()), [(0, 2), (0, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_may_wait_for_an_offset() {
    let (seam, clock) = (seam(), Clock::simulated(1));
    seam.publish(&version(1, &[0]));
    let least = BTreeMap::from([(source(0), NextOffset(4))]);
    let (view, ()) = tokio::join!(seam.fresh(&least, &clock, Duration::from_secs(3)), async {
        seam.append(batch(0, 0, 2));
        seam.append(batch(0, 2, 4));
    });
    assert_eq!(rows(&view.unwrap()).len(), 4);
}

#[derive(Debug, Clone)]
enum Step {
    Poll(i32, i64),
    Commit(i32),
    /// Another process commits that many of the records read.
    Overtake(i32, i64),
    Abandon,
    Release(i32),
}

proptest! {
    /// Whatever happens in whatever order, a view is the prefix of each partition up to its `as_of`: what the version
    /// holds and what the tail holds are neighbours, without a gap and without a record in both (invariant I6).
    #[test]
    fn every_view_is_a_prefix(steps in prop::collection::vec(prop_oneof![
        6 => (0..3i32, 1..5i64).prop_map(|(p, n)| Step::Poll(p, n)),
        3 => (0..3i32).prop_map(Step::Commit),
        1 => (0..3i32, 1..5i64).prop_map(|(p, n)| Step::Overtake(p, n)),
        1 => Just(Step::Abandon),
        1 => (0..3i32).prop_map(Step::Release),
    ], 1..80)) {
        let seam = seam();
        let (mut committed, mut read, mut sequence) = ([0i64; 3], [0i64; 3], 1);
        seam.publish(&version(sequence, &committed));
        for step in steps {
            match step {
                Step::Poll(p, n) => {
                    let at = &mut read[usize::try_from(p).unwrap()];
                    seam.append(batch(p, *at, *at + n));
                    *at += n;
                }
                Step::Commit(p) => {
                    let p = usize::try_from(p).unwrap();
                    committed[p] = committed[p].max(read[p]);
                    sequence += 1;
                    seam.publish(&version(sequence, &committed));
                }
                Step::Overtake(p, n) => {
                    let p = usize::try_from(p).unwrap();
                    committed[p] = (committed[p] + n).min(read[p]);
                    sequence += 1;
                    seam.publish(&version(sequence, &committed));
                }
                Step::Abandon => {
                    seam.clear();
                    read = committed;
                }
                Step::Release(p) => {
                    seam.release(&[source(p)]);
                    let p = usize::try_from(p).unwrap();
                    read[p] = committed[p];
                }
            }
            let view = seam.now().unwrap();
            let seen = rows(&view);
            let expected: BTreeSet<_> = (0..3usize)
                .flat_map(|p| (committed[p]..read[p]).map(move |offset| (i32::try_from(p).unwrap(), offset)))
                .collect();
            prop_assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), expected);
            prop_assert_eq!(seen.len(), (0..3).map(|p| usize::try_from(read[p] - committed[p]).unwrap()).sum::<usize>());
        }
    }
}
