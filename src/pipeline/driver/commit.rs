//! One commit through its port: waits for whatever is away, shows and counts what became of it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::resolve::Resolver;
use super::shown::Shown;
use super::{Ports, waits};
use crate::pipeline::event::{CommitEnd, On};
use crate::ports::{CommitOutcome, CommitRequest, Recovery};
use crate::runtime::backoff::Backoff;

/// A commit that takes longer is shown as waiting.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// What shows that records of this commit come from another topic than the ledger's: it was deleted and made anew
/// while it was read, and the client went on by its name. Waits for the broker's answer.
pub(super) async fn other_topic(resolver: &Resolver, request: &CommitRequest) -> Option<String> {
    let Recovery::At(progress) = resolver.state()?.recovery else { return None };
    let topics: BTreeSet<&str> = request.advances.keys().map(|source| source.topic.as_ref()).collect();
    for topic in topics {
        let Some(known) = progress.ledger.topics.get(topic).and_then(|topic| topic.topic_id) else { continue };
        // A commit that declares a new incarnation states the new id itself.
        if request.identity.topics.contains_key(topic) {
            continue;
        }
        let facts = resolver.patiently(On::Kafka, || resolver.ports.source.topic(topic)).await.ok().flatten();
        // Of a topic that is gone, everything read is its own.
        if facts.and_then(|facts| facts.topic_id).is_some_and(|now| now != known) {
            return Some(format!("topic `{topic}` was made anew while it was read"));
        }
    }
    None
}

/// Commits, waiting for whatever is away.
pub(super) async fn commit(ports: &Ports, shown: &Shown, request: &CommitRequest) -> CommitEnd {
    let mut backoff = Backoff::service();
    let end = loop {
        let attempt = ports.lake.commit(request);
        tokio::pin!(attempt);
        let outcome = if let Some(outcome) = ports.clock.timeout(COMMIT_PATIENCE, &mut attempt).await {
            outcome
        } else {
            shown.waits(On::Catalog, format!("a commit has had no definite answer for {COMMIT_PATIENCE:?}"));
            attempt.await
        };
        break match outcome {
            Ok(CommitOutcome::Committed(state)) => {
                ports.metrics.commits.committed.inc();
                CommitEnd::Committed(Box::new(state))
            }
            Ok(CommitOutcome::Stale(_, reason)) => {
                ports.metrics.commits.stale.inc();
                CommitEnd::Dropped(reason)
            }
            Ok(CommitOutcome::Outdated(_)) => {
                ports.metrics.commits.outdated.inc();
                CommitEnd::Dropped("the table's schema or layout changed in meaning".to_owned())
            }
            Err(error) if waits(&error) => {
                shown.waits(On::Catalog, error.chain());
                ports.clock.sleep(backoff.pause()).await;
                continue;
            }
            Err(error) => CommitEnd::Halted(error.chain()),
        };
    };
    shown.goes_on();
    ports.metrics.commits.conflict_retry.inc_by(request.conflicts.load(Ordering::Relaxed));
    end
}
