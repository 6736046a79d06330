//! One case each: what becomes a row and what does not, and everything that may come between a replay and its commit.

use std::time::Duration;

use super::Body::{Garbage, Of};
use super::*;
use crate::error::ErrorKind;
use crate::lake::ResumeFrom;
use crate::lake::catalog::memory::Fault;
use crate::testing::filter::ByOffset;

/// Two topics, three partitions, four files of letters: 2 rows and 7 letters, of which 5 are of schema 2.
async fn world() -> World {
    let world = World::new(Evolution::Extend).await;
    world.ingest("a", 0, &[Of(1, 1), Of(2, 2), Garbage, Of(1, 3)]).await;
    world.ingest("a", 1, &[Of(2, 4), Of(3, 5)]).await;
    world.ingest("b", 0, &[Of(2, 6)]).await;
    world.ingest("a", 0, &[Of(2, 7), Of(2, 8)]).await;
    world
}

fn still(replay: &Replay) -> Vec<(&'static str, u64)> {
    replay.still.iter().map(|still| (still.reason, still.letters)).collect()
}

#[tokio::test]
async fn letters_become_rows_once_their_schema_is_known() {
    let world = world().await;
    let before = world.state().await;
    let replay = world.replay().await;
    assert_eq!(still(&replay), [("unknown_schema_id", 6), ("bad_magic_byte", 1)]);
    assert_eq!((replay.rows, replay.commits), (0, 0));
    assert_eq!(world.state().await.snapshot_id, before.snapshot_id, "nothing is committed for nothing");

    world.registry.learn(schema(2));
    let replay = world.replay().await;
    assert_eq!((replay.rows, replay.present, replay.ahead, replay.commits), (5, 0, 0, 1));
    assert_eq!(still(&replay), [("bad_magic_byte", 1), ("unknown_schema_id", 1)]);
    assert_eq!(world.check().await, (7, 2));
    let after = world.state().await;
    assert_eq!(World::ledger(&after), World::ledger(&before), "the ledger is carried as it was");
    assert_eq!(after.newest_ms, before.newest_ms);
    assert!(after.schema.field("s2").is_some(), "the table was evolved");

    assert_eq!(world.replay().await.commits, 0, "and not again");
    world.registry.learn(schema(3));
    assert_eq!(world.replay().await.rows, 1);
    assert_eq!(world.check().await, (8, 1));
    // What comes then goes on behind the ledger.
    world.ingest("a", 1, &[Of(3, 9), Garbage]).await;
    assert_eq!(world.check().await, (9, 2));
    let loaded = world.catalog.load(&world.table().dead_letters()).await.unwrap().unwrap();
    let operations = loaded.metadata.snapshots().map(|snapshot| snapshot.summary().operation.as_str().to_owned());
    assert_eq!(operations.filter(|operation| operation == "overwrite").count(), 2);
}

#[tokio::test]
async fn only_the_letters_that_were_chosen_are_tried() {
    let all = Choice::default;
    let records = ["a/0/1", "b/0/0", "a/0/2"].map(|id| id.parse().unwrap()).into();
    for (choice, rows) in [
        (Choice { topic: Some("a".to_owned()), ..all() }, 4),
        (Choice { reasons: ["bad_magic_byte".to_owned()].into(), ..all() }, 0),
        (Choice { records, ..all() }, 2),
        (Choice { since_ms: Some(i64::MAX), ..all() }, 0),
        (Choice { since_ms: Some(0), ..all() }, 5),
    ] {
        let world = world().await;
        world.registry.learn(schema(2));
        let replay = world.replay_by(&world.lake, &choice).await.unwrap();
        assert_eq!(replay.rows, rows, "{choice:?}");
        assert_eq!(world.check().await, (2 + usize::try_from(rows).unwrap(), 7 - usize::try_from(rows).unwrap()));
    }
}

