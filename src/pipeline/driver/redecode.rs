//! Records of dead letters decoded again, by the very path that new records take: today's schemas and settings, the
//! table's columns evolved where that is needed. Where the records come from and go to is the caller's matter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::resolve::{Decoded, Resolver};
use super::survey::check_mapping;
use super::{Ports, TableSpec};
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::raw::RawBatch;
use crate::ports::{Lake, Registry, Source, Start, TableState, TopicFacts, Watermarks};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// How long one batch may wait for registry and catalog: whoever asked for it stands by.
const PATIENCE: Duration = Duration::from_mins(1);

/// What decoding again works with.
pub struct RedecodePorts {
    /// Schemas by id; `None` where no registry is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Tables.
    pub lake: Arc<dyn Lake>,
    /// Time.
    pub clock: Clock,
    /// Threads for decoding.
    pub compute: Compute,
}

/// What records came to.
#[derive(Debug, Default)]
pub struct Redecoded {
    /// Those that are rows now.
    pub rows: Vec<DecodedBatch>,
    /// Those that are none still: offset, reason, and the detail in words.
    pub rejects: Vec<(i64, Reason, String)>,
    /// Offsets of those that the table's filter leaves out.
    pub left_out: Vec<i64>,
}

/// Decodes one table's records again.
pub struct Redecoder {
    resolver: Resolver,
}

impl Redecoder {
    /// For the table of `spec`, as it is now.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no such table; `Corrupt` where it was made with another mapping.
    pub async fn open(spec: Arc<TableSpec>, ports: RedecodePorts) -> Result<Self> {
        let (name, health) = (spec.settings.table.clone(), Health::new());
        let RedecodePorts { registry, lake, clock, compute } = ports;
        let state = lake.load(&name).await?;
        let state = state.ok_or_else(|| Error::invalid_request(format!("there is no table `{name}`")))?;
        let metrics = Metrics::new(health.clone()).table(&name);
        let source = Arc::new(NoTopics);
        let ports = Ports { source, registry, lake, clock, compute, health, metrics, seam: None };
        let resolver = Resolver::new(spec, ports);
        check_mapping(&resolver, &state)?;
        resolver.adopt(&state).await?;
        Ok(Self { resolver })
    }

    /// The newest state of the table seen.
    #[must_use]
    pub fn state(&self) -> Option<TableState> {
        self.resolver.state()
    }

    /// Takes note of a newer one.
    pub fn seen(&self, state: &TableState) {
        self.resolver.seen(state);
    }

    /// Decides every record of `batch`, which are of that incarnation of their topic. Where the table would be suspended
    /// for a schema, its records are rejects.
    ///
    /// # Errors
    /// `Unavailable` where registry or catalog are away for long; `Corrupt` where the table cannot take the columns.
    pub async fn decode(&self, batch: RawBatch, incarnation: i32) -> Result<Redecoded> {
        let (mut open, mut all) = (vec![batch], Redecoded::default());
        while let Some(batch) = open.pop() {
            let waited = self.resolver.ports.clock.timeout(PATIENCE, self.resolver.decode_of(batch, Some(incarnation)));
            let away = || Error::unavailable("decode dead letters: registry or catalog were away for too long");
            match waited.await.unwrap_or_else(|| Err(away()))? {
                Decoded::Rows(mut decoded) => {
                    all.left_out.append(&mut decoded.filtered);
                    let rejects = std::mem::take(&mut decoded.rejects);
                    all.rejects.extend(rejects.into_iter().map(|r| (r.record.offset, r.reason, r.message)));
                    all.rows.push(decoded);
                }
                Decoded::Misfit(batch, text) => match batch.records.as_slice() {
                    [] => {}
                    [record] => all.rejects.push((record.offset, Reason::IncompatibleSchema, text)),
                    // The schema that does not fit is that of some of them only.
                    _ => open.extend(<[RawBatch; 2]>::from(batch.halves())),
                },
            }
        }
        Ok(all)
    }
}

/// Letters hold their records: no topic is read for them.
struct NoTopics;

#[async_trait]
impl Source for NoTopics {
    fn start(&self, _: Vec<Start>) {}

    fn stop(&self, _: Vec<TopicPartition>) {}

    async fn topic(&self, _: &str) -> Result<Option<TopicFacts>> {
        Ok(None)
    }

    async fn watermarks(&self, _: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        Ok(BTreeMap::new())
    }

    async fn offsets_at(&self, _: &[TopicPartition], _: i64) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        Ok(BTreeMap::new())
    }

    fn hint(&self, _: Vec<(TopicPartition, NextOffset)>) {}
}
