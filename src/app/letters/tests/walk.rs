//! Every order of reading, replaying, compacting, deleting and dying: each record is a row or a letter, once, and what
//! was deleted stays away.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::lake::catalog::memory::Fault;

#[derive(Debug, Clone)]
enum Step {
    Ingest(&'static str, i32, Vec<(u8, i64)>),
    Learn(u8),
    Replay(Option<&'static str>),
    /// A replay whose process dies after so many requests, the last of them sent or not.
    Killed(usize, bool),
    /// A replay with these faults, one for each commit.
    Faulty(Vec<Fault>),
    /// A replay, with this between it and its first or second commit.
    Interrupted(Box<Step>, usize),
    Together,
    CompactLetters,
    CompactRows,
    ForeignDelete,
    Renew(&'static str),
}

fn plain() -> impl Strategy<Value = Step> + Clone {
    let topic = prop::sample::select(vec!["a", "b"]);
    let values = prop::collection::vec((0_u8..5, -3_i64..3), 1..6);
    prop_oneof![
        6 => (topic.clone(), 0..2, values).prop_map(|(topic, partition, values)| Step::Ingest(topic, partition, values)),
        2 => (2_u8..5).prop_map(Step::Learn),
        3 => prop::option::of(topic.clone()).prop_map(Step::Replay),
        1 => Just(Step::CompactLetters),
        1 => Just(Step::CompactRows),
        1 => Just(Step::ForeignDelete),
        1 => topic.prop_map(Step::Renew),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop::sample::select(vec![
        Fault::FailAfterWrite,
        Fault::LoseRequest,
        Fault::Hold(Duration::from_millis(30)),
        Fault::Hold(Duration::from_secs(9)),
        Fault::Reject,
        Fault::Conflict,
    ]);
    prop_oneof![
        6 => plain(),
        2 => (0_usize..14, any::<bool>()).prop_map(|(requests, is_sent)| Step::Killed(requests, is_sent)),
        2 => prop::collection::vec(fault, 1..5).prop_map(Step::Faulty),
        3 => (plain(), 0_usize..2).prop_map(|(step, after)| Step::Interrupted(Box::new(step), after)),
        1 => Just(Step::Together),
    ]
}

fn take(world: World, step: Step) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let all = Choice::default();
        match step {
            Step::Ingest(topic, partition, values) => {
                let value = |(id, n): (u8, i64)| if id == 0 { Body::Garbage } else { Body::Of(id, n) };
                world.ingest(topic, partition, &values.into_iter().map(value).collect::<Vec<_>>()).await;
            }
            Step::Learn(id) => world.registry.learn(schema(id)),
            Step::Replay(topic) => {
                let choice = Choice { topic: topic.map(str::to_owned), ..all };
                world.replay_by(&world.lake, &choice).await.unwrap();
            }
            Step::Killed(requests, is_sent) => {
                let (lake, by) = world.beside();
                *by.alive_for.lock().unwrap() = Some((requests, is_sent));
                drop(world.replay_until_dead(&lake, &by).await);
            }
            Step::Faulty(faults) => {
                let mut left = faults.into_iter();
                let choose = move |request: &str| if request == "commit" { left.next() } else { None };
                let catalog = world.catalog.with_faults(Arc::new(Mutex::new(choose)));
                // It fails where nothing was sent.
                let _ = world.replay_by(&lake(Arc::new(catalog), &world.stores, &world.clock), &all).await;
            }
            Step::Interrupted(step, after) => {
                let (lake, by) = world.beside();
                let other = world.clone();
                let mut hooks: Vec<Hook> =
                    (0..after).map(|_| Box::new(|| -> BoxFuture<'static, ()> { Box::pin(async {}) }) as Hook).collect();
                hooks.push(Box::new(move || take(other, *step)));
                by.before_commits.lock().unwrap().extend(hooks);
                world.replay_by(&lake, &all).await.unwrap();
            }
            Step::Together => {
                let ((one, _), (two, _)) = (world.beside(), world.beside());
                let (one, two) = futures::join!(world.replay_by(&one, &all), world.replay_by(&two, &all));
                assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
            }
            Step::CompactLetters => world.compact(&world.table().dead_letters()).await,
            Step::CompactRows => world.compact(world.table()).await,
            Step::ForeignDelete => world.foreign_delete().await,
            Step::Renew(topic) => world.renew(topic).await,
        }
    })
}

async fn walk(steps: Vec<Step>) {
    let world = World::new(Evolution::Extend).await;
    world.ingest("a", 0, &[Body::Of(1, 0), Body::Of(2, 0)]).await;
    world.ingest("b", 0, &[Body::Garbage]).await;
    for step in steps {
        take(world.clone(), step).await;
        world.check().await;
    }
    world.catalog.land_held();
    (2..5).for_each(|id| world.registry.learn(schema(id)));
    let replay = world.replay().await;
    assert!(replay.still.iter().all(|still| still.reason == "bad_magic_byte"), "{:?}", replay.still);
    world.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_order_of_things_doubles_or_loses_a_record(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(walk(steps));
    }
}
