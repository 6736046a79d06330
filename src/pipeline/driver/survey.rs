//! Looking up a table and its topics, and making the table where it is missing, or taking it over where another tool
//! made it. Waits for whatever is away.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::resolve::Resolver;
use super::takeover::{take_over, without_defaults};
use super::waits;
use crate::decode::evolution::founded;
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::mapping;
use crate::pipeline::event::{Event, On, StartAt, Survey};
use crate::ports::{Recovery, TableLayout, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::crash;

/// Surveys until it succeeds; `SurveyHalted` where the table cannot be gone on with.
pub(super) async fn survey(resolver: Arc<Resolver>, create: bool) -> Event {
    let mut backoff = Backoff::service();
    loop {
        match attempt(&resolver, create).await {
            Ok(survey) => {
                resolver.shown.goes_on();
                return Event::Surveyed(Box::new(survey));
            }
            Err((on, error)) if waits(&error) => {
                resolver.shown.waits(on, error.chain());
                resolver.ports.clock.sleep(backoff.pause()).await;
            }
            Err((_, error)) => return Event::SurveyHalted(error.chain()),
        }
    }
}

async fn attempt(resolver: &Resolver, create: bool) -> Result<Survey, (On, Error)> {
    let state = table(resolver, create).await?;
    let kafka = |error| (On::Kafka, error);
    let source = &resolver.ports.source;
    let settings = &resolver.spec.settings;
    let mut topics = BTreeMap::new();
    let mut partitions = Vec::new();
    for topic in &settings.topics {
        let facts = source.topic(topic).await.map_err(kafka)?;
        let all = facts.iter().flat_map(|facts| &facts.partitions);
        partitions.extend(all.map(|partition| TopicPartition::new(topic.as_str(), *partition)));
        topics.insert(topic.clone(), facts);
    }
    let watermarks = source.watermarks(&partitions).await.map_err(kafka)?;
    let known =
        |topic: &str| matches!(&state.recovery, Recovery::At(progress) if progress.ledger.topics.contains_key(topic));
    partitions.retain(|source| !known(&source.topic));
    let at_time = match settings.start {
        StartAt::Timestamp(ms) if !partitions.is_empty() => source.offsets_at(&partitions, ms).await.map_err(kafka)?,
        _ => BTreeMap::new(),
    };
    Ok(Survey { state, topics, watermarks, at_time })
}

async fn table(resolver: &Resolver, create: bool) -> Result<TableState, (On, Error)> {
    let (spec, lake) = (&resolver.spec, &resolver.ports.lake);
    let name = &spec.settings.table;
    let catalog = |error| (On::Catalog, error);
    let state = match lake.load(name).await.map_err(catalog)? {
        Some(state) if state.shape.is_foreign && create => take_over(resolver, state).await?,
        Some(state) => state,
        None if !create => {
            let text =
                format!("table `{name}` has vanished; restart frazil to make it anew and read its topics from `start`");
            return Err(catalog(Error::corrupt(text)));
        }
        None => {
            let registry = |error| (On::Registry, error);
            let known = resolver.known().await.map_err(registry)?;
            let schema = without_defaults(founded(&known.columns(&spec.layout).map_err(registry)?, &spec.layout));
            resolver.check_filter(&schema, &known, &spec.layout).map_err(registry)?;
            let mut properties = known.decided.clone();
            properties.extend(spec.properties.clone());
            let layout = TableLayout {
                schema,
                partition_by: spec.partition_by.clone(),
                sort_by: spec.sort_by.clone(),
                format_version: spec.format_version,
                properties,
                location: spec.location.clone(),
            };
            let made = lake.create(name, &layout).await.map_err(catalog)?;
            crash::point(crash::TABLE_CREATED);
            made
        }
    };
    check_mapping(resolver, &state).map_err(catalog)?;
    resolver.adopt(&state).await.map_err(|error| (On::Registry, error))?;
    Ok(state)
}

/// Refuses a table whose mapping was stored as another one than is configured now.
pub(super) fn check_mapping(resolver: &Resolver, state: &TableState) -> Result<()> {
    let differences = mapping::difference(&state.properties, &resolver.spec.properties);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the configuration of table `{}` differs from the one that it was made with: {}; set it back, \
         write to another table, or apply what can be applied by `frazil tables alter {}`",
        state.table,
        differences.join("; "),
        state.table
    )))
}