#[tokio::test]
async fn letters_are_listed_and_shown() {
    let world = world().await;
    let tallies = tally(&world.lake, world.table(), &Choice::default()).await.unwrap().unwrap();
    let first = &tallies[0];
    let shown = (first.reason.as_str(), first.topic.as_str(), first.letters, first.first.as_str());
    assert_eq!(shown, ("unknown_schema_id", "a", 5, "a/0/1"));
    assert!(first.first_ms <= first.newest_ms && first.newest.starts_with("a/"), "{first:?}");
    assert_eq!(tallies.len(), 3);
    let choice = Choice { records: ["a/0/2".parse().unwrap()].into(), ..Choice::default() };
    let letters = find(&world.lake, world.table(), &choice, 9, None).await.unwrap();
    let letter = &letters[0];
    assert_eq!((letter.reason.as_str(), letter.key_bytes, letter.value_bytes), ("bad_magic_byte", Some(2), Some(7)));
    assert_eq!((letter.timestamp_ms, &letter.content, &letter.headers[0].value), (Some(1_000_002), &None, &None));
    assert_eq!((letter.headers[0].name.as_str(), letter.headers[0].bytes), ("h", Some(1)));
    let letters = find(&world.lake, world.table(), &choice, 9, Some(None)).await.unwrap();
    let content = letters[0].content.as_ref().unwrap();
    assert_eq!(content.value.as_ref().unwrap().content, "garbage");
    assert_eq!(content.key.as_ref().unwrap().content, "k2");
    assert_eq!(find(&world.lake, world.table(), &Choice::default(), 3, None).await.unwrap().len(), 3);
    let other: TableName = "no.such".parse().unwrap();
    assert_eq!(tally(&world.lake, &other, &Choice::default()).await.unwrap(), None);
    let error = find(&world.lake, &other, &Choice::default(), 1, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let world = world().await;
    world.registry.learn(schema(2));
    let places = async || {
        let (main, letters) = (world.table().clone(), world.table().dead_letters());
        [world.catalog.location(&main).await.unwrap(), world.catalog.location(&letters).await.unwrap()]
    };
    let before = places().await;
    let mut dry = Replay::default();
    world.replayer(&world.lake).run(&Choice::default(), true, &mut dry, &|_| {}).await.unwrap();
    assert_eq!(places().await, before);
    let real = world.replay().await;
    assert_eq!(Replay { commits: 1, ..dry }, real);
    assert_eq!(world.check().await, (7, 2));
}

#[tokio::test]
async fn schemas_that_a_strict_table_cannot_take_stay_letters_alone() {
    let world = World::new(Evolution::Strict).await;
    world.ingest("a", 0, &[Of(2, 1), Of(7, 2), Of(2, 3), Of(7, 4), Of(1, 5)]).await;
    world.registry.learn(schema(2));
    let text = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"string"}]}"#.to_owned();
    world.registry.learn(RegisteredSchema { id: 7, text, ..schema(1) });
    let replay = world.replay().await;
    assert_eq!((replay.rows, still(&replay)), (2, vec![("incompatible_schema", 2)]));
    assert!(replay.still[0].message.contains("`n`"), "{:?}", replay.still);
    assert_eq!(world.check().await, (3, 2));
}

#[tokio::test]
async fn letters_of_a_compacted_table_are_replayed_and_the_rest_is_compacted_again() {
    let world = world().await;
    let letters = world.table().dead_letters();
    world.compact(&letters).await;
    let (_, files) = world.lake.letter_files(&letters).await.unwrap().unwrap();
    assert_eq!(files.len(), 1);
    world.registry.learn(schema(2));
    assert_eq!(world.replay().await.rows, 5);
    // Two more, so that a compaction is worth it.
    world.ingest("b", 0, &[Garbage]).await;
    world.ingest("b", 0, &[Garbage]).await;
    world.compact(&letters).await;
    assert_eq!(world.check().await, (7, 4));
    let (_, files) = world.lake.letter_files(&letters).await.unwrap().unwrap();
    assert_eq!((files.len(), files[0].rows()), (1, 4));
}

