//! `frazil demo`: the ordinary service against an embedded broker and registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;

use super::service::{Roles, Service, position};
use crate::config::{Config, process_env};
use crate::demo::{Demo, DemoOptions, Produced, TOPICS};
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::version::Consistency;
use crate::ports::{Recency, Recovery, SearchMode, SearchRequest, SqlRequest};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// Records of `--once`.
const ONCE_RECORDS: u64 = 50_000;
/// The topic that is searched, and what is looked for: no words of the tickets.
const SEARCHED: &str = "tickets";
const QUESTION: &str = "appliance caught fire";
/// How long the last ticket may take to be findable.
const SEARCH_PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How the demo runs.
#[derive(Clone)]
pub struct DemoRunOptions {
    /// Where tables go.
    pub dir: PathBuf,
    /// Records a second, all topics together.
    pub rate: u32,
    /// Materialise a fixed amount, check it, and end.
    pub once: bool,
    /// Told once the service runs and when rows are there: text for people.
    pub say: Arc<dyn Fn(DemoNews) + Send + Sync>,
}

/// What the demo has to tell.
#[derive(Debug, Clone)]
pub enum DemoNews {
    /// Broker, registry, and listener are up.
    Up {
        /// The broker's address.
        bootstrap_servers: String,
        /// The registry's address.
        registry_url: String,
        /// The listener's address.
        listen: std::net::SocketAddr,
        /// The demo's folder.
        dir: PathBuf,
        /// The configuration file in it.
        config: PathBuf,
    },
    /// Rows committed so far, per table.
    Rows(Vec<(String, u64)>),
    /// `--once` has checked that all records are committed, that SQL counts them, and that a search finds one.
    Checked {
        /// Records produced, all of them committed.
        records: u64,
        /// Seconds from the first record to the last commit.
        seconds: f64,
        /// What SQL counted before the last commit: rows committed, and rows seen.
        counted: (u64, u64),
        /// What a search by meaning found.
        found: Found,
    },
}

/// A search and its best hit.
#[derive(Debug, Clone)]
pub struct Found {
    /// What was looked for.
    pub query: &'static str,
    /// The record found.
    pub id: String,
    /// The part of its text that fits best.
    pub snippet: String,
}

/// Runs the demo until `shutdown`, or with `once` until its amount is committed.
///
/// # Errors
/// `Corrupt` where `once` finds that the tables do not hold what was produced.
pub async fn demo(options: DemoRunOptions, shutdown: Shutdown) -> Result<()> {
    let clock = Clock::system();
    let demo_options = DemoOptions {
        dir: options.dir.clone(),
        rate: options.rate,
        once: options.once.then_some(ONCE_RECORDS),
        seed: clock.now_ms().unsigned_abs(),
    };
    let services_stop = Shutdown::new();
    let demo = Demo::start(demo_options, clock.clone(), services_stop).await?;
    let config = Config::from_yaml(&demo.config_yaml(), &process_env)?;
    let service = Service::start(config, Roles::default(), false, clock.clone()).await?;
    let config = demo.write_config().await?;
    (options.say)(DemoNews::Up {
        config,
        bootstrap_servers: demo.services().bootstrap_servers.clone(),
        registry_url: demo.services().registry_url.to_string(),
        listen: service.listen,
        dir: demo.dir().to_owned(),
    });
    let result = play(&demo, &service, &options, &clock, &shutdown).await;
    service.stop().await;
    demo.stop().await?;
    result
}

