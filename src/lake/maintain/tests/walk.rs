//! Every order of commits and actions: no row and no file that is reached is ever lost.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(i64),
    Compact,
    StaleCompact,
    Manifests,
    Expire,
    DropOnly,
    Sweep,
    Orphans,
    ForeignTag,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_i64..6).prop_map(Step::Append),
        2 => Just(Step::Compact),
        1 => Just(Step::StaleCompact),
        1 => Just(Step::Manifests),
        1 => Just(Step::Expire),
        1 => Just(Step::DropOnly),
        1 => Just(Step::Sweep),
        1 => Just(Step::Orphans),
        1 => Just(Step::ForeignTag),
    ]
}

async fn walk(steps: &[Step], format_version: u8, partitioned: bool, sorted: bool) {
    let mut world = World::of(format_version, partitioned, sorted).await;
    world.append(1).await;
    let mut held: Option<Work> = None;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Append(rows) => world.append(*rows).await,
            Step::Compact => drop(world.run(Action::Compact).await),
            // Written now, committed when the next one comes by.
            Step::StaleCompact => {
                if let Some(work) = held.take() {
                    land(&world, &world.lake, work).await;
                } else if world.maintainer.health(&world.table).await.unwrap().compactable_files > 0 {
                    held = Some(compacted(&world).await);
                }
            }
            Step::Manifests => drop(world.run(Action::Manifests).await),
            Step::Expire => drop(world.run(Action::Expire).await),
            Step::DropOnly => drop(land(&world, &world.lake, Work::Expire(options().retention)).await),
            Step::Sweep => {
                let metadata = world.loaded().await.metadata;
                expire::sweep(&world.lake.committer, &metadata, i64::MAX).await.unwrap();
            }
            // What waits to be committed is younger than any grace would be.
            Step::Orphans if held.is_none() => {
                world.run(Action::Orphans).await;
                let (reached, found) = world.files().await;
                assert_eq!(reached, found);
            }
            Step::Orphans => {}
            Step::ForeignTag => {
                let id = world.loaded().await.metadata.current_snapshot_id().unwrap();
                let retention = iceberg::spec::SnapshotRetention::Tag { max_ref_age_ms: None };
                let reference = iceberg::spec::SnapshotReference::new(id, retention);
                world
                    .catalog
                    .edit(&world.table, |builder| builder.set_ref(&format!("tag-{number}"), reference))
                    .unwrap();
            }
        }
        // Whatever any retained snapshot reaches is there, and the table is what was committed.
        let (reached, found) = world.files().await;
        let missing: Vec<_> = reached.difference(&found).collect();
        assert!(missing.is_empty(), "{step:?}: {missing:?}");
        world.check().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// I4 and I8 under every order of commits and actions, interrupted ones among them.
    #[test]
    fn no_order_of_actions_loses_a_row_or_a_file(
        steps in prop::collection::vec(step(), 1..30),
        format_version in 2_u8..=3,
        partitioned: bool,
        sorted: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(walk(&steps, format_version, partitioned, sorted));
    }
}