#[tokio::test]
async fn two_replays_at_once_bring_each_record_once() {
    let world = world().await;
    world.registry.learn(schema(2));
    let ((one, _), (two, _)) = (world.beside(), world.beside());
    let choice = Choice::default();
    let (first, second) = futures::join!(world.replay_by(&one, &choice), world.replay_by(&two, &choice));
    assert_eq!(first.unwrap().rows + second.unwrap().rows, 5);
    assert_eq!(world.check().await, (7, 2));
    // The lease keeps a second one out for as long as the first is at it.
    let letters = world.table().dead_letters();
    let (mut first, mut second) = (Replay::default(), Replay::default());
    world.registry.learn(schema(3));
    let (one, two) = (world.replayer(&one), world.replayer(&two));
    let (one, two) =
        futures::join!(one.run(&choice, false, &mut first, &|_| {}), two.run(&choice, false, &mut second, &|_| {}));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(first.rows + second.rows, 1);
    let (lease, now_ms) = (format!("maintain {letters}"), world.clock.now_ms());
    let taken = world.catalog.take_lease(&lease, "other", now_ms, i64::MAX).await.unwrap();
    assert!(taken, "the lease was not given back");
    assert_eq!(world.check().await, (8, 1));
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_request_it_is_all_or_nothing() {
    for is_sent in [false, true] {
        let mut deaths = 0;
        loop {
            let world = world().await;
            world.registry.learn(schema(2));
            let (lake, by) = world.beside();
            *by.alive_for.lock().unwrap() = Some((deaths, is_sent));
            let ended = world.replay_until_dead(&lake, &by).await;
            let (rows, letters) = world.check().await;
            assert!((rows, letters) == (2, 7) || (rows, letters) == (7, 2), "{rows} rows and {letters} letters");
            assert_eq!(world.replay().await.rows, 7 - rows as u64, "after {deaths} requests");
            assert_eq!(world.check().await, (7, 2));
            if let Some(ended) = ended {
                assert_eq!(ended.unwrap().rows, 5);
                break;
            }
            deaths += 1;
        }
        assert!(deaths >= 8, "{deaths}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_the_commits_answer() {
    let hold = |seconds| Fault::Hold(Duration::from_secs(seconds));
    for (faults, succeeds) in [
        (vec![Fault::FailAfterWrite], true),
        (vec![Fault::LoseRequest], true),
        (vec![hold(0)], true),
        (vec![hold(3600)], true),
        (vec![hold(1), Fault::LoseRequest, Fault::FailAfterWrite], true),
        (vec![Fault::Conflict; 5], true),
        (vec![Fault::Conflict; 100], false),
        (vec![Fault::Reject], false),
        (vec![Fault::LoseRequest, Fault::Reject, Fault::Conflict], true),
    ] {
        let world = world().await;
        world.registry.learn(schema(2));
        // The table is evolved first; what goes wrong is the commit of both tables.
        let (mut left, mut commits) = (faults.clone().into_iter(), 0);
        let choose = move |request: &str| {
            commits += usize::from(request == "commit");
            if request == "commit" && commits > 1 { left.next() } else { None }
        };
        let catalog = world.catalog.with_faults(Arc::new(Mutex::new(choose)));
        let lake = lake(Arc::new(catalog), &world.stores, &world.clock);
        let replay = world.replay_by(&lake, &Choice::default()).await;
        assert_eq!(replay.is_ok(), succeeds, "{faults:?}: {replay:?}");
        if let Ok(replay) = replay {
            assert_eq!((replay.rows, replay.commits), (5, 1), "{faults:?}");
        }
        world.catalog.land_held();
        world.replay().await;
        assert_eq!(world.check().await, (7, 2), "{faults:?}");
    }
}

/// A replay before whose second commit (the first adds a column) this happens.
async fn interrupted(world: &World, hook: impl FnOnce(World) -> BoxFuture<'static, ()> + Send + 'static) -> Replay {
    world.registry.learn(schema(2));
    let (lake, by) = world.beside();
    let other = world.clone();
    let hooks: [Hook; 2] = [Box::new(|| Box::pin(async {})), Box::new(move || hook(other))];
    by.before_commits.lock().unwrap().extend(hooks);
    world.replay_by(&lake, &Choice::default()).await.unwrap()
}

#[tokio::test]
async fn others_commit_in_between() {
    let happenings: [fn(World) -> BoxFuture<'static, ()>; 5] = [
        |world| Box::pin(async move { world.ingest("a", 0, &[Of(1, 20), Garbage, Of(2, 21)]).await }),
        |world| Box::pin(async move { world.compact(world.table()).await }),
        |world| Box::pin(async move { world.compact(&world.table().dead_letters()).await }),
        |world| Box::pin(async move { drop(world.replay().await) }),
        // Schema 3 is learnt by ingestion, which adds its column.
        |world| {
            Box::pin(async move {
                world.registry.learn(schema(3));
                world.ingest("b", 0, &[Of(3, 30)]).await;
            })
        },
    ];
    for (number, happening) in happenings.into_iter().enumerate() {
        let world = world().await;
        let replay = interrupted(&world, happening).await;
        assert_eq!(replay.rows, if number == 3 { 0 } else { 5 }, "{number}");
        let (rows, letters) = world.check().await;
        assert_eq!(letters, if number == 0 { 3 } else { 2 }, "{number}");
        assert_eq!(rows + letters, world.read.lock().unwrap().len());
    }
}

#[tokio::test]
async fn a_row_that_somebody_deletes_does_not_come_back() {
    // Since the replay.
    let world = world().await;
    world.registry.learn(schema(2));
    world.replay().await;
    world.foreign_delete().await;
    assert_eq!(world.deleted.lock().unwrap().len(), 5);
    assert_eq!(world.replay().await.rows, 0);
    assert_eq!(world.check().await, (2, 2));

    // While a replay that has lost its answer looks for its commit.
    let world = self::world().await;
    world.registry.learn(schema(2));
    let mut commits = 0;
    let choose = move |request: &str| {
        commits += usize::from(request == "commit");
        (request == "commit" && commits == 2).then_some(Fault::FailAfterWrite)
    };
    let lost = world.catalog.with_faults(Arc::new(Mutex::new(choose)));
    let lake = lake(Arc::new(lost), &world.stores, &world.clock);
    let other = world.clone();
    let deleting = async move {
        while other.state().await.rows < 7 {
            tokio::task::yield_now().await;
        }
        other.foreign_delete().await;
    };
    let choice = Choice::default();
    let (replay, ()) = futures::join!(world.replay_by(&lake, &choice), deleting);
    assert_eq!((replay.unwrap().rows, world.replay().await.rows), (5, 0));
    assert_eq!(world.check().await, (2, 2));

    // Rows of others are deleted between a replay and its commit.
    let world = self::world().await;
    let replay = interrupted(&world, |world| Box::pin(async move { world.foreign_delete().await })).await;
    assert_eq!(replay.rows, 5);
    world.check().await;
}

/// What somebody does who mends a record by hand: its row is appended, its letter stays.
async fn mend(world: &World, id: &str) {
    let id: RecordId = id.parse().unwrap();
    let value = world.read.lock().unwrap()[&id];
    world.registry.learn(schema(2));
    let mut state = world.state().await;
    let rows = loop {
        let one = batch(&id.source, NextOffset(id.offset), &[value]);
        match world.decoder(&state).decode(one, id.incarnation).unwrap() {
            Decoding::Done(decoded) => break decoded.rows,
            Decoding::Needs(_, needs) => {
                state = world.lake.evolve(&state, &needs.table.unwrap(), &BTreeMap::new()).await.unwrap();
            }
            Decoding::Misfit(_, text) => panic!("{text}"),
        }
    };
    let commit = CommitId(world.clock.fresh_id());
    let files = world.files(&state, commit, rows).await;
    let request = CommitRequest {
        id: commit,
        table: world.table().clone(),
        table_uuid: state.uuid,
        schema: state.schema,
        advances: BTreeMap::new(),
        identity: Ledger::default(),
        files,
        dead_letters: None,
        suspension: None,
        gaps: Vec::new(),
        newest_ms: None,
        conflicts: Arc::default(),
    };
    assert!(matches!(world.lake.commit(&request).await.unwrap(), CommitOutcome::Committed(_)));
}

#[tokio::test]
async fn a_record_that_was_mended_by_hand_is_no_letter_any_more() {
    let world = world().await;
    mend(&world, "a/0/1").await;
    let replay = world.replay().await;
    assert_eq!((replay.rows, replay.present), (4, 1));
    assert_eq!(world.check().await, (7, 2));

    let world = self::world().await;
    let replay = interrupted(&world, |world| Box::pin(async move { mend(&world, "a/0/1").await })).await;
    assert_eq!((replay.rows, replay.present), (4, 1), "also where that comes between a replay and its commit");
    assert_eq!(world.check().await, (7, 2));
}

#[tokio::test]
async fn a_record_that_the_table_is_not_to_have_is_neither_row_nor_letter() {
    let mut world = world().await;
    world.ingest("b", 0, &[Of(2, 60), Of(2, 61)]).await;
    let filter = Some(ByOffset { decides_all: true }.of_table());
    world.spec = Arc::new(TableSpec { filter, ..TableSpec::clone(&world.spec) });
    world.registry.learn(schema(2));
    let replay = world.replay().await;
    assert_eq!((replay.rows, replay.left_out, still(&replay).len()), (6, 1, 2), "{replay:?}");
    world.deleted.lock().unwrap().insert("b/0/2".parse().unwrap());
    assert_eq!(world.check().await, (8, 2));
}

#[tokio::test]
async fn records_of_each_incarnation_are_rows_of_their_own() {
    let world = world().await;
    world.renew("a").await;
    world.ingest("a", 0, &[Of(2, 41), Of(2, 42), Of(1, 43)]).await;
    assert_eq!(world.check().await, (3, 9));
    world.registry.learn(schema(2));
    assert_eq!(world.replay().await.rows, 7);
    assert_eq!(world.check().await, (10, 2));
    assert_eq!(world.rows().await[&"a@1/0/1".parse().unwrap()], Of(2, 42).row());
}

#[tokio::test]
async fn what_is_read_again_after_a_rollback_is_left_to_ingestion() {
    let world = world().await;
    let back = world.state().await.snapshot_id.unwrap();
    let values = [Of(2, 50), Of(2, 51)];
    world.ingest("b", 0, &values).await;
    world.registry.learn(schema(2));
    world.catalog.rollback(world.table(), back).unwrap();
    let error = world.replay_by(&world.lake, &Choice::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("rolled back"), "{error}");
    world.lake.resume(world.table(), Some(ResumeFrom::Snapshot)).await.unwrap();
    let choice = Choice { topic: Some("b".to_owned()), ..Choice::default() };
    let replay = world.replay_by(&world.lake, &choice).await.unwrap();
    assert_eq!((replay.rows, replay.ahead), (1, 2));
    // They are read again, as rows now, and their letters go without another row.
    world.ingest("b", 0, &values).await;
    let replay = world.replay().await;
    assert_eq!((replay.rows, replay.present, replay.ahead), (4, 2, 0));
    assert_eq!(world.check().await, (9, 2));
}

#[tokio::test]
async fn a_table_without_letters_has_none_to_replay() {
    let world = world().await;
    world.catalog.drop_table(&world.table().dead_letters());
    let error = world.replay_by(&world.lake, &Choice::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}