async fn play(
    demo: &Demo,
    service: &Service,
    options: &DemoRunOptions,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<()> {
    let begun = clock.elapsed();
    let committed = committed(service, clock).await;
    while service.tables().values().any(|handle| handle.state.borrow().is_none()) {
        clock.sleep(LOOK).await;
    }
    let before: u64 = rows(service).iter().map(|(_, rows)| rows).sum();
    let stop = shutdown.child();
    let produce = demo.produce(Arc::clone(&committed), &stop);
    let watch = async {
        let mut shown = Vec::new();
        loop {
            let rows = rows(service);
            if rows != shown {
                (options.say)(DemoNews::Rows(rows.clone()));
                shown = rows;
            }
            clock.sleep(LOOK * 10).await;
        }
    };
    let produced = tokio::select! {
        produced = produce => produced?,
        () = watch => return Ok(()),
        () = shutdown.requested() => return Ok(()),
    };
    if !options.once {
        return Ok(());
    }
    let counted = counted(service).await?;
    let records: i64 = produced.values().sum();
    while produced.iter().any(|((topic, partition), end)| committed(topic, *partition) < *end) {
        if shutdown.is_requested() {
            return Ok(());
        }
        clock.sleep(LOOK).await;
    }
    let rows: u64 = rows(service).iter().map(|(_, rows)| rows).sum();
    let records = records.unsigned_abs();
    if rows - before != records {
        let rows = rows - before;
        return Err(Error::corrupt(format!(
            "{records} records were produced and committed, the tables took {rows} rows"
        )));
    }
    (options.say)(DemoNews::Rows(self::rows(service)));
    let seconds = clock.elapsed().saturating_sub(begun).as_secs_f64();
    let found = found(service, &produced).await?;
    (options.say)(DemoNews::Checked { records, seconds, counted, found });
    Ok(())
}

/// Rows of the orders as they are committed, and as a fresh query sees them.
async fn counted(service: &Service) -> Result<(u64, u64)> {
    let (sql, limits) = service.sql();
    let count = async |consistency| {
        let statement = "SELECT count(*) AS n FROM shop.orders".to_owned();
        let answer = sql.query(SqlRequest { sql: statement, consistency, limits }).await?;
        let rows: Vec<_> = answer.rows.try_collect().await?;
        let count =
            rows.first().and_then(|rows| rows.column(0).as_primitive_opt::<Int64Type>()?.values().first().copied());
        count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| Error::bug("a count is one number"))
    };
    let committed = count(Consistency::Committed).await?;
    Ok((committed, count(Consistency::Fresh(BTreeMap::new())).await?))
}

/// What a search by meaning finds among all tickets that were produced.
async fn found(service: &Service, produced: &Produced) -> Result<Found> {
    let search = service.search().ok_or_else(|| Error::bug("the demo keeps an index"))?;
    let tickets = produced.iter().filter(|((topic, _), _)| *topic == SEARCHED);
    let at_least =
        tickets.map(|((topic, partition), end)| (TopicPartition::new(*topic, *partition), NextOffset(*end))).collect();
    let request = SearchRequest {
        query: QUESTION.to_owned(),
        tables: BTreeSet::new(),
        mode: SearchMode::Hybrid,
        filter: None,
        time_from_ms: None,
        time_to_ms: None,
        recency: Recency::None,
        hot: true,
        at_least,
        limit: 1,
        time: SEARCH_PATIENCE,
    };
    let hit = search.search(request).await?.hits.into_iter().next();
    let hit = hit.ok_or_else(|| Error::corrupt("a search found no ticket among those produced"))?;
    Ok(Found { query: QUESTION, id: hit.id.to_string(), snippet: hit.snippet })
}

/// Rows per table, as its newest snapshot counts them.
fn rows(service: &Service) -> Vec<(String, u64)> {
    let tables = service.tables().iter();
    tables
        .map(|(name, handle)| (name.to_string(), handle.state.borrow().as_ref().map_or(0, |state| state.rows)))
        .collect()
}

/// The ledger's positions of this run's topics: 0 until the run's own incarnation of a topic is in the ledger.
async fn committed(service: &Service, clock: &Clock) -> Arc<dyn Fn(&str, i32) -> i64 + Send + Sync> {
    let mut topics = BTreeMap::new();
    for handle in service.tables().values() {
        for topic in &handle.spec.settings.topics {
            // The embedded broker may not know its topics at once; without the id nothing would ever count as committed.
            let id = loop {
                if let Ok(Some(facts)) = handle.source.topic(topic).await {
                    break facts.topic_id;
                }
                clock.sleep(LOOK).await;
            };
            topics.insert(topic.clone(), (id, handle.state.clone()));
        }
    }
    debug_assert_eq!(topics.len(), TOPICS.len());
    Arc::new(move |topic, partition| {
        let Some((id, state)) = topics.get(topic) else { return 0 };
        let state = state.borrow();
        let Some(state) = state.as_ref() else { return 0 };
        let Recovery::At(progress) = &state.recovery else { return 0 };
        let same = progress.ledger.topics.get(topic).is_some_and(|held| held.topic_id == *id);
        if !same {
            return 0;
        }
        position(state, &TopicPartition::new(topic, partition)).map_or(0, |at| at.0)
    })
}
